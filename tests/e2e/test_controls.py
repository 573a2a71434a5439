"""Keys, names and choices of the chart page in a real browser."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from include.domain.timeframes import MINUTE_US
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repairs import Repairs
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.e2e.browser import PROGRAM, Page, browsing
from tests.e2e.test_chart import LIVE, SYMBOLS, bars, streamed, text_of
from tests.integration.streamer.harness import settings_for

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(300),
]
CLOCK_START = datetime(2026, 3, 18, 15, 7, tzinfo=UTC)
HOURS_US = 180 * MINUTE_US
LEGEND = text_of("legend")


async def test_keys_names_and_choices_do_what_they_say(database_url: str) -> None:
    async with Exchange(SimulatorConfig(speed=20, clock_start=CLOCK_START)) as exchange:
        settings = settings_for(exchange, database_url, api_port=0, grpc=False)
        await asyncio.to_thread(sync_instruments, settings=settings)
        repairs = Repairs(settings, database_url)
        now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
        for symbol in SYMBOLS:
            span = (now_us - HOURS_US, now_us - 3 * MINUTE_US)
            await asyncio.to_thread(repairs.repair, symbol, *span)
        repairs.close()
        async with browsing() as page, streamed(settings) as url:
            await page.call("Emulation.setTimezoneOverride", timezoneId="Asia/Kolkata")
            await page.open(url)
            await page.until(LIVE)
            assert await page.until(bars("1m")) >= 100
            await question_mark_and_escape_work(page)
            await half_typed_names_are_not_requested(page)
            await local_time_is_shown_on_request(page)
            await own_periods_are_drawn(page)
            await unknown_symbol_leaves_no_stale_legend(page)


async def question_mark_and_escape_work(page: Page) -> None:
    is_open = "document.getElementById('{}').open"
    for key, menu in (("?", "keys"), ("s", "choices")):
        await page.run("document.activeElement.blur()")
        await page.press(key)
        await page.until(is_open.format(menu))
        await page.run("document.activeElement.blur()")
        await page.press("Escape")
        await page.until("!" + is_open.format(menu))


async def half_typed_names_are_not_requested(page: Page) -> None:
    value = "document.getElementById('symbol').value"
    await page.run("document.activeElement.blur()")
    for text in ("BTCU", "NOSUCH"):
        await page.press("/")
        await page.type(text)
        await page.until("!document.getElementById('symbols').hidden")
        if text == "NOSUCH":
            await page.press("Enter")
            await page.until(f"{text_of('symbols')}.includes('No symbol fits')")
        await page.run("document.activeElement.blur()")
        assert await page.run(value) == "BTCUSDT"
    assert not [one for one in page.requested if "NOSUCH" in one and "/search" not in one]
    assert not [one for one in page.requested if "symbol=BTCU&" in one]
    await page.press("/")
    await page.type("thusdt.p")  # only one symbol fits
    await page.press("Enter")
    assert await page.until(bars("1m", "ETHUSDT.P")) >= 100
    await page.run("location.hash = '#BTCUSDT/1m'")
    assert await page.until(bars("1m")) >= 100
    await page.until(LIVE)


async def local_time_is_shown_on_request(page: Page) -> None:
    def clock_text(offset_s: int) -> str:
        moment = f"new Date((window.candelabra.newest().time + {offset_s}) * 1000).toISOString()"
        return f"{LEGEND}.includes({moment}.slice(11, 16))"

    await page.until(clock_text(0))
    await page.press("u")
    await page.until(f"{text_of('zone')}.includes('local')")
    await page.until(clock_text(19_800))
    await page.press("u")
    await page.until(f"{text_of('zone')}.includes('UTC')")
    await page.until(clock_text(0))


async def own_periods_are_drawn(page: Page) -> None:
    for name, period in (("own_sma", 7), ("own_rsi", 9)):
        await page.run(
            f"(() => {{ const field = document.getElementById('{name}'); field.value = {period};"
            " field.dispatchEvent(new Event('change')); })()"
        )
    await page.until(rf"/SMA 7 \d+\.\d\d/.test({LEGEND}) && /RSI 9 \d+\.\d/.test({LEGEND})")


async def unknown_symbol_leaves_no_stale_legend(page: Page) -> None:
    assert await page.run(LEGEND)
    await page.run("location.hash = '#NONE/1m'")
    await page.until("!document.getElementById('trouble').hidden")
    assert await page.run(LEGEND) == ""
    assert await page.run(text_of("connection")) == "not streamed"
    await page.run("location.hash = '#BTCUSDT/1m'")
    assert await page.until(bars("1m")) >= 100
    await page.until(LIVE)
    assert "BTCUSDT" in await page.run(LEGEND)
