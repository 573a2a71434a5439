"""The chart page where an account is required, in a real browser."""

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
from include.store.accounts.users import add_user, end_sessions, password_of
from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.e2e.browser import PROGRAM, Page, browsing
from tests.e2e.readable import names_of_controls, pale_texts
from tests.integration.streamer.harness import settings_for, streaming

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]
CLOCK_START = datetime(2026, 3, 18, 15, 7, tzinfo=UTC)
PASSWORD = "correct horse"
LOGIN_OPEN = "document.getElementById('login')?.open"
ACCOUNT = "document.getElementById('account')"
LIVE = "document.getElementById('connection')?.dataset.state === 'live'"


async def log_in(page: Page, password: str) -> None:
    await page.until(LOGIN_OPEN)
    await page.run(
        "(() => { const {name, password} = document.querySelector('#login form').elements;"
        f" [name.value, password.value] = ['anna', '{password}'];"
        " document.querySelector('#login button').click(); })()"
    )


def have_anna(database_url: str) -> int:
    """Her number."""
    with connect(database_url, application_name="test") as connection:
        hash_ = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        add_user(connection, "anna", hash_, Role.READER)
        found = password_of(connection, "anna")
    assert found is not None
    return found.user_id


async def test_user_logs_in_and_out_and_is_logged_out(database_url: str) -> None:
    have_anna(database_url)
    async with Exchange(SimulatorConfig(speed=20, clock_start=CLOCK_START)) as exchange:
        settings = settings_for(
            exchange, database_url, api_port=0, grpc=False,
            auth_required=True, accounts_database_url=database_url,
        )  # fmt: skip
        await asyncio.to_thread(sync_instruments, settings=settings)
        repairs = Repairs(settings, database_url)
        now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
        await asyncio.to_thread(
            repairs.repair, "BTCUSDT", now_us - 60 * MINUTE_US, now_us - 3 * MINUTE_US
        )
        repairs.close()
        async with streaming(settings, "BTCUSDT") as streamer, browsing() as page:
            async with asyncio.timeout(60):
                while not streamer.telemetry.api_url:
                    await asyncio.sleep(0.02)
            await page.open(streamer.telemetry.api_url)

            # nothing without a login, and a wrong one is said to be wrong
            await page.until(LOGIN_OPEN)
            assert await page.run("window.candelabra.bars()") == 0
            await log_in(page, "wrong")
            await page.until("document.querySelector('#login [role=alert]').textContent > ''")
            await log_in(page, PASSWORD)
            await page.until(f"!{LOGIN_OPEN} && {LIVE} && window.candelabra.bars() > 50")

            # another visit needs no login
            await page.call("Page.reload")
            await page.until(f"{LIVE} && window.candelabra?.bars() > 50")
            assert not await page.run(LOGIN_OPEN)

            # logged out by the button, and because the session was ended elsewhere
            await page.until("!document.getElementById('account').hidden")
            await page.run("document.getElementById('account').click()")
            await log_in(page, PASSWORD)
            await page.until(f"!{LOGIN_OPEN} && {LIVE}")
            with connect(database_url, application_name="test") as connection:
                end_sessions(connection, "anna")
            await page.until(LOGIN_OPEN)
            asked_in_vain = ("401", "/api/v1/ws", "volume-profile")  # unknown there; of marts alone
            said = [one for one in page.complaints if not any(it in one for it in asked_in_vain)]
            assert said == []


async def test_optional_login_adds_the_star(database_url: str) -> None:
    anna = have_anna(database_url)
    async with Exchange(SimulatorConfig(speed=20, clock_start=CLOCK_START)) as exchange:
        settings = settings_for(
            exchange, database_url, api_port=0, grpc=False, accounts_database_url=database_url
        )
        async with streaming(settings, "BTCUSDT") as streamer, browsing() as page:
            async with asyncio.timeout(60):
                while not streamer.telemetry.api_url:
                    await asyncio.sleep(0.02)
            await page.open(streamer.telemetry.api_url)
            await page.until(f"{LIVE} && !{ACCOUNT}.hidden")
            assert await page.run(f"{ACCOUNT}.textContent") == "Log in"
            assert await page.run("document.getElementById('star').hidden")

            # the form is left again, by key or by the button, and a telephone has room
            await page.resize(375, 700)
            assert await page.run("document.documentElement.scrollWidth") <= 375
            await page.run(f"{ACCOUNT}.click()")
            await page.until(LOGIN_OPEN)
            assert await pale_texts(page) == []
            assert (await names_of_controls(page))["button"][-2:] == ["Log in", "Not now"]
            await page.press("Escape")
            await page.until(f"!{LOGIN_OPEN}")
            await page.run(f"{ACCOUNT}.click()")
            await page.run("document.querySelector('#login button[type=button]').click()")
            assert not await page.run(LOGIN_OPEN)

            # a wrong password removes nothing
            await page.run(f"{ACCOUNT}.click()")
            await log_in(page, "wrong")
            await page.until("document.querySelector('#login [role=alert]').textContent > ''")
            assert await page.run(LIVE)
            assert not await page.run("document.querySelector('#login button[type=button]').hidden")
            await log_in(page, PASSWORD)
            await page.until(f"!{LOGIN_OPEN} && {LIVE} && !document.getElementById('star').hidden")
            assert await page.run(f"{ACCOUNT}.textContent") == "Log out"
            assert await page.run("document.documentElement.scrollWidth") <= 375

            # the connection is hers
            with connect(database_url, application_name="test") as connection:
                watchlists.watch(connection, anna, "BTCUSDT")
            await page.until("document.getElementById('star').ariaPressed === 'true'")
