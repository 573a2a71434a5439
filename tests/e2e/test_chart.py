"""The chart page in a real browser, before a streamer and the simulated exchange."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from include.config import Settings
from include.domain.timeframes import DAY_US, MINUTE_US, SECOND_US, TIMEFRAMES
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repairs import Repairs
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from streamer.app import Streamer
from tests.e2e.browser import PROGRAM, Page, browsing
from tests.e2e.readable import names_of_controls, pale_texts
from tests.integration.streamer.harness import settings_for, streaming

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(600),
]
SYMBOLS = ("BTCUSDT", "ETHUSDT.P")
PICTURES = os.environ.get("PICTURES")
"""A folder for screenshots."""


CLOCK_START = datetime(2026, 3, 18, 15, 7, tzinfo=UTC)
EXPECTED = ("net::ERR_CONNECTION_REFUSED", "Error in connection establishment")
"""What a browser logs by itself while the streamer is away."""


@asynccontextmanager
async def streamed(settings: Settings) -> AsyncIterator[str]:
    """A streamer at work; where it serves."""
    async with streaming(settings, *SYMBOLS) as streamer:
        yield await url_of(streamer)


async def url_of(streamer: Streamer) -> str:
    async with asyncio.timeout(60):
        while not streamer.telemetry.api_url:
            await asyncio.sleep(0.02)
    return streamer.telemetry.api_url


async def picture(page: Page, name: str) -> None:
    if PICTURES:
        (Path(PICTURES) / f"{name}.png").write_bytes(await page.picture())


def bars(timeframe: str, symbol: str = "BTCUSDT") -> str:
    """An expression: how many bars the chart has of what it should show."""
    return (
        f"location.hash === '#{symbol}/{timeframe}' && document.getElementById('trouble').hidden"
        " && (window.candelabra?.bars() ?? 0)"
    )


LIVE = "document.getElementById('connection').dataset.state === 'live'"


def text_of(place: str) -> str:
    return f"document.getElementById('{place}').innerText"


async def choose(page: Page, text: str) -> None:
    """A symbol, as a person does: by keys."""
    await page.press("/")
    await page.type(text)
    await page.until("document.querySelectorAll('#symbols [role=option]').length === 1")
    await page.press("ArrowDown")
    assert await page.run("document.getElementById('symbol').ariaActiveDescendantElement?.id ?? ''")
    await page.press("Enter")


async def test_user_views_candles(database_url: str) -> None:
    async with Exchange(SimulatorConfig(speed=20, clock_start=CLOCK_START)) as exchange:
        settings = settings_for(exchange, database_url, api_port=0, grpc=False)
        await asyncio.to_thread(sync_instruments, settings=settings)
        repairs = Repairs(settings, database_url)
        now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
        for symbol in SYMBOLS:
            await asyncio.to_thread(repairs.repair, symbol, now_us - DAY_US, now_us - 3 * MINUTE_US)
        repairs.close()
        async with browsing() as page:
            async with streamed(settings) as url:
                await page.open(url)
                await page.until(LIVE)
                assert await page.until(bars("1m")) >= 500
                assert await page.run("document.title") == "BTCUSDT 1m · Candelabra"

                # candles change, and new ones arrive
                before = await page.run("window.candelabra.newest()")
                await page.until(f"JSON.stringify(window.candelabra.newest()) !== '{_js(before)}'")
                await page.until(f"window.candelabra.newest().time > {before['time']}")
                await page.until("document.getElementById('last')?.textContent > ''")

                # scrolling back loads older bars
                held = await page.run("window.candelabra.bars()")
                await page.run("window.candelabra.scrollBack()")
                await page.until(f"window.candelabra.bars() >= {held} + 400")
                await picture(page, "light")

                # no trades are captured, and there are no marts: the page says so
                await page.until(f"{text_of('profile-said')}.includes('first build')")

                await every_timeframe_has_a_past(page)
                await keys_lead_through_the_chart(page)

                # another symbol by name, dark by key
                theme = await page.run("document.documentElement.dataset.theme")
                await everybody_can_read(page)
                await page.press("t")
                await page.until(f"document.documentElement.dataset.theme !== '{theme}'")
                await choose(page, "ethusdt.p")
                assert await page.until(bars("1m", "ETHUSDT.P")) >= 500
                await page.until(LIVE)
                await everybody_can_read(page)
                await picture(page, "dark")
                await page.press("p")
                await page.resize(390, 800)
                await page.until("document.querySelector('#chart canvas').clientWidth <= 390")
                assert await page.run("document.documentElement.scrollWidth") <= 390
                await picture(page, "telephone")
                await page.press("s")
                await page.until("document.getElementById('choices').open")
                panel = "document.querySelector('#choices .panel').getBoundingClientRect()"
                assert await page.run(f"{panel}.left >= 0 && {panel}.right <= 390")
                await picture(page, "telephone menu")
                await page.press("s")
                await page.until("!document.getElementById('choices').open")
                await page.resize(1280, 800)

                # an unknown symbol is reported
                assert unexpected(page) == []
                await page.run("location.hash = '#NONE/1m'")
                said = await page.until(
                    "!document.getElementById('trouble').hidden"
                    " && document.getElementById('trouble').textContent"
                )
                assert "NONE" in said
                await page.run("location.hash = '#BTCUSDT/1m'")
                assert await page.until(bars("1m")) >= 500
                page.complaints.clear()

            # the streamer restarts: the page reports it, and recovers by itself
            await page.until("document.getElementById('connection').dataset.state === 'lost'")
            last = await page.run("window.candelabra.newest().time")
            port = int(url.rpartition(":")[2])
            again = settings_for(exchange, database_url, api_port=port, grpc=False)
            await asyncio.to_thread(have_marts, database_url)
            async with streamed(again):
                await page.until(LIVE)
                await page.until(f"window.candelabra.newest().time > {last}")
                await page.until("window.candelabra.holes() === 0")
                await what_marts_have_is_shown(page)
            assert {one.split("/")[2] for one in page.requested} <= {
                url.removeprefix("http://"), "",
            }  # fmt: skip
        # it may have asked just while the streamer was away
        assert set(unexpected(page)) <= {"warning: Failed to fetch"}


async def everybody_can_read(page: Page) -> None:
    """The page and its menus, by eye and by ear."""
    menus = "for (const one of document.querySelectorAll('details.menu')) one.open = {};"
    await page.run(menus.format("true"))
    assert await pale_texts(page) == []
    names = await names_of_controls(page)
    assert {"combobox", "radio", "application", "checkbox"} <= names.keys()
    assert all(all(of_role) for of_role in names.values()), names
    await picture(page, f"menus {await page.run('document.documentElement.dataset.theme')}")
    await page.run(menus.format("false") + "document.getElementById('login').showModal()")
    assert await pale_texts(page) == []
    assert (await names_of_controls(page))["textbox"] == ["Name", "Password"]
    await page.run("document.getElementById('login').close(); document.activeElement.blur()")


def have_marts(database_url: str) -> None:
    """Relations with the columns of marts that the page asks for, quicker than dbt."""
    with psycopg.connect(database_url) as connection:
        connection.execute(MARTS)


MARTS = """
CREATE SCHEMA IF NOT EXISTS marts;
CREATE TABLE marts.volume_profile_sessions AS
SELECT
    'BTCUSDT' AS symbol, date '2026-03-18' AS session, false AS is_complete,
    'the day is not over' AS reason, max(close) AS point_of_control, min(low) AS value_area_low,
    max(high) AS value_area_high, sum(volume) AS volume
FROM market.candles_1m WHERE symbol = 'BTCUSDT';
CREATE TABLE marts.volume_profile AS
SELECT
    symbol, date '2026-03-18' AS session, div(close, 10) * 10 AS price_low,
    div(close, 10) * 10 + 10 AS price_high, sum(volume) AS volume,
    sum(volume) - sum(taker_buy_volume) AS bid_volume, sum(taker_buy_volume) AS ask_volume
FROM market.candles_1m GROUP BY 1, 2, 3, 4;
CREATE TABLE marts.levels AS
SELECT
    symbol, max(high) AS all_time_high, min(low) AS all_time_low, avg(close) AS fibonacci_23_6,
    NULL::numeric AS fibonacci_38_2, NULL::numeric AS fibonacci_50, NULL::numeric AS fibonacci_61_8,
    NULL::numeric AS fibonacci_78_6
FROM market.candles_1m GROUP BY symbol;
CREATE FUNCTION marts.indicators(of_symbol text, timeframe text, f timestamptz, t timestamptz)
RETURNS TABLE (open_time timestamptz, sma_20 float8, sma_200 float8, rsi_14 float8)
LANGUAGE sql STABLE AS $$
    SELECT c.open_time, c.close::float8, NULL::float8, 50.0::float8 FROM market.candles_1m AS c
    WHERE c.symbol = of_symbol AND c.open_time >= f AND c.open_time < t
$$;
"""


async def what_marts_have_is_shown(page: Page) -> None:
    """The profile beside the candles, and lines with their values or the reason for none."""
    await page.run("document.activeElement.blur()")
    if await page.run("document.getElementById('profile').hidden"):
        await page.press("p")
    await page.until(f"{text_of('profile-said')}.includes('the day is not over')")
    await page.until("window.candelabra.painted() > 3")
    for name in ("sma_20", "sma_200", "levels"):
        await page.run(f"document.getElementById('{name}').click()")
    await page.run(
        "(() => { const field = document.getElementById('oscillator');"
        " field.value = 'rsi'; field.dispatchEvent(new Event('change')); })()"
    )
    await page.press("c")
    await page.press("Home")
    for words in (r"SMA 20 \d+\.\d\d\b", "SMA 200 warming up: from bar 200 on", r"RSI 14 50\.0\b"):
        await page.until(f"/{words}/.test({text_of('legend')})")
    await page.press("Escape")
    assert await page.run("document.getElementById('trouble').hidden")
    await picture(page, "marts")


async def every_timeframe_has_a_past(page: Page) -> None:
    """Chosen one after the other, each with the bars that a day has, in their places."""
    for name, timeframe in TIMEFRAMES.items():
        await page.run(f"document.querySelector('#timeframes input[value=\"{name}\"]').click()")
        least = 1 if timeframe.width_us is None else min(400, DAY_US // timeframe.width_us)
        await page.until(f"({bars(name)}) >= {least}")
        times = await page.run("window.candelabra.times()")
        assert times == [timeframe.open_time_us(one * SECOND_US) // SECOND_US for one in times]
        await page.until(LIVE)
    await page.run("document.querySelector('#timeframes input[value=\"1m\"]').click()")
    assert await page.until(bars("1m")) >= 500


async def keys_lead_through_the_chart(page: Page) -> None:
    """Bar by bar, each announced in words; back to the live one."""
    await page.press("c")
    assert await page.run("document.activeElement.id") == "chart"
    await page.press("Home")
    told = text_of("summary")
    await page.until(f"!{told}.includes('Newest') && {told}.includes('open')")
    oldest = await page.run(told)
    await page.press("ArrowRight")
    following = await page.until(f"{text_of('summary')} !== {_js(oldest)} && {text_of('summary')}")
    assert following.split(" UTC")[0] > oldest.split(" UTC")[0]
    await page.press("Escape")
    await page.run("document.activeElement.blur()")


def unexpected(page: Page) -> list[str]:
    """What the browser complained of, but for answers that the page expects."""
    return [
        one
        for one in page.complaints
        if not any(text in one for text in EXPECTED)
        # what only marts have, which are not built here
        and not ("status of 503" in one and "volume-profile" in one)
    ]


def _js(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
