"""Candles beyond the trades of a quiet symbol are reported while they stay."""

from __future__ import annotations

import pytest

from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from include.store.trades.captured import RawTable
from include.store.trades.ids import CandleBeyond, Reached
from streamer.capture.intake.ids import IdSequence, MissingRange
from streamer.capture.repair import expected_trades as module
from streamer.capture.repair.expected_trades import MAX_CHECKS, NOT_SERVED, ExpectedTrades
from tests.unit.streamer.played_database import Connected

SINCE_US = 7 * MINUTE_US


class Table:
    """Has candles of one symbol up to a trade; ``asked`` records the queries."""

    def __init__(self) -> None:
        self.last_trade_id = 12
        self.is_away = False
        self.asked: list[tuple[str, list[Reached], int]] = []

    def beyond(
        self, _connection: object, table: RawTable, reached: list[Reached], since_us: int
    ) -> dict[str, CandleBeyond]:
        if self.is_away:
            raise TransientError("away")
        self.asked.append((table.name, reached, since_us))
        return {
            one.symbol: CandleBeyond(10 * MINUTE_US, self.last_trade_id)
            for one in reached
            if one.last_id < self.last_trade_id
        }


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    stands_in = Table()
    monkeypatch.setattr(module, "candles_beyond", stands_in.beyond)
    monkeypatch.setattr(module, "connect", lambda *_args, **_more: Connected())
    return stands_in


class Bench:
    """Two symbols, one of them captured."""

    def __init__(self) -> None:
        self.ids = {("trades", name): IdSequence(late_s=0.0) for name in ("A", "B")}
        self.told: list[tuple[str, str, int]] = []
        self.asked: set[tuple[str, str]] = set()
        self.given_up: list[tuple[str, str, MissingRange, str]] = []
        self.evidence = ExpectedTrades(
            "postgresql://",
            self.ids,
            is_checked=lambda symbol: symbol != "B",
            since_us=lambda: SINCE_US + 1,
            on_beyond=lambda *told: self.told.append(told),
            is_pending=lambda *one: one in self.asked,
            on_given_up=lambda *told: self.given_up.append(told),
        )

    def take(self, symbol: str, number: int) -> None:
        self.ids["trades", symbol].take(number, number, 0.0)


async def test_trades_in_candles_of_a_quiet_symbol_beyond_its_rows_are_reported(
    table: Table,
) -> None:
    watched = Bench()
    watched.take("A", 11)
    watched.take("B", 3)
    await watched.evidence.check()
    assert table.asked == []  # not known yet whether it is quiet
    await watched.evidence.check()
    watched.asked.add(("trades", "A"))
    for _ in range(3):
        await watched.evidence.check()  # the answer is awaited
    watched.asked.clear()
    assert table.asked[0] == ("trades", [Reached("A", 11, 11)], SINCE_US)
    assert watched.told == [("trades", "A", 11 * MINUTE_US)]
    table.last_trade_id = 13  # a further minute without frames
    await watched.evidence.check()
    assert len(watched.told) == 2


async def test_empty_answer_contradicted_by_a_candle_is_asked_again(table: Table) -> None:
    watched = Bench()
    watched.take("A", 11)
    for _ in range(1 + 9):
        await watched.evidence.check()
    assert len(watched.told) == 4  # in the 1st look at it, the 2nd, 4th and 8th
    watched.ids["trades", "A"].advance(12, 12)  # the server has caught up
    for _ in range(MAX_CHECKS[Market.SPOT]):
        await watched.evidence.check()
    assert (len(watched.told), watched.given_up) == (4, [])


async def test_trades_that_the_exchange_never_serves_become_a_gap(table: Table) -> None:
    watched = Bench()
    watched.take("A", 11)
    for _ in range(3 * MAX_CHECKS[Market.SPOT]):
        await watched.evidence.check()
    assert len(watched.told) == 5 + MAX_CHECKS[Market.SPOT] // 16 - 1  # after the 16th, each 16th
    assert watched.given_up == [
        ("trades", "A", MissingRange(12, 11, 11, 11 * MINUTE_US), NOT_SERVED)
    ]


async def test_usd_m_candle_causes_a_request_but_proves_no_gap(table: Table) -> None:
    watched = Bench()
    watched.ids["trades", "A.P"] = IdSequence(late_s=0.0)
    watched.take("A.P", 11)
    for _ in range(100):
        await watched.evidence.check()
    assert len(watched.told) == 2
    assert watched.given_up == []


async def test_trading_symbol_is_not_compared_with_its_candles(table: Table) -> None:
    watched = Bench()
    await watched.evidence.check()  # no frame of it so far
    for number in (3, 4, 6):
        watched.take("A", number)
        await watched.evidence.check()
    assert table.asked == []


async def test_report_waits_until_postgresql_is_back(table: Table) -> None:
    watched = Bench()
    watched.take("A", 11)
    await watched.evidence.check()
    table.is_away = True
    with pytest.raises(TransientError):
        await watched.evidence.check()
    assert watched.told == []
    table.is_away = False
    await watched.evidence.check()
    assert watched.told == [("trades", "A", 11 * MINUTE_US)]
