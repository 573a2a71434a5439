"""The open kline after any of its trades."""

from datetime import UTC, datetime

import pytest

from simulator.clock import MINUTE_US, to_us
from simulator.market.instruments import DEFAULT_UM, select_instruments
from simulator.market.klines import Kline
from simulator.market.market import SimulatedMarket
from simulator.market.open_klines import OpenKline, extend_kline
from simulator.market.trades.columns import FillKind
from simulator.wire.payloads import fills_of

START_US = to_us(datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    spot = select_instruments("spot", ("BTCUSDT", "ETHBTC"), seed=2)
    return SimulatedMarket(spot, seed=2, start_us=START_US)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHBTC"])
def test_open_kline_equals_the_aggregation_of_trades_so_far(
    market: SimulatedMarket, symbol: str
) -> None:
    minute = market.history(symbol).start_minute + 700
    trades = market.history(symbol).minute(minute)
    open_us = minute * MINUTE_US
    running = OpenKline(trades, open_us=open_us, close_us=open_us + MINUTE_US - 1)
    for row in range(len(trades)):
        if row + 1 < len(trades) and trades.time_us[row + 1] == trades.time_us[row]:
            continue  # a view by time cannot end between two trades of one time
        seen = market.klines(symbol, "1m", view_us=int(trades.time_us[row]), limit=1)[0]
        assert running.after(row) == seen
    whole = market.klines(symbol, "1m", open_us, open_us, view_us=open_us + MINUTE_US)
    assert [running.after(len(trades) - 1)] == whole


def test_open_kline_can_end_between_fills_of_an_order(market: SimulatedMarket) -> None:
    history = market.history("ETHBTC")
    trades = history.trades(history.start_minute, history.start_minute + 600)
    running = OpenKline(trades, open_us=0, close_us=1)
    rows = [row for row in range(1, len(trades)) if trades.fills[row] >= 3]
    assert rows
    for row in rows:
        fills = fills_of(trades, row)
        before, whole = running.after(row - 1), running.after(row)
        for unsent in range(1, len(fills)):
            bar = running.after(row, unsent_fills=unsent)
            sent = fills[: len(fills) - unsent]
            assert bar.last_id == sent[-1][0]
            assert bar.trade_count == before.trade_count + len(sent)
            assert bar.volume == before.volume + sum(quantity for _, quantity, _ in sent)
            assert before.quote_volume < bar.quote_volume < whole.quote_volume
            bought = 0 if trades.buyer_is_maker[row] else bar.volume - before.volume
            assert bar.taker_buy_volume == before.taker_buy_volume + bought


def test_last_id_is_never_an_uncounted_fill() -> None:
    um = SimulatedMarket(select_instruments("um", DEFAULT_UM, seed=2), seed=2, start_us=START_US)
    first = START_US // MINUTE_US
    trades = um.history("BTCUSDT").trades(first, first + 60)
    running = OpenKline(trades, open_us=0, close_us=1)
    skipped = [row for row in range(len(trades)) if trades.tail_kind[row] == FillKind.SKIPPED]
    assert skipped
    for row in skipped[:50]:
        assert running.after(row).last_id == int(trades.first_id[row])


def _bar(open_us: int, price: int, count: int) -> Kline:
    if count == 0:
        return Kline(open_us, open_us + 9, price, price, price, price, 0, 0, 0, 0, 0, -1, -1)
    return Kline(open_us, open_us + 9, price, price + 2, price - 2, price + 1, 10 * count,
                 100 * count, count, count, count, price, price + count)  # fmt: skip


def test_longer_kline_opens_at_its_first_trade() -> None:
    earlier, later = _bar(0, 50, 3), _bar(10, 60, 2)
    both = extend_kline(earlier, later)
    assert (both.open_time_us, both.open, both.high, both.low, both.close) == (0, 50, 62, 48, 61)
    assert (both.volume, both.trade_count, both.first_id, both.last_id) == (50, 5, 50, 62)
    silent = extend_kline(_bar(0, 50, 0), later)
    assert (silent.open_time_us, silent.open, silent.low, silent.first_id) == (0, 60, 58, 60)
    assert extend_kline(earlier, _bar(10, 51, 0)) == earlier
    assert extend_kline(None, later) == later
