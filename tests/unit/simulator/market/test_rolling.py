"""Rolling windows, compared with a simple aggregation of the same trades."""

from datetime import UTC, datetime

import pytest

from simulator.clock import MINUTE_US, SECOND_US, to_us
from simulator.market.history import History
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.rolling import (
    LastTrade,
    average_price,
    last_trade,
    percent_change,
    weighted_price,
    window_stats,
)
from simulator.market.trades.columns import FillKind
from simulator.wire.payloads import fills_of

START = to_us(datetime(2026, 2, 2, 22, 17, tzinfo=UTC))
NOON = to_us(datetime(2026, 2, 3, 12, 0, 3, 456_789, tzinfo=UTC))
HOUR = 60 * MINUTE_US
SYMBOLS: tuple[tuple[MarketName, str], ...] = (
    ("spot", "ETHBTC"), ("spot", "BIFIUSDT"), ("um", "KEEPUSDT"),
)  # fmt: skip
each_symbol = pytest.mark.parametrize(("market", "symbol"), SYMBOLS)


def history_of(market: MarketName, symbol: str) -> History:
    listed = select_instruments(market, [symbol], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).history(symbol)


def fills(history: History, open_us: int, close_us: int) -> list[tuple[int, int, int, int, int]]:
    """Return time, id, price, quantity and quote of each counted fill in a window."""
    trades = history.trades(open_us // MINUTE_US, close_us // MINUTE_US + 1)
    rows = []
    for row in range(len(trades)):
        time_us = int(trades.time_us[row])
        if not open_us <= time_us <= close_us:
            continue
        begin = int(trades.slot_start[row])
        for number, (trade_id, quantity, kind) in enumerate(fills_of(trades, row)):
            if kind is FillKind.MARKET:
                quote = int(trades.slot_quote[begin + number])
                rows.append((time_us, trade_id, int(trades.price[row]), quantity, quote))
    return rows


@each_symbol
@pytest.mark.parametrize("length_us", [5 * MINUTE_US, HOUR, 4 * HOUR + 7, 24 * HOUR])
@pytest.mark.parametrize("close_us", [NOON, NOON // MINUTE_US * MINUTE_US, NOON + 3 * HOUR])
def test_window_aggregates_its_trades(
    market: MarketName, symbol: str, length_us: int, close_us: int
) -> None:
    history = history_of(market, symbol)
    stats = window_stats(history, close_us - length_us, close_us)
    rows = fills(history, close_us - length_us, close_us)
    assert (stats.open_us, stats.close_us) == (close_us - length_us, close_us)
    begin_us = close_us - length_us
    earlier = fills(history, START, begin_us - 1) if begin_us > START else []
    if not rows:
        assert stats.open == stats.high == stats.low == stats.last == stats.previous_close
        assert stats.last == earlier[-1][2]
        assert stats.volume == stats.quote_volume == stats.trade_count == 0
        assert stats.first_id == stats.last_id == -1
        return
    prices = [price for _, _, price, _, _ in rows]
    assert (stats.open, stats.last) == (prices[0], prices[-1])
    assert (stats.high, stats.low) == (max(prices), min(prices))
    assert stats.volume == sum(quantity for *_, quantity, _ in rows)
    assert stats.quote_volume == sum(quote for *_, quote in rows)
    assert stats.trade_count == len(rows)
    assert (stats.first_id, stats.last_id) == (rows[0][1], rows[-1][1])
    assert stats.previous_close == (earlier[-1][2] if earlier else prices[0])


@each_symbol
def test_last_trade_is_the_last_fill_up_to_a_moment(market: MarketName, symbol: str) -> None:
    history = history_of(market, symbol)
    for moment in (START, NOON, NOON + 13 * MINUTE_US, NOON + 5 * HOUR + SECOND_US):
        last = last_trade(history, moment)
        rows = fills(history, START - MINUTE_US, moment)
        if rows:
            time_us, _, price, quantity, _ = rows[-1]
            assert (last.time_us, last.price, last.quantity) == (time_us, price, quantity)
            assert last.agg_id == history.agg_id_from(moment + 1) - 1
        else:
            assert last.agg_id == history.first_agg_id


def test_weighted_prices_divide_quotes_by_quantities() -> None:
    history = history_of("spot", "ETHBTC")
    stats = window_stats(history, NOON - 5 * MINUTE_US, NOON)
    rows = fills(history, NOON - 5 * MINUTE_US, NOON)
    wanted = sum(quote for *_, quote in rows) * 10**4 // sum(quantity for *_, quantity, _ in rows)
    assert average_price(history, NOON, decimals=8) == wanted
    assert weighted_price(history, stats, decimals=5) == wanted // 1_000


def test_window_without_trades_is_flat_at_the_last_price() -> None:
    history = history_of("spot", "BIFIUSDT")
    quiet = next(
        moment
        for moment in range(NOON, NOON + 24 * HOUR, MINUTE_US)
        if not fills(history, moment - 5 * MINUTE_US, moment)
    )
    last = last_trade(history, quiet)
    assert average_price(history, quiet, decimals=8) == last.price * 10**7
    assert isinstance(last, LastTrade)


def test_percent_changes_are_truncated_towards_zero() -> None:
    history = history_of("spot", "ETHBTC")
    stats = window_stats(history, NOON - HOUR, NOON)
    assert percent_change(stats._replace(open=300, last=301)) == 333
    assert percent_change(stats._replace(open=300, last=299)) == -333
    assert percent_change(stats._replace(open=300, last=300)) == 0
