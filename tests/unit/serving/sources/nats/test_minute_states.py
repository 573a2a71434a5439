from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations

import pytest

from include.domain.candles import Candle, Source, Status
from include.domain.timeframes import MINUTE_US
from serving.sources.nats.minute_states import MINUTES_KEPT, MinuteStates
from streamer.hub.subscription import CandleUpdate

T0 = 1_700_000_040_000_000


def minute(
    index: int = 0, *, close: str = "1", last_id: int | None = 1, **fields: object
) -> Candle:
    one, price = Decimal(1), Decimal(close)
    return Candle(
        "BTCUSDT", T0 + index * MINUTE_US, one, max(one, price), min(one, price), price, one, one,
        1, one, one, last_id, last_id,
    )  # fmt: skip


def live(index: int = 0, *, closed: bool = False, last_id: int | None = 1) -> CandleUpdate:
    return CandleUpdate(minute(index, last_id=last_id), is_closed=closed)


def closed(
    close: str = "1",
    *,
    index: int = 0,
    status: Status = Status.VERIFIED,
    source: Source = Source.KLINE,
    revision: bool = False,
) -> CandleUpdate:
    return CandleUpdate(
        minute(index, close=close),
        is_closed=True,
        status=status,
        source=source,
        is_revision=revision,
    )


PARTIAL = closed("2", status=Status.PARTIAL, source=Source.STREAM)
UNCONFIRMED = closed("3", status=Status.UNCONFIRMED, source=Source.STREAM)
VERIFIED = closed("4")
BY_REST = closed("5", source=Source.REST)


def test_minute_ends_in_the_same_state_in_any_order() -> None:
    lives = [live(last_id=3), live(last_id=9), live(closed=True, last_id=9)]
    for order in permutations([*lives, PARTIAL, UNCONFIRMED, VERIFIED, BY_REST]):
        states = MinuteStates()
        told = [one for update in order if (one := states.add(update)) is not None]
        newest = states.newest("BTCUSDT")
        assert newest is not None
        assert told[-1].candle == BY_REST.candle == newest.candle
        revisions = [one.is_revision for one in told if one.status is not None]
        assert revisions == [False] + [True] * (len(revisions) - 1)


@pytest.mark.parametrize("status", [Status.PARTIAL, Status.UNCONFIRMED])
def test_aggregated_candle_with_more_trades_stays(status: Status) -> None:
    """Two streamers stream a symbol, and one of them came late."""
    told = closed(status=status, source=Source.STREAM)
    few = replace(told, candle=replace(told.candle, trade_count=5, last_trade_id=50))
    many = replace(told, candle=replace(told.candle, trade_count=50, last_trade_id=50))
    longer = replace(told, candle=replace(told.candle, trade_count=50, last_trade_id=60))
    states = MinuteStates()
    assert states.add(few) == few
    assert states.add(many) == replace(many, is_revision=True)
    for one in (few, many, few):
        assert states.add(one) is None
    assert states.add(longer) == longer
    assert states.add(many) is None


def test_later_value_of_the_exchange_wins() -> None:
    states = MinuteStates()
    for close in ("5", "4"):
        assert states.add(closed(close, source=Source.REST))
    newest = states.newest("BTCUSDT")
    assert newest is not None
    assert newest.candle == minute(close="4")


def test_repeated_state_is_no_update() -> None:
    states = MinuteStates()
    for update in (live(), live(closed=True), VERIFIED, replace(BY_REST, candle=VERIFIED.candle)):
        assert states.add(update) == update
        assert states.add(update) is None


def test_open_state_advances_by_its_trades() -> None:
    states = MinuteStates()
    assert states.add(live(last_id=9))
    assert states.add(live(last_id=8)) is None
    corrected = replace(live(last_id=9), candle=minute(close="2", last_id=9))
    assert states.add(corrected) == corrected


def test_revision_mark_stays() -> None:
    assert MinuteStates().add(closed(revision=True)).is_revision  # type: ignore[union-attr]


def test_old_minutes_are_forgotten_unless_they_are_held() -> None:
    states = MinuteStates()
    states.add(closed(index=0))
    states.hold("BTCUSDT")
    for index in range(1, 3 * MINUTES_KEPT):
        states.add(closed(index=index))
    assert states.knows("BTCUSDT", T0)
    states.release("BTCUSDT")
    assert not states.knows("BTCUSDT", T0)
    assert not states.knows("BTCUSDT", T0 + (2 * MINUTES_KEPT - 1) * MINUTE_US)
    assert states.knows("BTCUSDT", T0 + 2 * MINUTES_KEPT * MINUTE_US)
    assert states.newest_us == states.newest_us_of("BTCUSDT") == T0 + (60 - 1) * MINUTE_US
    assert states.symbols == ["BTCUSDT"]


def test_unknown_symbol_has_no_state() -> None:
    states = MinuteStates()
    assert (states.newest_us, states.newest_us_of("X"), states.newest("X")) == (0, None, None)
    assert not states.knows("X", T0)


def test_dropped_symbol_has_no_state_and_time_does_not_go_back() -> None:
    states = MinuteStates()
    states.add(closed(index=7))
    states.hold("BTCUSDT")
    states.drop("BTCUSDT")
    states.release("BTCUSDT")
    assert (states.symbols, states.newest("BTCUSDT")) == ([], None)
    assert not states.knows("BTCUSDT", T0 + 7 * MINUTE_US)
    assert states.newest_us == T0 + 7 * MINUTE_US
    told = states.add(closed("2", index=7))
    assert told is not None
    assert not told.is_revision
