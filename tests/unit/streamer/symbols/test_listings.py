"""What becomes of a new list of symbols; the exchange and PostgreSQL are played here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.binance.rest.klines import KlinePage, final_until
from include.domain.candles import silent_candle
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US, SECOND_US
from include.errors import PermanentError, TransientError
from include.store.ledgers.gaps import Gap
from streamer.symbols import first_minutes, startup
from streamer.symbols import listings as module
from streamer.symbols.listings import Listings
from streamer.symbols.startup import StoredState
from streamer.symbols.symbol_selection import SelectionChanges, SymbolSelection

T0 = 1_700_000_040_000_000


def instrument(symbol: str, status: str = "TRADING") -> Instrument:
    base, tick = symbol.removesuffix("USDT"), Decimal("0.01")
    return Instrument(symbol, Market.SPOT, base, "USDT", status, tick, tick)


@dataclass
class Played:
    """The exchange's list and klines, the tables, and all events in order."""

    listed: list[Instrument]
    now_us: int = T0
    refused: dict[str, Exception] = field(default_factory=dict)
    database_refuses: Exception | None = None
    unknown_us: dict[str, int] = field(default_factory=dict)
    firsts_us: dict[str, int | None] = field(default_factory=dict)
    """When symbols first traded, None for not yet; the others did long ago."""
    behind: dict[str, int] = field(default_factory=dict)
    """How many answers come from a lagging server without trades."""
    stored: StoredState = field(default_factory=lambda: StoredState({}, {}, []))
    lacks: list[StoredState] = field(default_factory=list)
    """Events of added symbols."""
    asked: list[str] = field(default_factory=list)
    opened: list[tuple[str, int, int]] = field(default_factory=list)
    """Recorded gaps: symbol, start and end."""
    told: list[tuple[SelectionChanges, Mapping[str, int]]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def open_rest(self, *_: object) -> Iterator[Played]:
        yield self

    @contextlib.contextmanager
    def connect(self, *_: object, **__: object) -> Iterator[None]:
        yield

    def server_time_us(self) -> int:
        return self.now_us

    def exchange_info(self) -> list[Instrument]:
        return list(self.listed)

    def klines(self, symbol: str, interval: str, start_us: int, *, limit: int) -> KlinePage:
        assert interval == "1m"
        self.asked.append(symbol)
        if symbol in self.refused:
            raise self.refused[symbol]
        first_us = self.firsts_us.get(symbol, 0)
        if first_us is None or self.asked.count(symbol) <= self.behind.get(symbol, 0):
            return KlinePage([], self.now_us, 0, None)
        if final_until(self.now_us) < (row_us := max(first_us, start_us)) + MINUTE_US:
            return KlinePage([], self.now_us, 1, None)
        return KlinePage([silent_candle(symbol, row_us, Decimal(1))], self.now_us, 0, None)

    def stored_minutes(
        self, _url: str, symbols: Sequence[str], since_us: int, *, now_us: int
    ) -> StoredState:
        assert T0 - 1_440 * MINUTE_US <= since_us <= now_us
        if isinstance(self.database_refuses, TransientError):
            error, self.database_refuses = self.database_refuses, None
            raise error
        if self.database_refuses is not None:
            raise self.database_refuses
        self.remove_stale_live(None, symbols)
        return self.stored.of(symbols)

    def open_gap(self, *_: object, **gap: Any) -> int:
        self.opened.append((gap["symbol"], gap["start_us"], gap["end_us"]))
        return len(self.opened)

    def unknown_since(
        self, _connection: None, symbols: Sequence[str], since_us: int
    ) -> dict[str, int]:
        assert since_us >= T0 - 1_440 * MINUTE_US
        return {symbol: at for symbol, at in self.unknown_us.items() if symbol in symbols}

    def remove_stale_live(self, _connection: None, symbols: Sequence[str]) -> int:
        self.done.append(f"open candles of {', '.join(symbols)} removed")
        return 1

    async def live_written(self) -> None:
        self.done.append("writes are over")

    def on_changes(
        self, market: Market, changes: SelectionChanges, begins: Mapping[str, int]
    ) -> None:
        assert market is Market.SPOT
        assert {one.symbol for one in changes.added} == begins.keys()
        self.told.append((changes, begins))

    def on_stored(self, stored: StoredState) -> None:
        assert stored == stored.of(self.begins())
        self.lacks.append(stored)

    def streamed(self) -> list[str]:
        return [one.symbol for changes, _ in self.told for one in changes.added]

    def begins(self) -> dict[str, int]:
        """The minute that each symbol began with."""
        return {symbol: at_us for _, begins in self.told for symbol, at_us in begins.items()}


class Settings:
    symbols_refresh_s = 0.0
    follow_watchlists = False
    fill_lookback_minutes = 1_440

    def url_for(self, _role: str) -> str:
        return "postgresql://here/candles"


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played([instrument(name) for name in ("AUSDT", "BUSDT", "CUSDT", "DUSDT")])
    monkeypatch.setattr(module, "open_shared_rest", played.open_rest)
    monkeypatch.setattr(module, "connect", played.connect)
    monkeypatch.setattr(startup, "_stored_minutes", played.stored_minutes)
    monkeypatch.setattr(startup, "find_missing_beginnings", lambda *_: {})
    monkeypatch.setattr(startup, "BACKOFF", Backoff(first_s=0.0, max_s=0.0))
    monkeypatch.setattr(first_minutes, "open_shared_rest", played.open_rest)
    monkeypatch.setattr(first_minutes, "connect", played.connect)
    monkeypatch.setattr(first_minutes, "unknown_since", played.unknown_since)
    monkeypatch.setattr(first_minutes, "open_gap", played.open_gap)
    monkeypatch.setattr(module, "remove_stale_live", played.remove_stale_live)
    monkeypatch.setattr(first_minutes, "BACKOFF", Backoff(first_s=0.0, max_s=0.0))
    return played


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    return log


def following(played: Played, selection: SymbolSelection) -> Listings:
    settings: Any = Settings()
    return Listings(
        settings,
        {Market.SPOT: selection},
        {Market.SPOT: T0},
        on_changes=played.on_changes,
        on_stored=played.on_stored,
        live_written=played.live_written,
        stop=asyncio.Event(),
    )


@contextlib.asynccontextmanager
async def running(listings: Listings) -> Any:
    task = asyncio.create_task(listings.run())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_refused_new_symbol_delays_no_other_change(
    played: Played, log: CapturingLogger
) -> None:
    selection = SymbolSelection(["AUSDT", "BUSDT", "CUSDT", "NEW*"], played.listed)
    played.listed = [
        instrument("AUSDT"),
        instrument("BUSDT", "HALT"),
        *(instrument(name) for name in ("DUSDT", "NEW1USDT", "NEW2USDT")),
    ]
    played.refused["NEW1USDT"] = PermanentError("HTTP 400: Invalid symbol")
    async with running(following(played, selection)):
        while len(played.asked) < 4:
            played.now_us += SECOND_US
            await asyncio.sleep(0.002)
        halted = {symbol for changes, _ in played.told for symbol in changes.halted}
        assert halted == {"BUSDT", "CUSDT"}
        assert [one for changes, _ in played.told for one in changes.dropped] == ["DUSDT"]
        assert played.done[:3] == [
            "open candles of NEW1USDT, NEW2USDT removed",  # left by a streamer that was killed
            "writes are over",
            "open candles of DUSDT removed",
        ]
        assert played.streamed() == ["NEW2USDT"]
        [error] = {call.kwargs["error"] for call in log.calls}
        assert "NEW1USDT: HTTP 400: Invalid symbol" in error
        del played.refused["NEW1USDT"]
        while len(played.streamed()) < 2:
            played.now_us += MINUTE_US
            await asyncio.sleep(0.002)
    assert played.streamed() == ["NEW2USDT", "NEW1USDT"]
    # Minutes traded while it was refused are requested as well.
    assert played.begins() == {"NEW2USDT": T0, "NEW1USDT": T0}


async def test_symbol_with_only_a_stored_gap_begins_at_or_shortly_before_it(
    played: Played,
) -> None:
    told_us = T0 - 140 * MINUTE_US
    played.listed += [instrument("EUSDT")]
    played.unknown_us = {
        "CUSDT": told_us,
        "DUSDT": told_us,
        "EUSDT": told_us - 10_000 * MINUTE_US,
    }
    played.firsts_us = {"DUSDT": told_us - 3 * MINUTE_US}  # not written when the gap was
    async with running(following(played, SymbolSelection(["*"], played.listed[:2]))):
        while not played.streamed():
            await asyncio.sleep(0.002)
    assert played.begins() == {
        "CUSDT": told_us,
        "DUSDT": told_us - 3 * MINUTE_US,
        "EUSDT": T0 - 1_440 * MINUTE_US,
    }


async def test_lagging_server_does_not_postpone_a_new_listing(
    played: Played,
) -> None:
    """The list came minutes after the listing."""
    played.now_us = T0 + 10 * MINUTE_US
    played.firsts_us = {"CUSDT": T0 + 2 * MINUTE_US, "DUSDT": None}
    played.behind = {"CUSDT": 2}
    async with running(following(played, SymbolSelection(["*"], played.listed[:2]))):
        while not played.streamed():
            await asyncio.sleep(0.002)
    assert played.begins() == {"CUSDT": T0 + 2 * MINUTE_US, "DUSDT": T0 + 10 * MINUTE_US}
    assert sorted(played.asked) == [*["CUSDT"] * 3, *["DUSDT"] * 3]


async def test_listing_missing_in_a_stale_list_is_streamed_from_its_first_minute(
    played: Played,
) -> None:
    new, played.listed = played.listed[2], played.listed[:2]
    played.now_us = T0 + 5 * MINUTE_US
    async with running(following(played, SymbolSelection(["*"], played.listed))):
        while len(played.told) < 2:
            await asyncio.sleep(0.002)
        played.now_us = T0 + 6 * MINUTE_US
        played.firsts_us = {"CUSDT": T0 + MINUTE_US}
        played.listed.append(new)
        while not played.streamed():
            await asyncio.sleep(0.002)
    assert played.begins() == {"CUSDT": T0 + MINUTE_US}


async def test_new_symbols_wait_until_the_database_can_be_read(
    played: Played, log: CapturingLogger
) -> None:
    selection = SymbolSelection(["*USDT"], played.listed[:2])
    played.listed[0] = instrument("AUSDT", "HALT")
    played.database_refuses = PermanentError("permission denied for view candles")
    async with running(following(played, selection)):
        while len(log.calls) < 2:
            await asyncio.sleep(0.002)
        assert played.streamed() == []
        assert [symbol for changes, _ in played.told for symbol in changes.halted] == ["AUSDT"]
        played.database_refuses = None
        while not played.streamed():
            await asyncio.sleep(0.002)
    assert played.streamed() == ["CUSDT", "DUSDT"]


async def test_watched_symbol_is_streamed_immediately_and_dropped_when_unwatched(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "symbols_refresh_s", 3_600.0)
    monkeypatch.setattr(module, "REFRESH_PAUSE_S", 0.0)
    listings = following(played, SymbolSelection(["AUSDT"], played.listed[:1]))
    listings.watch(frozenset({"BUSDT"}))  # before the first refresh
    async with running(listings):
        while played.streamed() != ["BUSDT"]:
            await asyncio.sleep(0.002)
        listings.watch(frozenset({"AUSDT", "CUSDT"}))
        while played.streamed() != ["BUSDT", "CUSDT"]:
            await asyncio.sleep(0.002)
        assert [one for changes, _ in played.told for one in changes.dropped] == ["BUSDT"]


async def test_market_is_followed_once_a_symbol_of_it_is_watched(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "symbols_refresh_s", 3_600.0)
    told: list[tuple[Market, list[str]]] = []

    def on_changes(market: Market, changes: SelectionChanges, _begins: Mapping[str, int]) -> None:
        told.extend([(market, [one.symbol for one in changes.added])] if changes.added else [])

    monkeypatch.setattr(played, "on_changes", on_changes)
    played.listed.append(
        Instrument("AUSDT.P", Market.UM, "A", "USDT", "TRADING", Decimal("0.1"), Decimal("0.1"))
    )
    listings = following(played, SymbolSelection(["AUSDT"], played.listed[:1]))
    async with running(listings):
        listings.watch(frozenset({"AUSDT.P"}))
        while told != [(Market.UM, ["AUSDT.P"])]:
            await asyncio.sleep(0.002)


async def test_unknown_watched_symbol_is_logged_once_with_the_nearest_name(
    played: Played, log: CapturingLogger
) -> None:
    listings = following(played, SymbolSelection(["AUSDT"], played.listed[:1]))
    listings.watch(frozenset({"CUSDC", "BUSDT"}))
    async with running(listings):
        while len(played.told) < 5:
            await asyncio.sleep(0.002)
    [warning] = log.calls
    assert (warning.args, warning.kwargs["symbol"]) == (("watched_symbol_unknown",), "CUSDC")
    assert "did you mean CUSDT" in warning.kwargs["error"]
    assert played.streamed() == ["BUSDT"]


def gap_of(symbol: str) -> Gap:
    return Gap(1, symbol, T0 - 9 * MINUTE_US, T0 - 8 * MINUTE_US, "connection lost", T0, 1, {})


async def test_missing_minutes_and_gaps_of_an_added_symbol_are_reported(
    played: Played,
) -> None:
    last_us, old_us = T0 - 3 * MINUTE_US, T0 - 10_000 * MINUTE_US
    unsure = {"BUSDT": [(T0 - 6 * MINUTE_US, T0 - 5 * MINUTE_US)]}
    played.stored = StoredState({"BUSDT": last_us, "CUSDT": old_us}, unsure, [gap_of("BUSDT")])
    played.database_refuses = TransientError("away")  # once
    async with running(
        following(played, SymbolSelection(["*"], [played.listed[0], played.listed[3]]))
    ):
        while not played.lacks:
            await asyncio.sleep(0.002)
    assert played.begins() == {
        "BUSDT": last_us + MINUTE_US,
        "CUSDT": T0 - 1_440 * MINUTE_US,
    }
    left = {"CUSDT": [(old_us + MINUTE_US, T0 - 1_440 * MINUTE_US)]}
    assert played.lacks == [replace(played.stored, left_us=left)]
    assert played.asked == []  # they are not new
    assert played.opened == [("CUSDT", old_us + MINUTE_US, T0 - 1_440 * MINUTE_US)]


async def test_missing_minutes_of_a_refused_symbol_are_not_reported(
    played: Played, log: CapturingLogger
) -> None:
    """Its gap is claimed again when the next list has it."""
    played.stored = StoredState({}, {}, [gap_of("BUSDT"), gap_of("CUSDT")])
    played.refused["BUSDT"] = PermanentError("HTTP 400: Invalid symbol")
    async with running(
        following(played, SymbolSelection(["*"], [played.listed[0], played.listed[3]]))
    ):
        while not log.calls:
            await asyncio.sleep(0.002)
        assert played.lacks[0].gaps == [gap_of("CUSDT")]
        del played.refused["BUSDT"]
        while "BUSDT" not in played.streamed():
            await asyncio.sleep(0.002)
    assert [one.gaps for one in played.lacks if one.gaps][1:] == [[gap_of("BUSDT")]]
