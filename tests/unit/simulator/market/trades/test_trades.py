"""A market across halts, delistings and reused names: trades, ids, klines and pages."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from simulator.clock import DAY_US, MINUTE_US
from simulator.market.hours.calendar import TradingCalendar
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.market.trades.columns import FillKind, TradeColumns
from simulator.streams.feeds.schedule import KlineClose, kline_events

START = 20_500 * DAY_US
HOUR = 60 * MINUTE_US
SYMBOL = "BTCUSDT"


def _market(name: MarketName = "spot") -> SimulatedMarket:
    return SimulatedMarket(
        select_instruments(name, (SYMBOL, "ETHUSDT"), seed=4), seed=4, start_us=START
    )


def _changed(calendar: TradingCalendar, from_us: int, name: MarketName = "spot") -> SimulatedMarket:
    """Return a market whose calendar changes after everything was read and cached."""
    market = _market(name)
    market.klines(SYMBOL, "1m", view_us=START + DAY_US)
    market.history(SYMBOL).ids_before((START + 3 * DAY_US) // MINUTE_US)
    market.history(SYMBOL).change(calendar, from_us=from_us)
    return market


def _trades(market: SimulatedMarket, hours: float) -> TradeColumns:
    return market.history(SYMBOL).trades(
        START // MINUTE_US, (START + round(hours * HOUR)) // MINUTE_US
    )


HALT_FROM, HALT_UNTIL = START + 2 * HOUR + 20_500_000, START + 4 * HOUR + 40_250_000
HALT = TradingCalendar.open_from(START).halted(HALT_FROM, HALT_UNTIL)


@pytest.mark.parametrize("name", ["spot", "um"])
def test_halt_has_no_trades_and_ids_continue_after_it(name: MarketName) -> None:
    plain, halted = _trades(_market(name), 6), _trades(_changed(HALT, HALT_FROM, name), 6)
    kept = (plain.time_us < HALT_FROM) | (plain.time_us >= HALT_UNTIL)
    assert np.array_equal(halted.time_us, plain.time_us[kept])
    assert np.array_equal(halted.price, plain.price[kept])
    assert np.array_equal(halted.quantity, plain.quantity[kept])
    before = int(np.searchsorted(plain.time_us, HALT_FROM))
    assert np.array_equal(halted.agg_id[:before], plain.agg_id[:before])
    assert np.array_equal(halted.first_id[:before], plain.first_id[:before])
    assert np.all(np.diff(halted.agg_id) == 1)
    assert np.array_equal(halted.first_id[1:], halted.first_id[:-1] + halted.slots[:-1])
    for row in (0, before - 1, before, len(halted) - 1):
        begin, count = int(halted.slot_start[row]), int(halted.slots[row])
        if halted.tail_kind[row] == FillKind.MARKET:
            assert halted.slot_quantity[begin : begin + count].sum() == halted.quantity[row]


def test_quote_amounts_are_cut_off_fill_by_fill() -> None:
    (instrument,) = select_instruments("spot", ("ETHBTC",), seed=4)
    market = SimulatedMarket((instrument,), seed=4, start_us=START)
    minute = START // MINUTE_US
    trades = market.history("ETHBTC").trades(minute, minute + 120)
    amounts = trades.slot_quantity * np.repeat(trades.price, trades.slots)
    cut = amounts // instrument.quote_divisor
    assert np.array_equal(trades.quote, np.add.reduceat(cut, trades.slot_start))
    half_up = (amounts + instrument.quote_divisor // 2) // instrument.quote_divisor
    assert cut.sum() < half_up.sum()  # else the test would prove nothing


@pytest.mark.parametrize("name", ["spot", "um"])
def test_any_period_is_the_same_for_every_query(name: MarketName) -> None:
    market = _changed(HALT, HALT_FROM, name)
    history = market.history(SYMBOL)
    whole = _trades(market, 6)
    single = [history.minute(START // MINUTE_US + minute) for minute in range(360)]
    for column in ("time_us", "agg_id", "first_id", "last_id", "quote"):
        parts = np.concatenate([getattr(trades, column) for trades in single])
        assert np.array_equal(parts, getattr(whole, column)), column
    later = int(whole.agg_id[-1])
    assert history.orders_by_id(later - 5, later).agg_id.tolist() == list(range(later - 5, later))
    fresh = _market(name)
    fresh.history(SYMBOL).change(HALT, from_us=HALT_FROM)
    fresh_trades = fresh.history(SYMBOL).trades(
        (START + 5 * HOUR) // MINUTE_US, (START + 6 * HOUR) // MINUTE_US
    )
    assert np.array_equal(fresh_trades.first_id, whole.first_id[-len(fresh_trades) :])


def test_spot_has_no_klines_in_a_halt_and_futures_flat_ones() -> None:
    view = START + 6 * HOUR - 1
    spot = _changed(HALT, HALT_FROM).klines(SYMBOL, "1m", START, view_us=view)
    offsets = [(row.open_time_us - START) // MINUTE_US for row in spot]
    assert offsets == [*range(121), *range(240, 360)]
    assert 0 < spot[120].trade_count < spot[119].trade_count * 3
    um = _changed(HALT, HALT_FROM, "um").klines(SYMBOL, "1m", START, view_us=view)
    assert len(um) == 360
    quiet = um[121:240]
    assert {row.trade_count for row in quiet} == {0}
    assert {(row.open, row.high, row.low, row.close) for row in quiet} == {(um[120].close,) * 4}


def test_longer_klines_aggregate_their_trades_across_halts() -> None:
    market = _changed(HALT, HALT_FROM)
    view = START + 6 * HOUR - 1
    minutes = market.klines(SYMBOL, "1m", START, view_us=view)
    hours = market.klines(SYMBOL, "1h", START, view_us=view)
    assert [(row.open_time_us - START) // HOUR for row in hours] == [0, 1, 2, 4, 5]
    for hour in hours:
        inside = [
            row for row in minutes if hour.open_time_us <= row.open_time_us <= hour.close_time_us
        ]
        assert hour.volume == sum(row.volume for row in inside)
        assert (hour.open, hour.close) == (inside[0].open, inside[-1].close)
    seconds = market.klines(SYMBOL, "1s", HALT_FROM - 3_500_000, HALT_FROM + HOUR, view_us=view)
    assert seconds[-1].open_time_us == HALT_FROM - 500_000


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1M"])
@pytest.mark.parametrize("limit", [1, 3, 10, 1_000])
def test_page_across_a_halt_is_full(interval: str, limit: int) -> None:
    market = _changed(HALT, HALT_FROM)
    view = START + 6 * HOUR - 1
    everything = market.klines(SYMBOL, interval, view_us=view)
    for begin in (START, HALT_FROM - 3 * MINUTE_US, HALT_FROM + 5 * MINUTE_US):
        wanted = [row for row in everything if row.open_time_us >= begin][:limit]
        assert market.klines(SYMBOL, interval, begin, view_us=view, limit=limit) == wanted
    for end in (view, HALT_UNTIL - MINUTE_US, HALT_UNTIL + 2 * MINUTE_US):
        wanted = [row for row in everything if row.open_time_us <= end][-limit:]
        got = market.klines(SYMBOL, interval, end_us=end, view_us=view, limit=limit)
        assert got == wanted, (begin, end)
    inside = (HALT_FROM + MINUTE_US, HALT_UNTIL - MINUTE_US)
    within = [row for row in everything if inside[0] <= row.open_time_us <= inside[1]]
    assert market.klines(SYMBOL, interval, *inside, view_us=view, limit=limit) == within[:limit]


def test_delisting_ends_trades_and_keeps_the_past() -> None:
    end = START + 2 * HOUR + 30_000_000
    market = _changed(TradingCalendar.open_from(START).delisted(end), end)
    history = market.history(SYMBOL)
    late = START + 400 * DAY_US
    rows = market.klines(SYMBOL, "1m", view_us=late, limit=5)
    assert [(row.open_time_us - START) // MINUTE_US for row in rows] == [116, 117, 118, 119, 120]
    last = market.agg_trades(SYMBOL, view_us=late, limit=3)
    assert int(last.time_us[-1]) < end
    assert history.next_traded_minute(end // MINUTE_US + 1) is None
    assert list(history.kline_minutes(end // MINUTE_US)) == [end // MINUTE_US, end // MINUTE_US + 1]
    assert len(market.agg_trades(SYMBOL, view_us=late, from_id=int(last.agg_id[-1]), limit=9)) == 1
    beyond = market.agg_trades(SYMBOL, view_us=late, from_id=int(last.agg_id[-1]) + 1, limit=9)
    assert len(beyond) == 0
    assert market.status(SYMBOL, late) == "BREAK"
    um = _changed(TradingCalendar.open_from(START).delisted(end), end, "um")
    assert um.status(SYMBOL, late) == "SETTLING"
    flat = um.klines(SYMBOL, "1m", view_us=end + HOUR, limit=2)
    assert [row.trade_count for row in flat] == [0, 0]


def test_reused_name_starts_with_other_prices_and_small_ids() -> None:
    end, again = START + 2 * HOUR + 30_000_000, START + 3 * HOUR
    calendar = TradingCalendar.open_from(START).delisted(end).relisted(again - 5)
    market = _changed(calendar, end)
    trades = _trades(market, 5)
    old = trades.between(0, int((trades.time_us < end).sum()))
    new = trades.between(len(old), len(trades))
    assert int(new.time_us[0]) >= again
    assert int(new.agg_id[0]) <= 1_000 < int(old.agg_id[0])
    assert np.all(np.diff(new.agg_id) == 1)
    assert int(new.price.max()) < int(old.price.min())
    view = START + 5 * HOUR
    for part, time_us in ((old, end), (new, view)):
        first = int(part.agg_id[10])
        by_id = market.agg_trades(SYMBOL, view_us=time_us, from_id=first, limit=20)
        assert by_id.time_us.tolist() == part.time_us[10:30].tolist()
    latest = market.agg_trades(SYMBOL, view_us=view, limit=5)
    shown = new.until(view)
    assert latest.agg_id.tolist() == shown.agg_id[-5:].tolist()
    both = market.agg_trades(SYMBOL, view_us=view, start_us=end - 5_000_000, limit=1_000)
    assert (
        both.time_us.tolist() == trades.time_us[trades.time_us >= end - 5_000_000][:1_000].tolist()
    )
    rows = market.klines(SYMBOL, "1m", START, view_us=view - 1)
    opens = [(row.open_time_us - START) // MINUTE_US for row in rows]
    assert opens == [*range(121), *range(180, 300)]
    assert rows[121].first_id == int(new.first_id[0])
    assert market.history(SYMBOL).listed_since_us(view) == again


def test_only_existing_klines_are_closed() -> None:
    market = _changed(HALT, HALT_FROM)
    history = market.history(SYMBOL)
    minutes = list(
        _until(history.kline_minutes(START // MINUTE_US), (START + 6 * HOUR) // MINUTE_US)
    )
    assert [minute - START // MINUTE_US for minute in minutes] == [*range(122), *range(240, 360)]
    ends = [
        (event.end_us - START) // MINUTE_US
        for minute in minutes[1:]
        for event in kline_events(history, minute, interval="1m", seed=4)
        if isinstance(event, KlineClose)
    ]
    assert ends == [*range(1, 122), *range(241, 360)]


def _until(minutes: object, stop: int) -> list[int]:
    found: list[int] = []
    for minute in minutes:  # type: ignore[attr-defined]
        if minute >= stop:
            break
        found.append(minute)
    return found


def test_new_listing_is_visible_from_its_minute_on() -> None:
    market = _market()
    begin = START + 2 * HOUR
    (instrument,) = select_instruments("spot", ("NEWUSDT",), seed=4)
    market.add_listing(instrument, start_us=begin)
    assert "NEWUSDT" not in {one.symbol for one in market.listed(begin - 1)}
    assert "NEWUSDT" in {one.symbol for one in market.listed(begin)}
    assert market.klines("NEWUSDT", "1m", view_us=begin - 1) == []
    (first,) = market.klines("NEWUSDT", "1m", view_us=begin + MINUTE_US - 1)
    assert (first.open_time_us, first.trade_count > 0) == (begin, True)
    with pytest.raises(ValueError, match="NEWUSDT is listed already"):
        market.add_listing(instrument, start_us=begin)


def test_changes_keep_other_symbols_and_the_past() -> None:
    market, plain = _changed(HALT, HALT_FROM), _market()
    view = START + 6 * HOUR
    assert market.klines("ETHUSDT", "5m", view_us=view) == plain.klines(
        "ETHUSDT", "5m", view_us=view
    )
    before = HALT_FROM // MINUTE_US * MINUTE_US - 1
    spec = parse_interval("1m")
    mine = market.klines(SYMBOL, spec, START, before, view_us=view)
    theirs = plain.klines(SYMBOL, spec, START, before, view_us=view)
    assert mine == theirs
    assert all(later.open_time_us - one.open_time_us == MINUTE_US for one, later in pairwise(mine))


@pytest.mark.parametrize("name", ["spot", "um"])
def test_trades_at_bounds_are_in_the_first_and_last_instant_of_their_minute(
    name: MarketName,
) -> None:
    listed = tuple(
        replace(one, trades_at_bounds=True) for one in select_instruments(name, (SYMBOL,), seed=4)
    )
    trades = _trades(SimulatedMarket(listed, seed=4, start_us=START), 1)
    offsets = trades.time_us % MINUTE_US
    instant_us = 1 if name == "spot" else 1_000
    assert np.count_nonzero(offsets == 0) >= 60
    assert np.count_nonzero(offsets == MINUTE_US - instant_us) >= 50
    assert np.all(np.diff(trades.time_us) >= 0)
