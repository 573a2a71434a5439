"""Random access, ids, windows and klines of the deterministic market."""

from collections import defaultdict
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from simulator.clock import DAY_US, MINUTE_US, SECOND_US, to_us
from simulator.market.instruments import DEFAULT_SPOT, DEFAULT_UM, select_instruments
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, parse_interval
from simulator.market.market import SimulatedMarket, kline_window
from simulator.market.trades.columns import FillKind, TradeColumns
from simulator.wire.payloads import agg_trade_rows, fills_of, kline_row

START_US = to_us(datetime(2024, 12, 30, 21, 13, tzinfo=UTC))
VIEW_US = START_US + 2 * DAY_US + 7 * MINUTE_US + 12_345_678
EIGHT_PLACES = Decimal("0.00000001")


def _market(name: Any = "spot", *, seed: int = 1, start_us: int = START_US) -> SimulatedMarket:
    symbols = DEFAULT_SPOT if name == "spot" else DEFAULT_UM
    return SimulatedMarket(
        select_instruments(name, symbols, seed=seed), seed=seed, start_us=start_us
    )


@pytest.fixture(scope="module")
def spot() -> SimulatedMarket:
    return _market()


@pytest.fixture(scope="module")
def um() -> SimulatedMarket:
    return _market("um")


def _columns(trades: TradeColumns) -> dict[str, list[int]]:
    names = ("time_us", "agg_id", "first_id", "fills", "price", "quantity", "quote")
    return {name: getattr(trades, name).tolist() for name in names}


def _decimal_klines(trades: TradeColumns, step_us: int) -> dict[int, dict[str, Any]]:
    """Aggregate single fills with Decimal."""
    instrument = trades.instrument
    klines: dict[int, dict[str, Any]] = {}
    for row in range(len(trades)):
        price = Decimal(instrument.format_price(int(trades.price[row])))
        for trade_id, units, kind in fills_of(trades, row):
            if kind is not FillKind.MARKET:
                continue
            quantity = Decimal(instrument.format_quantity(units))
            quote = price * quantity
            if instrument.market == "spot":
                quote = quote.quantize(EIGHT_PLACES, ROUND_DOWN)
            bar = klines.setdefault(
                int(trades.time_us[row]) // step_us * step_us,
                defaultdict(Decimal, open=price, high=price, low=price, first=trade_id),
            )
            bar["high"] = max(bar["high"], price)
            bar["low"] = min(bar["low"], price)
            bar["close"] = price
            bar["last"] = trade_id
            bar["count"] += 1
            bar["volume"] += quantity
            bar["quote"] += quote
            if not trades.buyer_is_maker[row]:
                bar["buy_volume"] += quantity
                bar["buy_quote"] += quote
    return klines


def _assert_equal_bars(market: SimulatedMarket, symbol: str, interval: str, step_us: int) -> int:
    history = market.history(symbol)
    first = history.start_minute + 60
    trades = history.trades(first, first + 180)
    slow = _decimal_klines(trades, step_us)
    rows = market.klines(
        symbol, interval, first * MINUTE_US, (first + 180) * MINUTE_US - 1, view_us=VIEW_US
    )
    instrument = market.instrument(symbol)
    compared = 0
    for row in rows:
        if row.trade_count == 0:
            assert row.open_time_us not in slow
            continue
        bar = slow[row.open_time_us]
        _, *texts = kline_row(instrument, row, unit_us=1)
        open_, high, low, close, volume, _, quote, count, buy_volume, buy_quote, _ = texts
        found = [
            Decimal(v) for v in (open_, high, low, close, volume, quote, buy_volume, buy_quote)
        ]
        wanted = [
            bar[name]
            for name in ("open", "high", "low", "close", "volume", "quote", "buy_volume",
                         "buy_quote")
        ]  # fmt: skip
        assert found == wanted
        assert (count, row.first_id, row.last_id) == (bar["count"], bar["first"], bar["last"])
        compared += 1
    assert len(slow) == compared
    return compared


@pytest.mark.parametrize("symbol", DEFAULT_SPOT)
def test_spot_klines_equal_a_decimal_aggregation_of_fills(
    spot: SimulatedMarket, symbol: str
) -> None:
    compared = _assert_equal_bars(spot, symbol, "1m", MINUTE_US)
    assert compared > (100 if symbol in ("BTCUSDT", "PEPEUSDT", "ETHBTC") else 0) or (
        symbol == "BIFIUSDT"
    )


@pytest.mark.parametrize("symbol", DEFAULT_UM)
def test_futures_klines_equal_a_decimal_aggregation_of_fills(
    um: SimulatedMarket, symbol: str
) -> None:
    assert _assert_equal_bars(um, symbol, "1m", MINUTE_US) > 0


def test_second_klines_equal_a_decimal_aggregation_of_fills(spot: SimulatedMarket) -> None:
    assert _assert_equal_bars(spot, "BTCUSDT", "1s", SECOND_US) > 1_000


@pytest.mark.parametrize("interval", [name for name in UM_INTERVALS if name != "1m"])
@pytest.mark.parametrize("symbol", ["BTCUSDT", "COSUSDT", "BIFIUSDT"])
def test_longer_klines_equal_an_aggregation_of_their_trades(
    spot: SimulatedMarket, symbol: str, interval: str
) -> None:
    spec = parse_interval(interval)
    minutes = spot.klines(symbol, "1m", view_us=VIEW_US)
    groups = defaultdict(list)
    for row in minutes:
        groups[spec.open_of(row.open_time_us)].append(row)
    klines = spot.klines(symbol, interval, view_us=VIEW_US)
    assert [bar.open_time_us for bar in klines] == list(groups)
    for bar in klines:
        rows = groups[bar.open_time_us]
        traded = [row for row in rows if row.trade_count] or rows[-1:]
        assert bar.close_time_us == spec.next_open(bar.open_time_us) - 1
        assert (bar.open, bar.close) == (traded[0].open, rows[-1].close)
        assert bar.high == max(row.high for row in traded)
        assert bar.low == min(row.low for row in traded)
        for column in ("volume", "quote_volume", "trade_count", "taker_buy_quote_volume"):
            assert getattr(bar, column) == sum(getattr(row, column) for row in rows)
        assert (bar.first_id, bar.last_id) == (traded[0].first_id, traded[-1].last_id)


def test_sums_of_a_month_do_not_overflow(spot: SimulatedMarket) -> None:
    view_us = START_US + 62 * DAY_US
    months = spot.klines("PEPEUSDT", "1M", view_us=view_us)
    minutes = spot.klines("PEPEUSDT", "1m", view_us=view_us)
    assert sum(row.quote_volume for row in months) == sum(row.quote_volume for row in minutes)
    assert sum(row.volume for row in months) == sum(row.volume for row in minutes)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHBTC", "COSUSDT"])
def test_minute_alone_equals_the_minute_in_a_range(symbol: str) -> None:
    ranged = _market().history(symbol)
    first = ranged.start_minute + 1_000
    whole = _columns(ranged.trades(first, first + 90))
    alone: dict[str, list[int]] = {name: [] for name in whole}
    fresh = _market().history(symbol)
    for minute in reversed(range(first, first + 90)):  # backwards: no state is carried forward
        for name, values in _columns(fresh.minute(minute)).items():
            alone[name] = values + alone[name]
    assert alone == whole


def test_market_depends_only_on_the_seed() -> None:
    rows = _market(seed=3).klines("ETHUSDT", "1m", view_us=VIEW_US, limit=50)
    assert rows == _market(seed=3).klines("ETHUSDT", "1m", view_us=VIEW_US, limit=50)
    assert rows != _market(seed=4).klines("ETHUSDT", "1m", view_us=VIEW_US, limit=50)


def test_prices_do_not_depend_on_the_start_of_history() -> None:
    late = (
        _market(start_us=START_US + DAY_US).history("BTCUSDT").minute(START_US // MINUTE_US + 2_000)
    )
    early = _market().history("BTCUSDT").minute(START_US // MINUTE_US + 2_000)
    assert late.price.tolist() == early.price.tolist()
    assert late.time_us.tolist() == early.time_us.tolist()
    assert late.agg_id.tolist() != early.agg_id.tolist()


@pytest.mark.parametrize("symbol", DEFAULT_SPOT)
def test_spot_ids_are_contiguous_from_the_first_trade_on(
    spot: SimulatedMarket, symbol: str
) -> None:
    history = spot.history(symbol)
    trades = history.trades(history.start_minute, history.start_minute + 3 * 1_440)
    assert len(trades) > 0
    assert int(trades.time_us[0]) // MINUTE_US == history.start_minute
    assert (int(trades.agg_id[0]), int(trades.first_id[0])) == (
        history.first_agg_id,
        history.first_trade_id,
    )
    assert set(np.diff(trades.agg_id).tolist()) <= {1}
    assert (trades.first_id[1:] == trades.last_id[:-1] + 1).all()
    assert (np.diff(trades.time_us) >= 0).all()
    assert (trades.quantity > 0).all()
    assert (trades.price > 0).all()


def test_futures_ids_skip_while_aggregate_ids_do_not(um: SimulatedMarket) -> None:
    history = um.history("BTCUSDT")
    trades = history.trades(history.start_minute, history.start_minute + 1_440)
    assert set(np.diff(trades.agg_id).tolist()) == {1}
    gaps = trades.first_id[1:] - (trades.first_id + trades.fills)[:-1]
    assert (gaps >= 0).all()
    assert 0.01 < (gaps > 0).mean() < 0.2


def test_futures_klines_omit_fills_that_are_not_of_the_market(um: SimulatedMarket) -> None:
    history = um.history("BTCUSDT")
    trades = history.trades(history.start_minute, history.start_minute + 1_440)
    kinds = set(trades.tail_kind.tolist())
    assert kinds == {int(kind) for kind in FillKind}
    others = int(trades.slot_quantity.sum()) - int(trades.quantity.sum())
    assert 0 < others < int(trades.quantity.sum()) // 100
    minutes = um.klines("BTCUSDT", "1m", START_US, START_US + DAY_US - MINUTE_US, view_us=VIEW_US)
    assert sum(row.volume for row in minutes) == int(trades.quantity.sum())
    assert sum(row.trade_count for row in minutes) == int(trades.fills.sum())


def test_markets_have_busy_quiet_and_silent_symbols(spot: SimulatedMarket) -> None:
    def silent_share(symbol: str) -> float:
        rows = spot.klines(symbol, "1m", view_us=VIEW_US)
        return sum(row.trade_count == 0 for row in rows) / len(rows)

    busy = spot.klines("BTCUSDT", "1m", view_us=VIEW_US)
    assert 100 < sum(row.trade_count for row in busy) / len(busy) < 300
    assert silent_share("BTCUSDT") == 0
    assert 0.3 < silent_share("COSUSDT") < 0.95
    assert silent_share("BIFIUSDT") > 0.98
    assert spot.klines("BIFIUSDT", "1m", view_us=VIEW_US)[0].trade_count > 0


def test_silent_minute_is_flat_at_the_previous_close(spot: SimulatedMarket) -> None:
    rows = spot.klines("COSUSDT", "1m", view_us=VIEW_US)
    for before, row in pairwise(rows):
        if row.trade_count == 0:
            assert {row.open, row.high, row.low, row.close} == {before.close}
            assert (row.volume, row.quote_volume, row.first_id, row.last_id) == (0, 0, -1, -1)


@pytest.mark.parametrize("symbol", ["COSUSDT", "BIFIUSDT"])
def test_window_that_starts_silent_has_the_previous_close(
    spot: SimulatedMarket, symbol: str
) -> None:
    rows = spot.klines(symbol, "1m", view_us=VIEW_US)
    silent = next(n for n, row in enumerate(rows) if n > 100 and row.trade_count == 0)
    fresh = _market().klines(
        symbol, "1m", rows[silent].open_time_us, rows[silent].open_time_us, view_us=VIEW_US
    )
    assert fresh == [rows[silent]]


def test_open_kline_has_only_visible_trades(spot: SimulatedMarket) -> None:
    history = spot.history("BTCUSDT")
    minute = history.start_minute + 500
    trades = history.minute(minute)
    for row in (0, len(trades) // 2, len(trades) - 1):
        view_us = int(trades.time_us[row])
        bar = spot.klines("BTCUSDT", "1m", view_us=view_us, limit=1)[0]
        seen = trades.until(view_us)
        assert bar.open_time_us == minute * MINUTE_US
        assert bar.volume == int(seen.quantity.sum())
        assert bar.last_id == int(seen.last_id[-1])
    before = spot.klines("BTCUSDT", "1m", view_us=minute * MINUTE_US, limit=1)[0]
    assert (before.trade_count, before.first_id) == (0, -1)
    assert before.close == int(history.minute(minute - 1).price[-1])


# first minute 0, visible until the 10th minute; (start, end, limit) -> open minutes
WINDOWS = [
    (None, None, 3, [8, 9, 10]),
    (None, None, None, list(range(11))),
    (2, None, 3, [2, 3, 4]),
    (2.5, None, 3, [3, 4, 5]),
    (-5, None, 2, [0, 1]),
    (9, None, 5, [9, 10]),
    (11, None, 5, []),
    (None, 4, 3, [2, 3, 4]),
    (None, 4.9, 2, [3, 4]),
    (None, 1, 5, [0, 1]),
    (None, -1, 5, []),
    (None, 99, 2, [9, 10]),
    (2, 4, 10, [2, 3, 4]),
    (2, 8, 3, [2, 3, 4]),
    (3, 3, 10, [3]),
    (3.1, 3.9, 10, []),
    (5, 4, 10, []),
    (9, 99, 10, [9, 10]),
]


@pytest.mark.parametrize(("start", "end", "limit", "expected"), WINDOWS)
def test_windows_select_what_the_exchange_selects(
    start: float | None, end: float | None, limit: int | None, expected: list[int]
) -> None:
    def at(minutes: float | None) -> int | None:
        return None if minutes is None else START_US + int(minutes * MINUTE_US)

    market = _market()
    rows = market.klines(
        "BTCUSDT", "1m", at(start), at(end), limit=limit, view_us=START_US + 10 * MINUTE_US + 5
    )
    assert [(row.open_time_us - START_US) // MINUTE_US for row in rows] == expected


@pytest.mark.parametrize("name", SPOT_INTERVALS)
def test_latest_klines_of_any_interval_end_with_the_open_one(name: str) -> None:
    interval = parse_interval(name)
    window = kline_window(
        interval, first_us=START_US, view_us=START_US + 400 * DAY_US, start_us=None, end_us=None,
        limit=5,
    )  # fmt: skip
    assert window is not None
    first, last = window
    assert last == interval.open_of(START_US + 400 * DAY_US)
    for _ in range(4):
        last = interval.previous_open(last)
    assert first == last


def test_nothing_exists_before_the_listing(spot: SimulatedMarket) -> None:
    assert spot.klines("BTCUSDT", "1m", view_us=START_US - 1) == []
    first = spot.klines("BTCUSDT", "1d", 0, view_us=VIEW_US, limit=1)[0]
    assert first.open_time_us == START_US // DAY_US * DAY_US
    assert first.first_id == spot.history("BTCUSDT").first_trade_id


@pytest.mark.parametrize("symbol", ["BTCUSDT", "COSUSDT", "BIFIUSDT"])
def test_agg_trades_page_by_id_across_minutes_and_days(spot: SimulatedMarket, symbol: str) -> None:
    history = spot.history(symbol)
    view_us = VIEW_US if symbol != "BTCUSDT" else START_US + 20 * MINUTE_US
    pages, next_id = [], 0
    while True:
        page = agg_trade_rows(
            spot.agg_trades(symbol, view_us=view_us, from_id=next_id, limit=97), unit_us=1
        )
        if not page:
            break
        pages += page
        next_id = int(page[-1]["a"]) + 1
    stop_minute = view_us // MINUTE_US + 1
    whole = agg_trade_rows(
        history.trades(history.start_minute, stop_minute).until(view_us), unit_us=1
    )
    assert pages == whole


def test_agg_trades_by_time_include_both_ends(spot: SimulatedMarket) -> None:
    history = spot.history("ETHBTC")
    trades = history.trades(history.start_minute + 100, history.start_minute + 160)
    start_us, end_us = int(trades.time_us[3]), int(trades.time_us[40])
    found = spot.agg_trades(
        "ETHBTC", view_us=VIEW_US, start_us=start_us, end_us=end_us, limit=1_000
    )
    wanted = trades.agg_id[(trades.time_us >= start_us) & (trades.time_us <= end_us)]
    assert found.agg_id.tolist() == wanted.tolist()
    latest = spot.agg_trades("ETHBTC", view_us=end_us, limit=5)
    assert latest.agg_id.tolist() == wanted[-5:].tolist()
    assert len(spot.agg_trades("ETHBTC", view_us=end_us, start_us=end_us + 1, limit=5)) == 0


def test_years_of_history_are_available_immediately() -> None:
    market = _market(start_us=to_us(datetime(2017, 8, 17, tzinfo=UTC)))
    view_us = to_us(datetime(2026, 4, 1, 12, 0, 30, tzinfo=UTC))
    rows = market.klines("BTCUSDT", "1m", view_us=view_us, limit=2)
    assert rows[1].first_id == rows[0].last_id + 1
    assert rows[0].first_id > 400_000_000
