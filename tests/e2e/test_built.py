"""The picture of the docs: the chart page with marts built by dbt.

Taken if PICTURES names a folder; test_chart.py tests the page faster.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from deploy.local.postgres import EmbeddedPostgres
from include.config import Settings
from include.domain.timeframes import HOUR_US, MINUTE_US, to_us
from include.jobs.dbt_env import dbt_environment
from include.jobs.instruments import sync_instruments
from include.jobs.klines.repairs import Repairs
from include.jobs.trades.dumps import load_trade_dump
from include.jobs.trades.planning import plan_trade_dumps
from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.e2e.browser import PROGRAM, Page, browsing
from tests.integration.streamer.harness import settings_for, streaming

PICTURES = os.environ.get("PICTURES")
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(not PICTURES, reason="takes a picture; set PICTURES to a folder"),
    pytest.mark.timeout(1_200),
]
MIDNIGHT = datetime(2026, 3, 18, tzinfo=UTC)
HOURS = 24
"""The day with captured trades: the day before."""
AFTER = timedelta(hours=2, minutes=37)
MARTS = ("+volume_profile_sessions", "+volume_profile", "+levels", "+indicators", "candles_5m_live")


@pytest.fixture
def candelabra_dbt_url(postgres: EmbeddedPostgres, database_url: str) -> str:
    """The test's database, as the role that may write marts and nothing else."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("ALTER ROLE candelabra_dbt PASSWORD 'marts'")
    return postgres.url(database_url.rsplit("/", 1)[1], user="candelabra_dbt", password="marts")


@pytest.fixture
def build(candelabra_dbt_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dbt_environment(candelabra_dbt_url, home=tmp_path).items():
        monkeypatch.setenv(name, value)


def fill(settings: Settings, now_us: int) -> None:
    """Minutes until a moment ago, trades of the day before, and the marts of them."""
    from dbt.cli.main import dbtRunner  # takes seconds, which a skipped test saves

    sync_instruments(settings=settings)
    repairs = Repairs(settings, settings.database_url)
    repairs.repair("BTCUSDT", to_us(MIDNIGHT) - HOURS * HOUR_US, now_us)
    repairs.close()
    plan = plan_trade_dumps(
        settings=settings, symbols="BTCUSDT", market="spot", kind="agg_trades",
        start=to_us(MIDNIGHT) - HOURS * HOUR_US, end=to_us(MIDNIGHT), keep_raw=True,
    )  # fmt: skip
    for piece in plan.pieces:
        load_trade_dump(settings=settings, piece=piece)
    answer = dbtRunner().invoke(["run", "--quiet", "--no-use-colors", "--select", *MARTS])
    assert answer.success, answer.exception or [
        (one.node.name, one.message) for one in answer.result if one.status == "error"
    ]


@pytest.mark.usefixtures("build")
async def test_page_shows_mart_data_beside_the_candles(database_url: str) -> None:
    config = SimulatorConfig(
        speed=10, clock_start=MIDNIGHT + AFTER, start=MIDNIGHT - timedelta(hours=HOURS)
    )
    async with Exchange(config) as exchange:
        settings = settings_for(
            exchange, database_url, api_port=0, grpc=False,
            binance_dump_list_url=exchange.dump_url,
        )  # fmt: skip
        now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
        await asyncio.to_thread(fill, settings, now_us - 2 * MINUTE_US)
        async with streaming(settings, "BTCUSDT") as streamer, browsing() as page:
            async with asyncio.timeout(30):
                while not streamer.telemetry.api_url:
                    await asyncio.sleep(0.02)
            await page.open(f"{streamer.health.telemetry.api_url}/#BTCUSDT/5m")
            await page.until("document.getElementById('connection').dataset.state === 'live'")

            # the newest day with trades is drawn beside the chart
            said = "document.getElementById('profile-said').innerText"
            await page.until(f"{said}.includes('2026-03-17')")
            await page.until("window.candelabra.painted() > 5")

            # indicators say their values, or that they warm up
            for name in ("sma_20", "sma_200", "bollinger", "levels"):
                await page.run(f"document.getElementById('{name}').click()")
            await page.run(
                "(() => { const field = document.getElementById('oscillator');"
                " field.value = 'rsi'; field.dispatchEvent(new Event('change')); })()"
            )
            legend = "document.getElementById('legend').innerText"
            await page.until(f"/SMA 20 \\d+\\.\\d\\d/.test({legend})")
            await page.until(f"/RSI 14 \\d+\\.\\d/.test({legend})")
            assert await page.run("document.getElementById('trouble').hidden")
            assert page.complaints == []
            await picture(page)


async def picture(page: Page) -> None:
    """As the docs show it: dark, without what was chosen for the test alone."""
    for name in ("levels", "sma_20"):
        await page.run(f"document.getElementById('{name}').click()")
    if await page.run("document.documentElement.dataset.theme") == "light":
        await page.press("t")
    await page.press("Escape")
    await page.run("document.activeElement.blur()")
    await page.resize(1200, 720)
    await page.until("document.querySelector('#profile canvas').clientWidth > 0")
    await asyncio.sleep(1)  # the chart scales once more after its size
    await asyncio.to_thread((Path(PICTURES or ".") / "chart.png").write_bytes, await page.picture())
