"""When the table is checked after PostgreSQL was away, and which minutes are requested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from include.config import load_settings
from include.domain.timeframes import MINUTE_US
from include.errors import TransientError
from streamer.candles.events import AFTER_DATABASE_OUTAGE, NO_FRAMES
from streamer.storage import failover_check as module
from streamer.storage.failover_check import FailoverCheck
from tests.unit.streamer.played_database import Connected

NOW_US = 1_000 * MINUTE_US + 30_000_000


class Table:
    """Lacks minutes; may be away."""

    def __init__(self) -> None:
        self.failures = 0
        self.firsts: dict[str, int] = {}
        self.lasts: dict[str, int] = {}
        self.asked: list[tuple[list[str], int]] = []
        self.lacking = {
            "A": [(900 * MINUTE_US, 905 * MINUTE_US), (997 * MINUTE_US, 1_000 * MINUTE_US)],
            "B": [(999 * MINUTE_US, 1_000 * MINUTE_US)],
        }

    def to_ask(
        self, _connection: object, symbols: list[str], since_us: int
    ) -> dict[str, list[tuple[int, int]]]:
        self.asked.append((symbols, since_us))
        if self.failures:
            self.failures -= 1
            raise TransientError("away")
        return {one: list(self.lacking[one]) for one in symbols if one in self.lacking}

    def first(self, _connection: object, symbols: Iterable[str], since_us: int) -> dict[str, int]:
        return {one: self.firsts[one] for one in symbols if self.firsts.get(one, 0) >= since_us}

    def last(self, _connection: object, symbols: Iterable[str]) -> dict[str, int]:
        return {one: self.lasts[one] for one in symbols if one in self.lasts}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    played = Table()
    monkeypatch.setattr(module, "connect", lambda *_args, **_more: Connected())
    monkeypatch.setattr(module, "minutes_to_request", played.to_ask)
    monkeypatch.setattr(module, "first_minutes", played.first)
    monkeypatch.setattr(module, "last_minutes", played.last)
    monkeypatch.setattr(module, "CHECK_DELAY_S", 0.05)
    monkeypatch.setattr(module, "POLL_S", 0.005)
    return played


def new_check(asked: list[tuple[str, int, int, str]]) -> FailoverCheck:
    settings = load_settings(database_url="postgresql://here/candles", fill_lookback_minutes=300)
    hub: Any = SimpleNamespace(symbols=["A", "B"])
    return FailoverCheck(settings, hub, lambda: NOW_US, lambda *one: asked.append(one))


async def run_until(one: FailoverCheck, holds: Callable[[], bool]) -> None:
    task = asyncio.create_task(one.run())
    try:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.002)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_missing_minutes_are_requested_except_the_latest(table: Table) -> None:
    asked: list[tuple[str, int, int, str]] = []
    await new_check(asked).check()
    assert table.asked == [(["A", "B"], (998 - 2 * 300) * MINUTE_US)]
    assert asked == [
        ("A", 900 * MINUTE_US, 905 * MINUTE_US, AFTER_DATABASE_OUTAGE),
        ("A", 997 * MINUTE_US, 998 * MINUTE_US, AFTER_DATABASE_OUTAGE),
    ]


async def test_missing_first_minutes_are_requested(table: Table) -> None:
    asked: list[tuple[str, int, int, str]] = []
    one = new_check(asked)
    table.lacking = {"B": [(990 * MINUTE_US, 991 * MINUTE_US)]}
    table.firsts = dict.fromkeys(("A", "B", "GONE"), 980 * MINUTE_US)
    table.lasts = dict.fromkeys(table.firsts, 997 * MINUTE_US)
    one.begin({"A": 980 * MINUTE_US, "B": 975 * MINUTE_US})
    one.begin({"GONE": 970 * MINUTE_US})  # and dropped since
    await one.check()
    assert asked == [
        ("B", 975 * MINUTE_US, 980 * MINUTE_US, AFTER_DATABASE_OUTAGE),
        ("B", 990 * MINUTE_US, 991 * MINUTE_US, AFTER_DATABASE_OUTAGE),
    ]


async def test_minutes_after_the_last_row_of_a_halted_symbol_are_requested(
    table: Table,
) -> None:
    asked: list[tuple[str, int, int, str]] = []
    table.lacking, table.lasts = {}, {"A": 900 * MINUTE_US, "B": 997 * MINUTE_US}
    await new_check(asked).check()
    assert asked == [("A", 901 * MINUTE_US, 998 * MINUTE_US, NO_FRAMES)]


async def test_all_minutes_of_a_symbol_without_rows_are_requested(table: Table) -> None:
    """A standby took over that had nothing of a listing yet, and then the symbol was halted."""
    asked: list[tuple[str, int, int, str]] = []
    table.lacking = {}
    one = new_check(asked)
    one.begin({"A": 990 * MINUTE_US, "GONE": 991 * MINUTE_US, "NEW": 999 * MINUTE_US})
    one.end(["GONE"])
    await one.check()
    assert asked == [
        ("A", 990 * MINUTE_US, 998 * MINUTE_US, NO_FRAMES),
        ("GONE", 991 * MINUTE_US, 998 * MINUTE_US, NO_FRAMES),
    ]


async def test_requests_reach_back_to_what_a_start_a_lookback_ago_filled(table: Table) -> None:
    asked: list[tuple[str, int, int, str]] = []
    one = new_check(asked)
    table.lacking, table.firsts = {}, {"A": 700 * MINUTE_US}
    table.lasts = {"A": 997 * MINUTE_US}
    one.begin({"A": 100 * MINUTE_US})
    await one.check()
    assert asked == [("A", (998 - 2 * 300) * MINUTE_US, 700 * MINUTE_US, AFTER_DATABASE_OUTAGE)]


async def test_requests_reach_back_from_the_first_return_of_the_database(table: Table) -> None:
    """It came back again and again, and each return delays the check."""
    one = new_check([])
    now_us = 800 * MINUTE_US
    one._exchange_us = lambda: now_us
    one.schedule()
    now_us = NOW_US
    one.schedule()
    await run_until(one, lambda: bool(table.asked))
    assert table.asked[0] == (["A", "B"], (800 - 2 * 300) * MINUTE_US)
    one.schedule()
    await run_until(one, lambda: len(table.asked) == 2)
    assert table.asked[1] == (["A", "B"], (998 - 2 * 300) * MINUTE_US)


async def test_check_runs_once_some_time_after_the_last_return(table: Table) -> None:
    one = new_check([])
    loop = asyncio.get_running_loop()
    one.schedule()
    await asyncio.sleep(0.02)
    one.schedule()
    noted_s = loop.time()
    await run_until(one, lambda: bool(table.asked))
    assert loop.time() - noted_s >= 0.05
    await run_until(one, lambda: loop.time() - noted_s > 0.3)
    assert len(table.asked) == 1


async def test_failed_check_is_repeated(table: Table) -> None:
    asked: list[tuple[str, int, int, str]] = []
    table.failures = 2
    one = new_check(asked)
    one.schedule()
    await run_until(one, lambda: bool(asked))
    assert len(table.asked) == 3


async def test_removed_symbol_is_checked_once_up_to_its_removal(
    table: Table,
) -> None:
    asked: list[tuple[str, int, int, str]] = []
    one = new_check(asked)
    table.lacking = {"GONE": [(990 * MINUTE_US, 991 * MINUTE_US), (997 * MINUTE_US, NOW_US)]}
    table.lasts = {"GONE": 991 * MINUTE_US}
    table.failures = 1
    now_us, one._exchange_us = NOW_US, lambda: now_us
    now_us = 995 * MINUTE_US + 7
    one.end(["GONE"])
    now_us = NOW_US
    with pytest.raises(TransientError):
        await one.check()
    await one.check()
    assert [symbols for symbols, _ in table.asked] == [["A", "B", "GONE"]] * 2
    assert asked == [
        ("GONE", 990 * MINUTE_US, 991 * MINUTE_US, AFTER_DATABASE_OUTAGE),
        ("GONE", 992 * MINUTE_US, 995 * MINUTE_US, NO_FRAMES),
    ]
    await one.check()
    assert table.asked[-1][0] == ["A", "B"]


async def test_symbol_removed_during_a_check_is_checked_again(table: Table) -> None:
    asked: list[tuple[str, int, int, str]] = []
    one = new_check(asked)
    table.lacking = {"GONE": [(900 * MINUTE_US, 901 * MINUTE_US)]}
    now_us, one._exchange_us = 950 * MINUTE_US, lambda: now_us
    one.end(["GONE"])
    now_us = NOW_US
    look = asyncio.create_task(one.check())
    await asyncio.sleep(0)
    one.end(["GONE"])  # it had come back
    await look
    await one.check()
    await one.check()
    assert [symbols for symbols, _ in table.asked] == [["A", "B", "GONE"]] * 2 + [["A", "B"]]


async def test_returned_symbol_is_checked_like_others(table: Table) -> None:
    asked: list[tuple[str, int, int, str]] = []
    one = new_check(asked)
    table.lacking = {"A": [(997 * MINUTE_US, 998 * MINUTE_US)]}
    one.end(["A"])
    await one.check()
    assert table.asked == [(["A", "B"], (998 - 2 * 300) * MINUTE_US)]
    assert asked == [("A", 997 * MINUTE_US, 998 * MINUTE_US, AFTER_DATABASE_OUTAGE)]


async def test_symbols_removed_long_ago_are_forgotten(table: Table) -> None:
    one = new_check([])
    now_us = 300 * MINUTE_US
    one._exchange_us = lambda: now_us
    one.end(["OLD"])
    now_us = NOW_US
    one.end(["GONE"])
    assert list(one._ended_us) == ["GONE"]
