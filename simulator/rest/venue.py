"""Market data behind REST: rows in the exchange's text, limited to what is visible."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from simulator.clock import MINUTE_US, SimulatedClock
from simulator.market.book.book import BookSnapshot
from simulator.market.continuous import continuous_klines, contract_periods
from simulator.market.instruments import Instrument, MarketName
from simulator.market.intervals import Interval
from simulator.market.market import AGGREGATED_STEPS_US, SimulatedMarket
from simulator.market.quarters import ContractType
from simulator.rest.faults import RestFaults
from simulator.rest.parameters import ApiError
from simulator.wire.columns import kline_array
from simulator.wire.payloads import US_PER_MS, agg_trade_rows, kline_row, trade_rows

Row = dict[str, Any]
Found = TypeVar("Found")

# Documented as INVALID_PAIR; that all endpoints with a pair answer it is an assumption.
_INVALID_PAIR: dict[MarketName, tuple[int, str]] = {
    "um": (-4144, "Invalid pair"),
    "cm": (-4087, "Invalid pair."),
}
_CHEAP_LEVELS = 100  # up to here only the top of the book is computed


class UnavailableError(LookupError):
    """The venue cannot serve this; clients get error −1000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineQuery:
    """Klines of a symbol.

    Args:
        start_us: first open time; None for the latest klines.
        end_us: last open time, inclusive; None for no bound.
        limit: maximum number, counted from the start if there is one; None for all.
        is_latest: count the limit from the end, as COIN-M does.
        is_oracle: true klines, without the lag of REST.
    """

    symbol: str
    interval: Interval
    start_us: int | None = None
    end_us: int | None = None
    limit: int | None = None
    is_latest: bool = False
    is_oracle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AggTradeQuery:
    """aggTrades of a symbol: from an id on, or within inclusive times, or the latest.

    Args:
        limit: maximum number.
    """

    symbol: str
    from_id: int | None = None
    start_us: int | None = None
    end_us: int | None = None
    limit: int


class Venue(Protocol):
    """A market behind REST: the simulated one, or one from recordings."""

    name: MarketName

    def now_us(self) -> int:
        """Return the exchange's time."""

    def listed(self) -> tuple[Instrument, ...]:
        """Return all instruments."""

    def listed_since_us(self, symbol: str) -> int:
        """Return when the symbol was listed."""

    def klines(self, query: KlineQuery, *, unit_us: int) -> list[list[int | str]]:
        """Return kline rows."""

    def agg_trades(self, query: AggTradeQuery, *, unit_us: int) -> list[Row]:
        """Return aggTrade rows by id or by inclusive times, or the latest."""

    def trades(self, symbol: str, *, from_id: int | None, limit: int, unit_us: int) -> list[Row]:
        """Return trade rows from an id on, or the latest."""

    def status(self, symbol: str) -> str:
        """Return the symbol's status, e.g. `TRADING`."""

    def contract_type(self, symbol: str) -> ContractType:
        """Return the type of a contract, e.g. `PERPETUAL`."""

    def delivery_us(self, symbol: str) -> int | None:
        """Return when a contract is delivered; None: never."""


class MarketVenue:
    """The simulated market.

    Args:
        kline_lag_us: REST klines omit trades younger than this.
        trade_lag_us: REST trades omit trades younger than this.
        faults: may set other lags for a while.
    """

    def __init__(
        self,
        name: MarketName,
        market: SimulatedMarket,
        clock: SimulatedClock,
        *,
        kline_lag_us: int,
        trade_lag_us: int,
        faults: RestFaults | None = None,
    ) -> None:
        self.name: MarketName = name
        self.market = market
        self._clock = clock
        self._kline_lag_us = kline_lag_us
        self._trade_lag_us = trade_lag_us
        self._faults = faults or RestFaults()

    def now_us(self) -> int:
        return self._clock.now_us()

    def listed(self) -> tuple[Instrument, ...]:
        return self.market.listed(self.now_us())

    def listed_since_us(self, symbol: str) -> int:
        return self.market.history(symbol).listed_since_us(self.now_us())

    def status(self, symbol: str) -> str:
        return self.market.status(symbol, self.now_us())

    def contract_type(self, symbol: str) -> ContractType:
        return self.market.contract_type(symbol, self.now_us())

    def delivery_us(self, symbol: str) -> int | None:
        return self.market.history(symbol).delivery_us

    def _visible(self, ask: Callable[..., Found], query: KlineQuery) -> Found:
        """Query the market for klines of the trades that are visible by now."""
        symbol, view_us = query.symbol, self.now_us()
        if not query.is_oracle:
            view_us -= self._faults.kline_lag_us(self.name, symbol, self._kline_lag_us)
        return ask(
            symbol,
            query.interval,
            query.start_us,
            query.end_us,
            view_us=view_us,
            limit=query.limit,
            is_latest=query.is_latest,
        )

    def _trades_until_us(self, symbol: str) -> int:
        return self.now_us() - self._faults.trade_lag_us(self.name, symbol, self._trade_lag_us)

    def series_lag_us(self, endpoint: str, symbol: str) -> int:
        """Return how old rows of derivative series must be to be visible."""
        return self._faults.series_lag_us(self.name, endpoint, symbol)

    def klines(self, query: KlineQuery, *, unit_us: int) -> list[list[int | str]]:
        rows = self._visible(self.market.klines, query)
        instrument = self.market.instrument(query.symbol)
        return [kline_row(instrument, row, unit_us=unit_us) for row in rows]

    def kline_text(self, query: KlineQuery, *, unit_us: int) -> bytes | None:
        """Return `klines` as JSON, five times as fast; None for intervals that are rolled up."""
        step_us = AGGREGATED_STEPS_US.get(query.interval.name)
        if step_us is None:
            return None
        klines = self._visible(self.market.kline_columns, query)
        if klines is None:
            return b"[]"
        instrument = self.market.instrument(query.symbol)
        return kline_array(instrument, klines, step_us=step_us, unit_us=unit_us)

    def continuous_klines(
        self, pair: str, kind: ContractType, query: KlineQuery, *, unit_us: int
    ) -> list[list[int | str]]:
        """Return kline rows of a pair's contracts of a type. The query's symbol is one of them."""
        if kind == "PERPETUAL":
            return self.klines(query, unit_us=unit_us)
        lag_us = self._faults.kline_lag_us(self.name, query.symbol, self._kline_lag_us)
        rows = continuous_klines(
            self.market,
            contract_periods(self.market, pair, kind),
            query.interval,
            query.start_us,
            query.end_us,
            view_us=self.now_us() - lag_us,
            limit=query.limit or 1,
            is_latest=query.is_latest,
        )
        instrument = self.market.instrument(query.symbol)
        return [kline_row(instrument, row, unit_us=unit_us) for row in rows]

    def delivery_prices(self, pair: str) -> list[tuple[int, int]]:
        """Return time and price (10^-8) of a pair's deliveries so far, the latest first."""
        now_us = self.now_us()
        delivered = [
            (delivery_us, instrument.symbol)
            for instrument in self.market.instruments
            if instrument.pair == pair
            for history in [self.market.history(instrument.symbol)]
            if (delivery_us := history.delivery_us) is not None
            if history.start_us < delivery_us <= now_us
        ]
        return sorted(
            (
                (at_us, self.market.derivatives(symbol).delivery_price(at_us))
                for at_us, symbol in delivered
            ),
            reverse=True,
        )

    def agg_trades(self, query: AggTradeQuery, *, unit_us: int) -> list[Row]:
        trades = self.market.agg_trades(
            query.symbol,
            view_us=self._trades_until_us(query.symbol),
            from_id=query.from_id,
            start_us=query.start_us,
            end_us=query.end_us,
            limit=query.limit,
        )
        return agg_trade_rows(trades, unit_us=unit_us)

    def trades(self, symbol: str, *, from_id: int | None, limit: int, unit_us: int) -> list[Row]:
        history = self.market.history(symbol)
        until_us = self._trades_until_us(symbol)
        stop_agg = history.agg_id_from(until_us + 1)
        if from_id is None:
            trades = self.market.agg_trades(symbol, view_us=until_us, limit=limit)
            return trade_rows(trades, unit_us=unit_us)[-limit:]
        wanted = history.position_of_trade(from_id, until_us)
        if wanted >= history.ids_before(until_us // MINUTE_US + 1)[1]:
            return []
        minute = history.minute_of_trade(wanted)
        first = history.ids_before(minute)[0]
        if first >= stop_agg:
            return []
        last_minute_id = history.ids_before(minute + 1)[0]
        stop = min(stop_agg, last_minute_id + limit)
        rows = trade_rows(history.orders_by_id(first, stop), unit_us=unit_us)
        return [row for row in rows if int(row["id"]) >= from_id][:limit]

    def depth(self, symbol: str, *, limit: int) -> Row:
        """Return the best `limit` levels of each side, as of the last step of the book."""
        book, now_us = self.market.book(symbol), self.now_us()
        if limit <= _CHEAP_LEVELS:
            state = book.top(book.step_at(now_us), limit)
        else:
            state = book.book_at(now_us)
        levels = _levels(self.market.instrument(symbol), state, limit)
        if self.name == "spot":
            return levels
        times = {"E": now_us // US_PER_MS, "T": state.time_us // US_PER_MS}
        names = {"symbol": symbol, "pair": self.market.instrument(symbol).pair}
        head = {"lastUpdateId": levels.pop("lastUpdateId")} | times
        return head | (names if self.name == "cm" else {}) | levels

    def depth_at(self, symbol: str, update_id: int) -> Row:
        """Return all levels as of the step with an update id, to check a client's local book."""
        book = self.market.book(symbol)
        state = book.state(book.step_of(update_id))
        return _levels(self.market.instrument(symbol), state, None)


def contracts_of_pair(venue: Venue, pair: str) -> list[Instrument]:
    """Return the listed contracts of a pair of a futures market.

    Raises:
        ApiError: none is listed.
    """
    found = [instrument for instrument in venue.listed() if instrument.pair == pair]
    if not found:
        raise ApiError(*_INVALID_PAIR[venue.name])
    return found


def _levels(instrument: Instrument, state: BookSnapshot, limit: int | None) -> Row:
    price, quantity = instrument.format_price, instrument.format_quantity
    sides = {
        name: [[price(cost), quantity(amount)] for cost, amount in side[:limit].tolist()]
        for name, side in (("bids", state.bids), ("asks", state.asks))
    }
    return {"lastUpdateId": state.update_id} | sides
