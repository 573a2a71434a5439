"""A reader of the ledgers while faults last: gaps that are closed before their minutes are stored.

What heals is not seen at the end. Each look is one statement, and so one snapshot: no time between
two writes of the streamer can be mistaken for an error.
"""

from __future__ import annotations

import threading

import psycopg

from include.domain.timeframes import to_us

LOOK_INTERVAL_S = 0.05
CONNECT_TIMEOUT_S = 2
JOIN_TIMEOUT_S = 30.0
"""A frozen server answers after its freeze."""

CLOSED_TOO_EARLY = """
SELECT DISTINCT g.symbol, m.minute
FROM ops.gaps AS g
CROSS JOIN LATERAL
    generate_series(g.from_time, g.to_time - interval '1 minute', interval '1 minute') AS m (minute)
WHERE
    g.dataset = 'candles_1m'
    AND g.repaired_at > clock_timestamp() - interval '10 seconds'
    AND NOT EXISTS (
        SELECT FROM ops.gaps AS o
        WHERE
            o.symbol = g.symbol AND o.dataset = g.dataset AND o.repaired_at IS NULL
            AND o.from_time <= m.minute AND o.to_time > m.minute
    )
    AND NOT EXISTS (
        SELECT FROM market.candles_1m AS c
        WHERE c.symbol = g.symbol AND c.open_time = m.minute AND c.status = 'verified'
    )
"""


class Witness:
    """Looks again and again, in a separate thread, until it is stopped.

    Attributes:
        closed_too_early: minutes of symbols that had no verified row while their gap was closed and
            no other one was open. Those that the exchange never had are rightly among them.
        looks: how often it has looked.
    """

    def __init__(self, database_url: str) -> None:
        self.closed_too_early: set[tuple[str, int]] = set()
        self.looks = 0
        self._url = database_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking, and close the connection."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_INTERVAL_S):
            try:
                with psycopg.connect(
                    self._url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True,
                    application_name="chaos-witness",
                ) as connection:  # fmt: skip
                    while not self._stop.wait(LOOK_INTERVAL_S):
                        self.look(connection)
            except psycopg.Error:
                continue  # the server is struck

    def look(self, connection: psycopg.Connection) -> None:
        """Look once."""
        rows = connection.execute(CLOSED_TOO_EARLY).fetchall()
        self.closed_too_early |= {(symbol, to_us(minute)) for symbol, minute in rows}
        self.looks += 1
