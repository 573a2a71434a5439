"""Concurrent repairs over pooled connections."""

from __future__ import annotations

from contextlib import ExitStack

from include.binance.rest.client import BinanceRest
from include.config import Settings
from include.domain.instruments import Market, market_of
from include.errors import TransientError
from include.jobs.exchange import APPLICATION_NAME, open_shared_rest
from include.jobs.klines.minutes import OnMerged, fetch_minutes
from include.jobs.klines.pieces import LoadCounts, label_of
from include.store.postgres.pools import connect


class _Lines:
    """A connection to the database, and clients of REST as they are needed."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._stack = ExitStack()
        self._rests: dict[Market, BinanceRest] = {}
        # Closed, not left as a context: leaving would commit, and a hanging server would replace
        # the original error with its own.
        self.connection = connect(url, application_name=APPLICATION_NAME)
        self._stack.callback(self.connection.close)

    def rest(self, market: Market) -> BinanceRest:
        """The client of a market."""
        if market not in self._rests:
            self._rests[market] = self._stack.enter_context(
                open_shared_rest(self._settings, market, self._url)
            )
        return self._rests[market]

    def close(self) -> None:
        """Close everything."""
        self._stack.close()


class Repairs:
    """Repairs of one process; call it from as many threads as repairs may run at once.

    Connecting, and reading the exchange's time, cost more than the repair of a minute: after a
    disconnect of 1,500 symbols they would double the request weight and take a minute of one core.

    Args:
        database_url: of the caller's role.
    """

    def __init__(self, settings: Settings, database_url: str) -> None:
        self._settings = settings
        self._url = database_url
        self._idle: list[_Lines] = []

    def repair(
        self,
        symbol: str,
        start_us: int,
        end_us: int,
        *,
        on_merged: OnMerged = lambda _candidates: None,
    ) -> LoadCounts:
        """Ask the exchange for the candles of a range and merge them.

        Args and errors as of ``repair_minutes``.
        """
        try:
            lines = self._idle.pop()  # from a list: one step, whatever other threads do
        except IndexError:
            lines = _Lines(self._settings, self._url)
        with ExitStack() as on_failure:
            on_failure.callback(lines.close)  # it may be the broken one
            counts = fetch_minutes(
                lines.connection,
                lines.rest(market_of(symbol)),
                symbol=symbol,
                start_us=start_us,
                end_us=end_us,
                on_merged=on_merged,
            )
            on_failure.pop_all()
        self._idle.append(lines)
        if counts.pending_minutes:
            raise TransientError(
                f"{label_of(symbol, start_us, end_us)}: {counts.pending_minutes} minutes have no "
                "row that counts yet; REST has a minute complete 30 s after its end"
            )
        return counts

    def close(self) -> None:
        """Close idle connections; the next repair connects again."""
        while True:
            try:
                lines = self._idle.pop()
            except IndexError:
                return
            lines.close()
