"""What a trade is to those before it, by its id."""

from __future__ import annotations

from decimal import Decimal

import pytest

from include.binance.streams.messages import AggTrade, Trade
from include.domain.timeframes import MINUTE_US, SECOND_US
from streamer.candles import trade_ids as continuity
from streamer.candles.trade_ids import HELD_US, MAX_OVERTAKEN, IdOrder, SkippingTradeIds, TradeIds

AT = 1_763_700_000_000_000


def trade(number: int, *, at_us: int = AT, first: int | None = None, price: str = "1") -> AggTrade:
    first = number if first is None else first
    return AggTrade(
        event_time=at_us, symbol="X", id=number, price=Decimal(price), quantity=Decimal(1),
        first_trade_id=first, last_trade_id=first, trade_time=at_us, is_buyer_maker=False,
    )  # fmt: skip


def void(number: int) -> AggTrade:
    return trade(number, first=-1, price="0")


def orders_of(*trades: AggTrade) -> list[IdOrder]:
    ids = TradeIds()
    return [ids.add(one, one.trade_time) for one in trades]


def test_ids_in_a_row_follow() -> None:
    assert orders_of(trade(5), trade(6), trade(7)) == [
        IdOrder.FIRST,
        IdOrder.FOLLOWS,
        IdOrder.FOLLOWS,
    ]


def test_larger_id_skips_and_smaller_id_repeats() -> None:
    found = orders_of(trade(5), trade(88), trade(6), trade(88), trade(89))
    assert found == [
        IdOrder.FIRST,
        IdOrder.SKIPS,
        IdOrder.REPEATS,
        IdOrder.REPEATS,
        IdOrder.FOLLOWS,
    ]


def test_trade_a_few_ids_ahead_waits_for_those_it_may_have_overtaken() -> None:
    ids = TradeIds()
    came = [trade(5), trade(8), trade(8), trade(7), trade(5), trade(6)]
    assert [ids.add(one, AT) for one in came] == [
        IdOrder.FIRST, IdOrder.WAITS, IdOrder.REPEATS, IdOrder.WAITS, IdOrder.REPEATS,
        IdOrder.OVERTAKEN,
    ]  # fmt: skip
    again = [trade(6), *ids.release()]
    assert [one.id for one in again] == [6, 7, 8]
    assert [ids.add(one, AT) for one in again] == [IdOrder.FOLLOWS] * 3
    assert (ids.next_id, ids.overtaken) == (9, 2)


@pytest.mark.parametrize(
    ("last", "now_us", "known_to", "is_over"),
    [
        (7, AT + HELD_US - 1, -1, False),
        (7, AT + HELD_US, -1, True),
        (7, AT, 6, False),
        (7, AT, 7, True),
        (5 + MAX_OVERTAKEN + 2, AT, -1, True),
    ],
)
def test_wait_for_overtaken_ids_ends(last: int, now_us: int, known_to: int, is_over: bool) -> None:
    ids = TradeIds()
    for one in (trade(5), trade(7), trade(last)):
        ids.add(one, AT)
    assert ids.wait_is_over(now_us, kline_last_id=known_to) is is_over


def test_number_of_waiting_trades_is_bounded() -> None:
    ids = TradeIds()
    ids.add(trade(5), AT)
    for number in range(7, 7 + continuity.MAX_HELD):
        ids.add(trade(number), AT)
        if ids.wait_is_over(AT):
            break
    assert len(ids.release()) <= continuity.MAX_HELD
    assert not ids.wait_is_over(AT + MINUTE_US)


def test_trade_overtaken_by_the_first_one_precedes_it_once() -> None:
    found = orders_of(trade(500), trade(499), trade(499), trade(501), trade(300), trade(498))
    assert found == [
        IdOrder.FIRST, IdOrder.PRECEDES, IdOrder.REPEATS, IdOrder.FOLLOWS, IdOrder.REPEATS,
        IdOrder.PRECEDES,
    ]  # fmt: skip


@pytest.mark.parametrize(("before", "first_id"), [(499, 499), (498, 500)])
def test_trade_directly_before_the_first_one_becomes_the_first(before: int, first_id: int) -> None:
    ids = TradeIds()
    for one in (trade(500), trade(before)):
        ids.add(one, AT)
    assert (ids.first_id, ids.next_id) == (first_id, 501)


@pytest.mark.parametrize(
    ("later_us", "step"),
    [(0, IdOrder.REPEATS), (59 * SECOND_US, IdOrder.REPEATS), (MINUTE_US, IdOrder.RESTARTS)],
)
def test_smaller_ids_of_much_younger_trades_are_another_instrument(
    later_us: int, step: IdOrder
) -> None:
    ids = TradeIds()
    ids.add(trade(900), AT)
    assert ids.add(trade(1), AT + later_us) is step
    assert ids.next_id == (2 if step is IdOrder.RESTARTS else 901)


def test_void_trade_leaves_its_id_to_the_real_one() -> None:
    assert orders_of(trade(5), void(6), trade(6), trade(7)) == [
        IdOrder.FIRST, IdOrder.VOID, IdOrder.FOLLOWS, IdOrder.FOLLOWS,
    ]  # fmt: skip


def test_void_ids_between_consecutive_fills_are_not_missing() -> None:
    found = orders_of(trade(5, first=50), void(6), void(7), trade(8, first=51))
    assert found == [IdOrder.FIRST, IdOrder.VOID, IdOrder.VOID, IdOrder.FOLLOWS]


def test_void_ids_between_fills_that_do_not_follow_hide_trades() -> None:
    ids = TradeIds()
    ids.may_wait = False
    came = [trade(5, first=50), void(6), trade(7, first=53)]
    assert [ids.add(one, AT) for one in came][-1] is IdOrder.SKIPS


@pytest.mark.parametrize("bad", [trade(6, price="0"), trade(6, price="-1"), void(6)])
def test_trade_without_price_or_fills_is_void(bad: AggTrade) -> None:
    assert orders_of(trade(5), bad)[-1] is IdOrder.VOID


def test_void_trade_is_never_the_first_one() -> None:
    assert orders_of(void(6), trade(7)) == [IdOrder.VOID, IdOrder.FIRST]


def single(number: int, trade_type: str | None) -> Trade:
    return Trade(AT, "X", number, Decimal(1), Decimal(1), AT, False, trade_type)


@pytest.mark.parametrize("trade_type", ["INSURANCE_FUND", "ADL", "NA", "SOMETHING_NEW"])
def test_fill_that_is_not_of_the_market_uses_up_its_id(trade_type: str) -> None:
    fills = (single(5, "MARKET"), single(6, trade_type), single(7, "MARKET"), single(6, trade_type))
    assert skipping(*fills) == [
        IdOrder.FIRST, IdOrder.NOT_MARKET, IdOrder.FOLLOWS, IdOrder.NOT_MARKET,
    ]  # fmt: skip
    assert skipping(single(5, trade_type), single(6, None)) == [IdOrder.NOT_MARKET, IdOrder.FIRST]


def skipping(*trades: AggTrade | Trade) -> list[IdOrder]:
    ids = SkippingTradeIds()
    return [ids.add(one, one.trade_time) for one in trades]


def test_overtaken_trade_counts_once_where_ids_skip_by_design() -> None:
    found = skipping(trade(5), trade(9), trade(7), trade(7), trade(9), trade(6), trade(10))
    assert found == [
        IdOrder.FIRST, IdOrder.SKIPS, IdOrder.SKIPS, IdOrder.REPEATS, IdOrder.REPEATS,
        IdOrder.SKIPS, IdOrder.FOLLOWS,
    ]  # fmt: skip


def test_forgotten_id_counts_as_a_repeat_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(continuity, "REMEMBERED", 3)
    ids = SkippingTradeIds()
    for number in (10, 20, 30, 40, 50):
        ids.add(trade(number), AT)
    assert ids.add(trade(15), AT) is IdOrder.REPEATS  # 20 is forgotten: it may have been seen
    assert ids.add(trade(25), AT) is IdOrder.SKIPS
    assert len(ids._recent) == len(ids._order) == 3


def test_another_instrument_begins_with_an_empty_memory() -> None:
    later = AT + MINUTE_US
    found = skipping(
        trade(900), trade(3, at_us=later), trade(2, at_us=later), trade(3, at_us=later)
    )
    assert found == [IdOrder.FIRST, IdOrder.RESTARTS, IdOrder.SKIPS, IdOrder.REPEATS]
