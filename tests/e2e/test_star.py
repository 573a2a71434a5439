"""The star of the chart page, in a real browser: a symbol goes on the watchlist and off it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from argon2 import PasswordHasher

from include.domain.accounts import Role
from include.domain.timeframes import MINUTE_US
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repairs import Repairs
from include.store.accounts import watchlists
from include.store.accounts.users import add_user, password_of
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.e2e.browser import PROGRAM, Page, browsing
from tests.e2e.readable import names_of_controls, pale_texts
from tests.e2e.test_chart import picture
from tests.e2e.test_login import LIVE, LOGIN_OPEN, PASSWORD, log_in
from tests.integration.streamer.harness import settings_for, streaming

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]
CLOCK_START = datetime(2026, 3, 18, 15, 7, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
CONNECTION = "document.getElementById('connection').dataset.state"
STAR = "document.getElementById('star')"
SILENT_LIST = """
const real = window.fetch;
window.fetch = (path, ...more) =>
  path === "/api/v1/watchlist" ? new Promise(() => {}) : real(path, ...more);
"""
NO_REFRESH_S = 3_600.0
"""Interval of reading the exchange's list: changes here arrive by notification."""


def watched(database_url: str, user_id: int) -> set[str]:
    with connect(database_url, application_name="test") as connection:
        return {symbol for symbol, _ in watchlists.watchlist(connection, user_id)}


async def until_watched(database_url: str, user_id: int, symbols: set[str]) -> None:
    async with asyncio.timeout(60):
        while watched(database_url, user_id) != symbols:
            await asyncio.sleep(0.05)


async def until_pressed(page: Page, symbol: str, *, is_on: bool) -> None:
    await page.until(
        f"{STAR}.ariaLabel === '{symbol} on the watchlist'"
        f" && {STAR}.ariaPressed === '{str(is_on).lower()}'"
    )


async def test_star_adds_a_symbol_to_the_watchlist(
    database_url: str,
) -> None:
    with connect(database_url, application_name="test") as connection:
        hash_ = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        add_user(connection, "anna", hash_, Role.READER)
        found = password_of(connection, "anna")
    assert found is not None
    anna = found.user_id
    config = SimulatorConfig(speed=20, clock_start=CLOCK_START, spot_symbols=SYMBOLS)
    async with Exchange(config) as exchange:
        settings = settings_for(
            exchange, database_url, api_port=0, grpc=False, symbols_refresh_s=NO_REFRESH_S,
            auth_required=True, accounts_database_url=database_url,
        )  # fmt: skip
        await asyncio.to_thread(sync_instruments, settings=settings)
        repairs = Repairs(settings, database_url)
        now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
        for symbol in SYMBOLS:
            await asyncio.to_thread(
                repairs.repair, symbol, now_us - 60 * MINUTE_US, now_us - 3 * MINUTE_US
            )
        repairs.close()
        async with streaming(settings, "BTCUSDT") as streamer, browsing() as page:
            async with asyncio.timeout(60):
                while not streamer.telemetry.api_url:
                    await asyncio.sleep(0.02)
            await page.open(streamer.telemetry.api_url)
            await page.until(LOGIN_OPEN)
            assert await page.run(f"{STAR}.hidden")  # there is no watchlist
            await log_in(page, PASSWORD)
            await page.until(f"!{LOGIN_OPEN} && {LIVE} && window.candelabra.bars() > 50")

            # on by a click, off by key, each of it kept
            await page.until(f"!{STAR}.hidden")
            await until_pressed(page, "BTCUSDT", is_on=False)
            await page.run(f"{STAR}.click()")
            await until_pressed(page, "BTCUSDT", is_on=True)
            await until_watched(database_url, anna, {"BTCUSDT"})
            await page.until("document.getElementById('summary').innerText.includes('is on your')")

            # the panel has it with its price, and leads to it
            panel = "document.getElementById('watchlist')"
            await page.run(f"{panel}.querySelector('summary').click()")
            await page.until(f"/BTCUSDT[\\s\\S]*[0-9] %/.test({panel}.innerText)")
            await page.run("location.hash = '#BTCUSDT/5m'")
            await page.until("document.title.startsWith('BTCUSDT 5m')")
            assert await pale_texts(page) == []
            await page.run(f"{panel}.querySelector('li button').click()")
            await page.until(f"!{panel}.open")
            await page.run("location.hash = '#BTCUSDT/1m'")
            await page.until(f"{LIVE} && window.candelabra.bars() > 50")

            assert await pale_texts(page) == []
            assert "BTCUSDT on the watchlist" in (await names_of_controls(page))["button"]
            await page.press("w")
            await until_pressed(page, "BTCUSDT", is_on=False)
            await until_watched(database_url, anna, set())
            await page.until("document.getElementById('summary').innerText.includes('no longer')")

            # what is changed elsewhere is shown here, and after another visit; the chart waits
            # for no list
            with connect(database_url, application_name="test") as connection:
                watchlists.watch(connection, anna, "BTCUSDT")
            await until_pressed(page, "BTCUSDT", is_on=True)
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=SILENT_LIST)
            await page.call("Page.reload")
            await page.until(f"{LIVE} && window.candelabra?.bars() > 50")
            await until_pressed(page, "BTCUSDT", is_on=True)

            # another symbol has its own; with it, it begins to be streamed
            await page.resize(375, 700)
            assert await page.run("document.documentElement.scrollWidth") <= 375
            await picture(page, "star")
            name = "document.getElementById('symbol')"  # all of it is to be seen
            assert await page.run(f"{name}.scrollWidth <= {name}.clientWidth")
            await page.resize(1280, 800)
            await page.run("location.hash = '#ETHUSDT/1m'")
            await page.until(f"{CONNECTION} === 'not streamed'")
            await until_pressed(page, "ETHUSDT", is_on=False)
            await page.press("w")
            await until_pressed(page, "ETHUSDT", is_on=True)
            await page.until(LIVE)
            last = await page.run("window.candelabra.newest().time")
            await page.until(f"window.candelabra.newest().time > {last}")
            await until_watched(database_url, anna, set(SYMBOLS))

            # removed from it, the symbol is no longer streamed, and the page says so
            await page.press("w")
            await page.until(f"{CONNECTION} === 'not streamed'")
            await page.press("w")
            await page.until(LIVE)
            last = await page.run("window.candelabra.newest().time")
            await page.until(f"window.candelabra.newest().time > {last}")
            asked_in_vain = ("401", "404", "/api/v1/ws", "volume-profile")
            said = [one for one in page.complaints if not any(it in one for it in asked_in_vain)]
            assert said == []
