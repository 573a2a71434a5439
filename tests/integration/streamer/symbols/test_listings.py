"""Symbols that come and go at the exchange while the streamer runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, minute_of, to_us
from include.store.ledgers.gaps import open_gap
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer import app
from streamer.health import watchdog
from streamer.health.states import SymbolState
from streamer.symbols import symbol_selection as selection
from streamer.symbols.symbols_file import read_symbols
from tests.integration.streamer.harness import (
    assert_equal_to_the_exchange,
    damage,
    is_verified,
    minutes_of,
    open_gaps,
    rows_of,
    settings_for,
    streaming,
    wait_for_rows,
)

SPEED = 25
KNOWN = ("BTCUSDT", "ETHUSDT")
NEW, NEW_UM, GONE = "NEWUSDT", "FRESHUSDT.P", "ETHUSDT"


class RecordingLogger:
    """Takes the place of the streamer's logger."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str | None]] = []

    def __getattr__(self, _level: str) -> Any:
        return lambda event, **fields: self.events.append((event, fields.get("symbol")))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordingLogger:
    log = RecordingLogger()
    for module in (app, watchdog):
        monkeypatch.setattr(module, "log", log)
    return log


def subscribed(exchange: Exchange) -> set[str]:
    """Streams that clients of the spot market are subscribed to."""
    return {stream for one in exchange.stream_servers["spot"].connections for stream in one.streams}


@pytest.mark.long
async def test_new_listings_are_streamed_from_their_first_minute_on(
    database_url: str, log: RecordingLogger
) -> None:
    config = SimulatorConfig(speed=SPEED, spot_symbols=KNOWN, um_symbols=("BTCUSDT",))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=0.2)
        async with streaming(settings, "*USDT", "*.P") as streamer:
            await wait_for_rows(database_url, lambda rows: bool(minutes_of(rows, "BTCUSDT")))
            exchange.faults.add(
                [
                    {"kind": "new_listing", "market": "spot", "symbols": NEW, "at": "+10s"},
                    {"kind": "new_listing", "market": "um", "symbols": "FRESHUSDT", "at": "+15s"},
                ]
            )
            async with asyncio.timeout(60):
                while {NEW, NEW_UM} - {one.symbol for one in streamer._aggregators}:
                    await asyncio.sleep(0.01)
            first_us = {
                name: exchange.markets[market].history(symbol).start_us
                for name, market, symbol in (
                    (NEW, "spot", NEW),
                    (NEW_UM, "um", NEW_UM.removesuffix(".P")),
                )
            }
            assert exchange.clock.now_us() - max(first_us.values()) < MINUTE_US
            goal_us = minute_of(exchange.clock.now_us()) + 2 * MINUTE_US
            names = [*KNOWN, NEW, "BTCUSDT.P", NEW_UM]
            rows = await wait_for_rows(
                database_url,
                lambda rows: all(
                    (minutes_of(rows, one) or [0])[-1] >= goal_us
                    and all(rows[one, at]["status"] == "verified" for at in minutes_of(rows, one))
                    for one in names
                ),
            )
            for name in (NEW, NEW_UM):
                assert minutes_of(rows, name)[0] == first_us[name], name
            await assert_equal_to_the_exchange(exchange, rows, names)
            added = [symbol for event, symbol in log.events if event == "symbol_added"]
            assert sorted(map(str, added)) == sorted([NEW, NEW_UM])
            assert [feed.connection.reconnects for feed in streamer.telemetry.feeds] == [0, 0]
    with psycopg.connect(database_url) as connection:
        query = "SELECT symbol FROM ops.outages WHERE symbol = ANY(%s)"
        assert connection.execute(query, ([NEW, NEW_UM],)).fetchall() == []


async def test_halt_is_logged_once_and_a_vanished_symbol_unsubscribed(
    database_url: str, log: RecordingLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "GONE_AFTER_US", 3 * MINUTE_US)
    config = SimulatorConfig(speed=60, spot_symbols=(*KNOWN, "PEPEUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url, symbols_refresh_s=0.2)
        async with streaming(settings, "*") as streamer:
            await wait_for_rows(database_url, lambda rows: bool(minutes_of(rows, GONE)))
            halt = {"kind": "halt", "market": "spot", "symbols": "PEPEUSDT", "duration_s": 100}
            exchange.faults.add(
                [
                    {**halt, "at": "+20s"},
                    {"kind": "delisting", "market": "spot", "symbols": GONE, "at": "+20s"},
                ]
            )
            states = streamer.telemetry.states
            async with asyncio.timeout(60):
                while states.of("PEPEUSDT") is not SymbolState.HALTED:
                    await asyncio.sleep(0.01)
                while GONE in {one.symbol for one in streamer._aggregators}:
                    await asyncio.sleep(0.01)
                while any(GONE.lower() in one for one in subscribed(exchange)):
                    await asyncio.sleep(0.05)
            told_of = [event for event in log.events if event[1] == GONE]
            assert told_of.count(("symbol_halted", GONE)) == 1
            assert told_of[-1] == ("symbol_gone", GONE)
            assert [e for e, symbol in log.events if symbol == "PEPEUSDT" and "halt" in e] == [
                "symbol_halted"
            ]
            assert ("symbol_resumed", "PEPEUSDT") in log.events
            goal_us = minute_of(exchange.clock.now_us()) + MINUTE_US
            await wait_for_rows(
                database_url, lambda rows: minutes_of(rows, "PEPEUSDT")[-1] >= goal_us
            )
            assert states.of("PEPEUSDT") is SymbolState.LIVE
            assert {stream.partition("@")[0] for stream in subscribed(exchange)} == {
                "btcusdt",
                "pepeusdt",
            }
    rows = await rows_of(database_url)
    assert to_us(rows["BTCUSDT", minutes_of(rows, "BTCUSDT")[-1]]["open_time"]) >= goal_us


@pytest.mark.long
async def test_symbol_delisted_between_two_streamers_is_complete_to_its_last_minute(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=60, spot_symbols=(*KNOWN, "PEPEUSDT"))
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "*USDT"):
            await wait_for_rows(database_url, lambda rows: bool(minutes_of(rows, GONE)))
        away_us = minute_of(exchange.clock.now_us())
        gone = {"kind": "delisting", "market": "spot", "symbols": GONE, "at": "+150s"}
        exchange.faults.add(gone)
        while exchange.markets["spot"].status(GONE, exchange.clock.now_us()) == "TRADING":
            await asyncio.sleep(0.05)
        last_us = minute_of(exchange.clock.now_us())
        assert last_us > away_us + MINUTE_US
        async with streaming(settings, "*USDT"):
            await wait_for_rows(
                database_url,
                lambda rows: (
                    {minute for minute in minutes_of(rows, GONE) if minute >= away_us}
                    >= set(range(away_us, last_us, MINUTE_US))
                ),
            )


@pytest.mark.long
async def test_symbol_listed_between_two_streamers_is_complete_from_its_first_minute(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=60, spot_symbols=KNOWN)
    async with Exchange(config) as exchange:
        settings = settings_for(exchange, database_url)
        async with streaming(settings, "*USDT"):
            await wait_for_rows(database_url, lambda rows: bool(minutes_of(rows, KNOWN[0])))
        exchange.faults.add(
            [
                {"kind": "new_listing", "market": "spot", "symbols": name, "at": "+5s"}
                for name in (NEW, "LOSTUSDT")
            ]
        )
        spot = exchange.markets["spot"]
        async with asyncio.timeout(30):
            while {NEW, "LOSTUSDT"} - set(spot):
                await asyncio.sleep(0.02)
        first_us = {name: spot.history(name).start_us for name in (NEW, "LOSTUSDT")}
        until_us = minute_of(max(first_us.values())) + 4 * MINUTE_US
        while exchange.clock.now_us() < until_us:
            await asyncio.sleep(0.05)
        # A streamer had taken this one up, and was killed: a gap was written, and no row before it.
        missed_us = minute_of(first_us["LOSTUSDT"]) + 2 * MINUTE_US
        with psycopg.connect(database_url, autocommit=True) as connection:
            open_gap(
                connection,
                symbol="LOSTUSDT",
                start_us=missed_us,
                end_us=missed_us + MINUTE_US,
                cause="connection lost",
            )
        begins_us = {name: minute_of(at_us) for name, at_us in first_us.items()}
        async with streaming(settings, "*USDT"):
            rows = await wait_for_rows(
                database_url,
                lambda rows: all(
                    set(minutes_of(rows, name)) >= set(range(begin_us, until_us, MINUTE_US))
                    for name, begin_us in begins_us.items()
                ),
            )
        assert {name: minutes_of(rows, name)[0] for name in begins_us} == begins_us


@pytest.mark.long
async def test_missing_minutes_of_a_returning_symbol_are_repaired(
    database_url: str, tmp_path: Path
) -> None:
    """By a pattern of the file; the ledger of this very streamer knows a gap of it already."""
    names = tmp_path / "symbols.txt"
    names.write_text("BTCUSDT\nETHUSDT\n")
    config = SimulatorConfig(speed=SPEED, spot_symbols=KNOWN)
    async with Exchange(config) as exchange, asyncio.timeout(120):
        settings = settings_for(exchange, database_url)
        symbols_file = read_symbols(names)
        async with streaming(settings, *symbols_file.names, symbols_file=symbols_file) as streamer:
            rows = await wait_for_rows(
                database_url, lambda rows: len(minutes_of(rows, "ETHUSDT")) >= 6
            )
            names.write_text("BTCUSDT\n")
            streamer.reload()
            while streamer.hub.symbols != ["BTCUSDT"]:
                await asyncio.sleep(0.02)
            # What was asked for when it was dropped is answered; else that alone would be seen.
            while streamer._repairs.waiting_minutes or streamer._ledger.open:
                await asyncio.sleep(0.02)
            _, lost_us, _, unsure_us, *_ = minutes_of(rows, "ETHUSDT")
            damage(database_url, "ETHUSDT", lost_us, unsure_us)
            streamer._ledger.missed("ETHUSDT", lost_us, lost_us + MINUTE_US, "connection lost")
            while open_gaps(database_url, "ETHUSDT") == 0:
                await asyncio.sleep(0.02)
            names.write_text("BTCUSDT\nETH*\n")
            streamer.reload()
            rows = await wait_for_rows(
                database_url, lambda rows: is_verified(rows, "ETHUSDT", lost_us, unsure_us)
            )
            while open_gaps(database_url, "ETHUSDT") or streamer._ledger.open:
                await asyncio.sleep(0.02)
        await assert_equal_to_the_exchange(exchange, rows, ["ETHUSDT"])
