"""A market of several symbols: its klines and trades up to a given time.

Callers pass `view_us`, the time up to which trades have happened.
"""

from collections.abc import Iterator

from simulator.cache import BoundedCache
from simulator.clock import DAY_US, MINUTE_US, SECOND_US
from simulator.market.book.book import OrderBook
from simulator.market.derivatives.series import DerivativeSeries
from simulator.market.history import History
from simulator.market.hours.calendar import TradingState
from simulator.market.hours.kline_pages import window_over_pauses
from simulator.market.instruments import Instrument, MarketName
from simulator.market.intervals import Interval, parse_interval
from simulator.market.klines import Kline, KlineColumns, roll_up, to_klines
from simulator.market.quarters import (
    LISTED_AFTER_DELIVERY_US,
    ContractType,
    contract_type,
    delivery_before,
    delivery_status,
    status_changes,
)
from simulator.market.trades.columns import TradeColumns

# intervals aggregated from trades; the others are rolled up from minutes
AGGREGATED_STEPS_US = {"1s": SECOND_US, "1m": MINUTE_US}


def kline_window(
    interval: Interval,
    *,
    first_us: int,
    view_us: int,
    start_us: int | None,
    end_us: int | None,
    limit: int | None,
    is_latest: bool = False,
) -> tuple[int, int] | None:
    """Return open times of the first and last kline that a request selects; None if there is none.

    Without times: the latest. Start only: from the start on. End only: the latest up to the end.
    Both: from the start, not past the end. Both ends are inclusive and refer to open times.

    Args:
        first_us: when the symbol was listed.
        view_us: last visible time.
        is_latest: the latest klines, also with a start.
    """
    if view_us < first_us or (start_us is not None and start_us > view_us):
        return None
    lowest = interval.open_of(first_us)
    last = interval.open_of(view_us if end_us is None else min(end_us, view_us))
    if start_us is not None and start_us > lowest:
        lowest = interval.first_open_from(start_us)
    if last < lowest:
        return None
    if limit is None:
        return lowest, last
    if start_us is None or is_latest:
        return max(lowest, _steps_away(interval, last, 1 - limit)), last
    return lowest, min(last, _steps_away(interval, lowest, limit - 1))


def _steps_away(interval: Interval, open_us: int, steps: int) -> int:
    if interval.step_us is not None:
        return open_us + steps * interval.step_us
    for _ in range(abs(steps)):
        open_us = interval.next_open(open_us) if steps > 0 else interval.previous_open(open_us)
    return open_us


# The futures have no status for a halt: klines continue, and the status was TRADING in past halts.
# Of a perpetual contract of COIN-M, SETTLING is an assumption.
_FUTURES_STATUSES: dict[TradingState, str] = {
    "unlisted": "PENDING_TRADING",
    "trading": "TRADING",
    "halted": "TRADING",
    "delisted": "SETTLING",
}
_STATUSES: dict[MarketName, dict[TradingState, str]] = {
    "spot": {
        "unlisted": "PRE_TRADING",
        "trading": "TRADING",
        "halted": "HALT",
        "delisted": "BREAK",
    },
    "um": _FUTURES_STATUSES,
    "cm": _FUTURES_STATUSES,
}


def _has_left(history: History, at_us: int) -> bool:
    """Whether a dated contract is no longer in exchangeInfo."""
    delivery_us = history.delivery_us
    return delivery_us is not None and at_us >= delivery_us + LISTED_AFTER_DELIVERY_US


class SimulatedMarket:
    """A market of several symbols under one seed.

    Args:
        instruments: listed from `start_us` on; dated contracts from their own time on.
        cached_days: days of minute klines kept in memory (130 kB each).
        cached_minutes: minutes of trades kept in memory.
    """

    def __init__(
        self,
        instruments: tuple[Instrument, ...],
        *,
        seed: int,
        start_us: int,
        cached_days: int = 1_200,
        cached_minutes: int = 4_096,
    ) -> None:
        day_klines: BoundedCache[tuple[str, int], KlineColumns] = BoundedCache(
            cached_days, makes_once=True
        )
        minutes: BoundedCache[tuple[str, int], TradeColumns] = BoundedCache(
            max(cached_minutes, 4 * len(instruments))
        )
        self.start_us = start_us // MINUTE_US * MINUTE_US
        self._histories = {
            instrument.symbol: History(
                instrument,
                seed=seed,
                start_us=max(start_us, instrument.onboard_us or start_us),
                day_klines=day_klines,
                minutes=minutes,
            )
            for instrument in instruments
        }
        self._day_klines, self._minute_tapes = day_klines, minutes
        self.seed = seed
        self._books: dict[str, OrderBook] = {}
        self._derivatives: dict[str, DerivativeSeries] = {}

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """All listings, in order."""
        return tuple(history.instrument for history in self._histories.values())

    def listed(self, at_us: int) -> tuple[Instrument, ...]:
        """Return what is listed at a time.

        Delisted symbols stay; a dated contract leaves a day after its delivery.
        """
        return tuple(
            history.instrument
            for history in tuple(self._histories.values())
            if history.start_us <= at_us and not _has_left(history, at_us)
        )

    def ever_listed(self, at_us: int) -> tuple[Instrument, ...]:
        """Return what is or was listed at a time, delivered contracts too."""
        return tuple(
            history.instrument
            for history in tuple(self._histories.values())
            if history.start_us <= at_us
        )

    def status(self, symbol: str, at_us: int) -> str:
        """Return the exchange's status of a symbol. Raises KeyError for an unknown symbol."""
        history = self._histories[symbol]
        state, delivery_us = history.calendar.state(at_us), history.delivery_us
        if delivery_us is not None and state != "unlisted":
            return delivery_status(delivery_us, at_us)
        return _STATUSES[history.instrument.market][state]

    def contract_type(self, symbol: str, at_us: int) -> ContractType:
        """Return the type of a contract at a time. Raises KeyError for an unknown symbol."""
        history = self._histories[symbol]
        return contract_type(history.instrument.delivery_us, history.delivery_us, at_us)

    def contract_changes(self, symbol: str) -> list[int]:
        """Return when a contract's status or type changes, from its listing on."""
        history = self._histories[symbol]
        found = [one.start_us for one in history.calendar.listings()]
        found += [
            one.stop_us for one in history.calendar.sessions if one.ends_listing and one.stop_us
        ]
        planned_us, delivery_us = history.instrument.delivery_us, history.delivery_us
        if planned_us is not None and delivery_us is not None:
            found += [delivery_before(planned_us), *status_changes(delivery_us)]
        return sorted({at_us for at_us in found if at_us >= history.start_us})

    def add_listing(self, instrument: Instrument, *, start_us: int) -> History:
        """List a further instrument from a time on (floored to the minute).

        Raises:
            ValueError: the symbol exists already.
        """
        if instrument.symbol in self._histories:
            raise ValueError(f"{instrument.symbol} is listed already")
        history = History(
            instrument,
            seed=self.seed,
            start_us=start_us,
            day_klines=self._day_klines,
            minutes=self._minute_tapes,
        )
        self._histories = self._histories | {instrument.symbol: history}
        return history

    def drop_listing(self, symbol: str) -> None:
        """Remove a listing that has not started."""
        kept = dict(self._histories)
        del kept[symbol]
        self._histories = kept
        self._books.pop(symbol, None)
        self._derivatives.pop(symbol, None)

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._histories

    def __iter__(self) -> Iterator[str]:
        return iter(self._histories)

    def history(self, symbol: str) -> History:
        """Return the trades of a symbol. Raises KeyError for an unknown symbol."""
        return self._histories[symbol]

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument of a symbol. Raises KeyError for an unknown symbol."""
        return self._histories[symbol].instrument

    def book(self, symbol: str) -> OrderBook:
        """Return the order book of a symbol. Raises KeyError for an unknown symbol."""
        book = self._books.get(symbol)
        if book is None:
            made = OrderBook(self._histories[symbol], seed=self.seed)
            book = self._books.setdefault(symbol, made)
        return book

    def derivatives(self, symbol: str) -> DerivativeSeries:
        """Return the derivative series of a contract. Raises KeyError for an unknown symbol."""
        series = self._derivatives.get(symbol)
        if series is None:
            made = DerivativeSeries(self._histories[symbol], seed=self.seed)
            series = self._derivatives.setdefault(symbol, made)
        return series

    def klines(
        self,
        symbol: str,
        interval: str | Interval,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        view_us: int,
        limit: int | None = None,
        is_latest: bool = False,
    ) -> list[Kline]:
        """Return klines that open in `start_us … end_us` (inclusive), from visible trades only.

        The last one may be open. `kline_window` defines the window.

        Args:
            view_us: later trades do not exist yet.
        """
        spec = parse_interval(interval) if isinstance(interval, str) else interval
        if spec.name in AGGREGATED_STEPS_US:
            klines = self.kline_columns(
                symbol, spec, start_us, end_us, view_us=view_us, limit=limit, is_latest=is_latest
            )
            return [] if klines is None else to_klines(klines, AGGREGATED_STEPS_US[spec.name])
        window = self._window(
            symbol, spec, start_us, end_us, view_us=view_us, limit=limit, is_latest=is_latest
        )
        if window is None:
            return []
        return roll_up(self._minutes(symbol, spec, window, view_us=view_us), spec)

    def kline_columns(
        self,
        symbol: str,
        interval: Interval,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        view_us: int,
        limit: int | None = None,
        is_latest: bool = False,
    ) -> KlineColumns | None:
        """Return `1m` or `1s` klines as columns; None if there are none.

        Raises:
            ValueError: another interval, whose sums may not fit in 64 bits.
        """
        if interval.name not in AGGREGATED_STEPS_US:
            raise ValueError(
                f"no columns of {interval.name}; only of {', '.join(AGGREGATED_STEPS_US)}"
            )
        window = self._window(
            symbol, interval, start_us, end_us, view_us=view_us, limit=limit, is_latest=is_latest
        )
        if window is None:
            return None
        if interval.name == "1m":
            return self._minutes(symbol, interval, window, view_us=view_us)
        first_us, last_us = window
        return self._histories[symbol].second_klines(
            first_us, interval.next_open(last_us), view_us=view_us
        )

    def _window(
        self,
        symbol: str,
        interval: Interval,
        start_us: int | None,
        end_us: int | None,
        *,
        view_us: int,
        limit: int | None,
        is_latest: bool,
    ) -> tuple[int, int] | None:
        history = self._histories[symbol]
        window = kline_window(
            interval,
            first_us=history.start_us,
            view_us=history.last_kline_us(view_us),
            start_us=start_us,
            end_us=end_us,
            limit=limit if history.is_without_pauses else None,
            is_latest=is_latest,
        )
        if window is None or limit is None or history.is_without_pauses:
            return window
        return window_over_pauses(
            interval,
            history.calendar,
            lowest_us=window[0],
            highest_us=window[1],
            limit=limit,
            is_latest=start_us is None,
        )

    def _minutes(
        self, symbol: str, interval: Interval, window: tuple[int, int], *, view_us: int
    ) -> KlineColumns:
        """Return the visible minutes of the klines that open within a window."""
        first_us, last_us = window
        history = self._histories[symbol]
        view_us = history.last_kline_us(view_us)
        stop_us = min(interval.next_open(last_us), view_us + 1)
        first = max(first_us // MINUTE_US, history.start_minute)
        return history.kline_columns(first, -(-stop_us // MINUTE_US), view_us=view_us)

    def agg_trades(
        self,
        symbol: str,
        *,
        view_us: int,
        from_id: int | None = None,
        start_us: int | None = None,
        end_us: int | None = None,
        limit: int,
    ) -> TradeColumns:
        """Return at most `limit` orders: from an id on, within inclusive times, or the latest."""
        history = self._histories[symbol]
        stop = history.agg_id_from(view_us + 1)
        first = history.first_agg_id
        if from_id is not None:
            first = max(first, history.position_of_agg(from_id, view_us))
            stop = min(stop, first + limit)
        else:
            # An end after the view is no bound, and looking it up could reach far into the future.
            if end_us is not None and end_us < view_us:
                stop = min(stop, history.agg_id_from(end_us + 1))
            if start_us is not None:
                first = history.agg_id_from(min(start_us, view_us + 1))
                stop = min(stop, first + limit)
            else:
                first = max(first, stop - limit)
        if stop <= first:
            return history.minute(history.start_minute).between(0, 0)
        return history.orders_by_id(first, stop)

    def day_trades(self, symbol: str, day_us: int) -> TradeColumns:
        """Return all trades of the UTC day that starts at `day_us`."""
        history = self._histories[symbol]
        begin = day_us // MINUTE_US
        return history.trades(begin, begin + DAY_US // MINUTE_US)
