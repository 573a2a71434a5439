"""Run concurrent repairs over pooled connections."""

from __future__ import annotations

from contextlib import ExitStack

from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.counts import counted
from include.domain.instruments import Market, market_of
from include.errors import TransientError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.jobs.klines.minutes import OnMerged, fetch_minutes
from include.jobs.klines.pieces import LoadCounts, label_of
from include.store.postgres.pools import connect


class _Clients:
    """A database connection, and REST clients opened on first use."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._stack = ExitStack()
        self._rests: dict[Market, BinanceRest] = {}
        # The connection is closed rather than used as a context: leaving the context would commit,
        # and if the server hangs, its error would replace the original one.
        self.connection = connect(url, application_name=APPLICATION_NAME)
        self._stack.callback(self.connection.close)

    def rest(self, market: Market) -> BinanceRest:
        """Return the client of a market."""
        if market not in self._rests:
            self._rests[market] = self._stack.enter_context(
                open_shared_rest(self._settings, market, self._url)
            )
        return self._rests[market]

    def close(self) -> None:
        """Close the connection and the clients."""
        self._stack.close()


class Repairs:
    """Repairs of one process; callable from several threads, one repair each.

    Connecting and reading the exchange's time cost more than the repair of a minute. After a
    disconnect of 1,500 symbols they would double the request weight and take a minute of one core,
    so connections are reused.

    Args:
        database_url: of the caller's role.
    """

    def __init__(self, settings: Settings, database_url: str) -> None:
        self._settings = settings
        self._url = database_url
        self._idle: list[_Clients] = []

    def repair(
        self,
        symbol: str,
        start_us: int,
        end_us: int,
        *,
        on_merged: OnMerged = lambda _candidates: None,
    ) -> LoadCounts:
        """Fetch the candles of a range and merge them.

        Args and errors as for ``repair_minutes``.
        """
        try:
            clients = self._idle.pop()  # ``list.pop`` is atomic
        except IndexError:
            clients = _Clients(self._settings, self._url)
        with ExitStack() as on_failure:
            on_failure.callback(clients.close)  # the connection may be broken
            counts = fetch_minutes(
                clients.connection,
                clients.rest(market_of(symbol)),
                symbol=symbol,
                start_us=start_us,
                end_us=end_us,
                on_merged=on_merged,
            )
            on_failure.pop_all()
        self._idle.append(clients)
        if counts.pending_minutes:
            pending = counted(counts.pending_minutes, "minute has", "minutes have")
            raise TransientError(
                f"{label_of(symbol, start_us, end_us)}: {pending} no "
                "final row yet; REST completes a minute 30 s after its end"
            )
        return counts

    def close(self) -> None:
        """Close idle connections; the next repair opens new ones."""
        while True:
            try:
                clients = self._idle.pop()
            except IndexError:
                return
            clients.close()
