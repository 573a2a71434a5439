"""Symbols that no longer trade are resumed once, if they have rows; failures are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from include.errors import TransientError
from include.store.trades.captured import RawTable
from streamer.capture.repair import former_symbols as module
from streamer.capture.repair.former_symbols import FormerSymbols
from tests.unit.streamer.played_database import Connected

SINCE_US = 77
FOUND_US = 1_000


class Registry:
    """Symbols that do not trade, of which some have rows; ``asked`` records queries of rows."""

    def __init__(self) -> None:
        self.symbols = ["A", "B", "WITHOUT"]
        self.is_away = False
        self.reads = 0
        self.asked: list[tuple[str, list[str], int]] = []

    def read(self, _connection: object) -> list[str]:
        self.reads += 1
        if self.is_away:
            raise TransientError("away")
        return self.symbols

    def rows(
        self, _connection: object, table: RawTable, symbols: list[str], since_us: int
    ) -> dict[str, tuple[int, int]]:
        self.asked.append((table.name, symbols, since_us))
        return {one: (1, since_us) for one in symbols if one != "WITHOUT"}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    stands_in = Registry()
    monkeypatch.setattr(module, "symbols_not_trading", stands_in.read)
    monkeypatch.setattr(module, "last_rows", stands_in.rows)
    monkeypatch.setattr(module, "connect", lambda *_args, **_more: Connected())
    return stands_in


@pytest.fixture
def resumed() -> list[str]:
    return []


@pytest.fixture
def former(registry: Registry, resumed: list[str]) -> FormerSymbols:
    def resume(symbols: Sequence[str]) -> None:
        resumed.extend(symbols)

    return FormerSymbols(
        "postgresql://",
        ["trades"],
        is_captured=lambda symbol: symbol == "B",
        since_us=lambda: SINCE_US,
        now_us=lambda: FOUND_US,
        resume=resume,
    )


async def test_each_symbol_with_rows_that_is_not_captured_is_resumed_once(
    registry: Registry, resumed: list[str], former: FormerSymbols
) -> None:
    await former.check()
    await former.check()
    assert resumed == ["A"]
    assert ("A" in former, "B" in former, "WITHOUT" in former) == (True, False, False)
    registry.symbols.append("C")
    await former.check()
    assert resumed == ["A", "C"]
    assert registry.asked[0] == ("trades", ["A", "WITHOUT"], SINCE_US)


async def test_symbol_that_trades_again_is_dropped(
    registry: Registry, resumed: list[str], former: FormerSymbols
) -> None:
    await former.check()
    assert not former.drop_if_trading("A", FOUND_US)
    assert "A" in former
    assert former.drop_if_trading("A", FOUND_US + 1)
    assert "A" not in former
    assert not former.drop_if_trading("B", FOUND_US + 1)  # captured: as usual
    await former.check()  # the registry is a day old
    assert "A" not in former
    assert resumed == ["A"]


async def test_checks_become_rare_after_the_start_and_failures_do_not_count(
    registry: Registry, resumed: list[str], former: FormerSymbols, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "FREQUENT_CHECKS", 3)
    registry.is_away = True
    task = asyncio.create_task(former.run())
    try:
        async with asyncio.timeout(10):
            while registry.reads < 5:
                await asyncio.sleep(0)
            registry.is_away = False
            while len(registry.asked) < 3:
                await asyncio.sleep(0)
            reads = registry.reads
            await asyncio.sleep(0.05)
    finally:
        task.cancel()
    assert resumed == ["A"]
    assert registry.reads == reads
