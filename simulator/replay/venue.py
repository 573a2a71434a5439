"""REST of a replay: the recorded trades that have been played so far."""

import numpy as np

from simulator.clock import MINUTE_US, SimulatedClock
from simulator.market.instruments import Instrument, MarketName
from simulator.market.klines import aggregate_trades, roll_up
from simulator.market.noise import IntArray
from simulator.market.quarters import ContractType, contract_type
from simulator.replay.recording import RecordedTrades, Recording
from simulator.rest.venue import AggTradeQuery, KlineQuery, Row, UnavailableError
from simulator.wire.payloads import agg_trade_rows, kline_row, trade_rows


class RecordedVenue:
    """REST over the trades of a recording, as far as they have been played.

    Klines exist for completely recorded minutes, and for longer klines of such minutes only. A
    recording without aggTrade frames serves each trade as its own aggregate, with the trade's id.
    A symbol without recorded trades has the recorded klines that were closed, and nothing else.
    """

    def __init__(self, recording: Recording, clock: SimulatedClock) -> None:
        self.name: MarketName = recording.market
        self._recording = recording
        self._clock = clock

    def now_us(self) -> int:
        return self._clock.now_us()

    def listed(self) -> tuple[Instrument, ...]:
        traded = tuple(trades.instrument for trades in self._recording.trades.values())
        return traded + tuple(
            klines.instrument(symbol, self.name)
            for symbol, klines in self._recording.klines.items()
        )

    def listed_since_us(self, symbol: str) -> int:
        if symbol in self._recording.klines:
            return self._recording.klines[symbol].first_us
        return int(self._recording.trades[symbol].columns.time_us[0])

    def status(self, symbol: str) -> str:
        """Return `TRADING`: a recording has no halts."""
        del symbol
        return "TRADING"

    def contract_type(self, symbol: str) -> ContractType:
        """Return the type by the name, as of the time that was played."""
        delivery_us = self.delivery_us(symbol)
        return contract_type(delivery_us, delivery_us, self.now_us())

    def delivery_us(self, symbol: str) -> int | None:
        return next(one.delivery_us for one in self.listed() if one.symbol == symbol)

    def klines(self, query: KlineQuery, *, unit_us: int) -> list[list[int | str]]:
        if query.interval.name == "1s":
            raise UnavailableError("a replay serves no 1s klines")
        if query.symbol in self._recording.klines:
            return self._recorded_klines(query, unit_us=unit_us)
        trades = self._recording.trades[query.symbol]
        until_us = self._recording.last_event_us if query.is_oracle else self.now_us()
        first, stop = self._recording.complete_minutes(until_us)
        if stop <= first:
            return []
        begin = int(np.searchsorted(trades.columns.time_us, first * MINUTE_US))
        klines = aggregate_trades(
            trades.columns.between(begin, len(trades.columns)),
            first_open_us=first * MINUTE_US,
            count=stop - first,
            step_us=MINUTE_US,
            previous_close=int(trades.columns.price[max(0, begin - 1)]),
        )
        rows = [
            row
            for row in roll_up(klines, query.interval)
            if row.open_time_us >= first * MINUTE_US and row.close_time_us < stop * MINUTE_US
        ]
        opens = [row.open_time_us for row in rows]
        return [
            kline_row(trades.instrument, rows[place], unit_us=unit_us)
            for place in _wanted(opens, query)
        ]

    def _recorded_klines(self, query: KlineQuery, *, unit_us: int) -> list[list[int | str]]:
        """Return klines as they were recorded, closed ones that have been sent."""
        until_us = self._recording.last_event_us if query.is_oracle else self.now_us()
        found = self._recording.klines[query.symbol].by_interval.get(query.interval.name)
        if found is None:
            raise UnavailableError(
                f"the recording has no trades of {query.symbol} and no closed klines of "
                f"{query.interval.name}"
            )
        rows = [found[at] for at in sorted(found) if found[at].sent_us <= until_us]
        opens = [row.open_us for row in rows]
        return [rows[place].row(unit_us=unit_us) for place in _wanted(opens, query)]

    def _trades_of(self, symbol: str) -> RecordedTrades:
        if symbol in self._recording.klines:
            raise UnavailableError(f"the recording has klines of {symbol} but no trades")
        return self._recording.trades[symbol]

    def agg_trades(self, query: AggTradeQuery, *, unit_us: int) -> list[Row]:
        columns = self._trades_of(query.symbol).columns.until(self.now_us())
        start, stop = 0, len(columns)
        if query.from_id is not None:
            start = _position(columns.agg_id, query.from_id)
        if query.start_us is not None:
            start = _position(columns.time_us, query.start_us)
        if query.end_us is not None:
            stop = _position(columns.time_us, query.end_us + 1)
        if query.from_id is None and query.start_us is None:
            start = max(start, stop - query.limit)
        return agg_trade_rows(
            columns.between(start, min(stop, start + query.limit)), unit_us=unit_us
        )

    def trades(self, symbol: str, *, from_id: int | None, limit: int, unit_us: int) -> list[Row]:
        trades = self._trades_of(symbol)
        if trades.is_aggregated:
            raise UnavailableError(f"the recording has aggTrades of {symbol} but no trades")
        columns = trades.columns.until(self.now_us())
        start = len(columns) - limit if from_id is None else _position(columns.first_id, from_id)
        start = max(0, start)
        return trade_rows(columns.between(start, start + limit), unit_us=unit_us)


def _wanted(opens: list[int], query: KlineQuery) -> list[int]:
    """Return the positions of the klines, by their open times, that a query asks for."""
    start_us, end_us = query.start_us, query.end_us
    places = [
        place
        for place, at in enumerate(opens)
        if (start_us is None or at >= start_us) and (end_us is None or at <= end_us)
    ]
    if query.limit is None:
        return places
    is_latest = start_us is None or query.is_latest
    return places[-query.limit :] if is_latest else places[: query.limit]


def _position(values: IntArray, wanted: int) -> int:
    return int(np.searchsorted(values, wanted))
