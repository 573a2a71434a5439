"""What a streamer must not have done on its way, although the table is right in the end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

import psycopg

from include.domain.timeframes import DAY_US, MINUTE_US, SECOND_US, from_us, to_us
from streamer.candles.events import AFTER_DATABASE_OUTAGE
from tests.chaos.oracle.verdict import Truth

STATES: Final = frozenset(
    {
        "stream_dead", "stream_revived", "symbol_silent", "symbol_silence_ended",
        "symbol_halted", "symbol_resumed", "symbol_gone", "symbol_removed",
    }
)  # fmt: skip
"""Log events that change the state of a symbol."""
FINAL_AFTER_US: Final = 30 * SECOND_US
"""After the end of a minute, REST no longer changes its row."""
SLACK_US: Final = 10 * SECOND_US
"""A clock that is carried on in a silence may be ahead of the exchange's, which waits for frames
that are late."""
NOT_FINAL: Final = re.compile(r"\.\.(?:[\d-]+ )?(\d\d):(\d\d): \d+ minutes have no final row yet")
"""Of a repair that came too early, or while REST lagged: the time of day of the range's end."""
STARTED: Final = "streaming_started"


class Deliveries(Protocol):
    """Which minutes an exchange delivered."""

    def is_whole(self, symbol: str, minute_us: int) -> bool:
        """Whether some connection delivered every trade of a minute and its closed kline."""


def closed_by_unconfirmed(database_url: str) -> list[str]:
    """Return gaps that a candle closed which nothing had verified."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, from_time, to_time, repaired_by FROM ops.gaps"
            " WHERE dataset = 'candles_1m'"
            " AND string_to_array(repaired_by, ' and ') && '{stream,trades,file,foreign}'"
            " ORDER BY symbol, from_time"
        ).fetchall()
    return [
        f"{symbol} {start:%d %H:%M}: gap to {end:%H:%M} was closed by {by}"
        for symbol, start, end, by in rows
    ]


def closed_too_early(
    seen: Iterable[tuple[str, int]], true: Truth, given_up: Mapping[str, int]
) -> list[str]:
    """Return the exchange's minutes that had no verified row when their gap was closed.

    Args:
        seen: by a witness; with minutes that the exchange never had.
        given_up: by symbol, from when on its minutes may be missing.
    """
    return [
        f"{symbol} {from_us(minute_us):%d %H:%M}: had no verified row when its gap was closed"
        for symbol, minute_us in sorted(seen)
        if minute_us in true.get(symbol, {}) and minute_us < given_up.get(symbol, minute_us + 1)
    ]


def lost_between_memory_and_table(
    database_url: str, true: Truth, delivered: Deliveries
) -> list[str]:
    """Return minutes that were delivered in full, and were requested after PostgreSQL was away.

    The streamer keeps in memory what PostgreSQL did not take. Only a standby that took over lacks
    rows: runs with one are not judged.
    """
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, from_time, to_time FROM ops.gaps"
            " WHERE dataset = 'candles_1m' AND cause = %s ORDER BY symbol, from_time",
            (AFTER_DATABASE_OUTAGE,),
        ).fetchall()
    minutes = {
        (symbol, minute_us)
        for symbol, start, end in rows
        for minute_us in range(to_us(start), to_us(end), MINUTE_US)
        if minute_us in true.get(symbol, {})
    }
    return [
        f"{symbol} {from_us(minute_us):%d %H:%M}: was delivered, and missing after PostgreSQL "
        "was away"
        for symbol, minute_us in sorted(minutes)
        if delivered.is_whole(symbol, minute_us)
    ]


def repaired_too_early(
    postponed: Sequence[Mapping[str, Any]], exchange_us: Callable[[int], int]
) -> list[str]:
    """Return repairs of ranges whose last minute was not final when the exchange had answered.

    Args:
        postponed: log entries of repairs that are tried again.
        exchange_us: gives the exchange's time at a moment of the monotonic clock (ns).
    """
    found = []
    for entry in postponed:
        if (end := NOT_FINAL.search(entry["error"])) is None:
            continue
        age_s = time.time() - datetime.fromisoformat(entry["timestamp"]).timestamp()
        at_us = exchange_us(time.monotonic_ns() - round(age_s * 1e9))
        since_us = (at_us - _time_of_day_us(end)) % DAY_US
        if since_us < FINAL_AFTER_US - SLACK_US:
            found.append(f"at {from_us(at_us):%H:%M:%S}: {entry['error']}")
    return found


def still_dead(entries: Sequence[Mapping[str, Any]], traded: Iterable[str]) -> list[str]:
    """Return symbols whose streams the last life of a streamer calls dead in the calm.

    Args:
        entries: its log, in order.
        traded: symbols whose trades the exchange delivered since the calm began.
    """
    states: dict[str, str] = {}
    for entry in entries:
        if entry["event"] == STARTED:
            states.clear()
        elif entry["event"] in STATES:
            states[entry["symbol"]] = entry["event"]
    dead = {symbol for symbol, state in states.items() if state == "stream_dead"}
    return [f"{symbol}: its streams are called dead" for symbol in sorted(dead & set(traded))]


def _time_of_day_us(found: re.Match[str]) -> int:
    hour, minute = map(int, found.groups())
    return (hour * 60 + minute) * MINUTE_US
