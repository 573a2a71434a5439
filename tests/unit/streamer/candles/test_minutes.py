"""Minutes of one symbol in memory."""

from __future__ import annotations

from include.domain.candle_builder import CandleBuilder
from include.domain.timeframes import MINUTE_US
from streamer.candles.minutes import Minutes
from tests.unit.streamer.played_exchange import T0, kline_of, trade

NEXT_US = T0 + MINUTE_US
EARLY, FIRST, SECOND = trade(4, T0 + 1), trade(5, T0 + 2), trade(6, T0 + 3)


def with_trades() -> Minutes:
    """A whole minute that begins with trade 5, and an open kline of the next minute."""
    minutes = Minutes()
    minute = minutes.get_or_add(T0)
    minute.builder, minute.is_whole = CandleBuilder("BTCUSDT", T0), True
    minute.builder.add(FIRST)
    minute.builder.add(SECOND)
    later = minutes.get_or_add(NEXT_US)
    later.frame = kline_of([trade(7, NEXT_US + 1)], NEXT_US, closed=False, at_us=NEXT_US + 9)
    return minutes


def test_minute_includes_trades_from_its_first_id_on() -> None:
    minutes = with_trades()
    assert minutes.include(FIRST, FIRST.trade_time)
    assert minutes.include(SECOND, SECOND.trade_time)
    assert not minutes.include(EARLY, EARLY.trade_time)
    assert not minutes.include(trade(7, NEXT_US + 1), NEXT_US + 1), "only a kline is known"


def test_live_candle_is_the_aggregate_if_complete_else_the_newest_kline() -> None:
    minutes = with_trades()
    shown = minutes.live_candles("BTCUSDT")
    assert [(candle.open_time_us, candle.trade_count) for candle, _ in shown] == [
        (T0, 2),
        (NEXT_US, 1),
    ]
    minutes[T0].is_whole = False
    minutes[T0].kline = kline_of([EARLY, FIRST, SECOND], T0, closed=True, at_us=NEXT_US)
    assert minutes.live_candles("BTCUSDT")[0][0].trade_count == 3
    minutes[T0].is_emitted = True
    assert [candle.open_time_us for candle, _ in minutes.live_candles("BTCUSDT")] == [NEXT_US]


def test_only_a_later_kline_of_a_minute_is_newer() -> None:
    minute = Minutes().get_or_add(T0)
    first = kline_of([FIRST], T0, closed=True, at_us=NEXT_US + 5)
    assert minute.is_newer(first)
    minute.kline = first
    assert not minute.is_newer(kline_of([FIRST], T0, closed=True, at_us=NEXT_US + 5))
    assert minute.is_newer(kline_of([FIRST], T0, closed=True, at_us=NEXT_US + 6))


def test_old_minutes_are_dropped_and_klines_found_from_a_minute_on() -> None:
    minutes = with_trades()
    assert minutes.have_klines_since(NEXT_US)
    assert not minutes.have_klines_since(NEXT_US + MINUTE_US)
    minutes.drop_before(NEXT_US)
    assert list(minutes) == [NEXT_US]
