"""The description of the REST API in a real browser."""

from __future__ import annotations

import asyncio

import pytest

from simulator.config import SimulatorConfig
from simulator.server import Exchange
from tests.e2e.browser import PROGRAM, browsing
from tests.integration.streamer.harness import settings_for, streaming

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.timeout(300),
]
ROWS = "[...document.querySelectorAll('.opblock-summary-path')].map((one) => one.dataset.path)"
SYMBOLS = "document.querySelector('[data-path=\"/api/v1/symbols\"]').closest('button')"
IS_RESOLVED = "!!ui.specSelectors.specResolvedSubtree(['paths', '/api/v1/symbols', 'get'])"
"""A click before breaks that request for good (OperationNotFoundError of Swagger UI)."""
SEND = "document.querySelector('.opblock.is-open .execute')"


async def test_each_request_is_shown_and_can_be_sent(database_url: str) -> None:
    async with Exchange(SimulatorConfig(speed=20)) as exchange:
        settings = settings_for(exchange, database_url, api_port=0, grpc=False)
        async with streaming(settings, "BTCUSDT") as streamer, browsing() as page:
            async with asyncio.timeout(60):
                while not streamer.telemetry.api_url:
                    await asyncio.sleep(0.02)
            await page.open(f"{streamer.telemetry.api_url}/api/v1/docs")
            await page.until(f"{ROWS}.length > 20")
            shown = await page.run(ROWS)
            assert {"/api/v1/candles", "/api/v1/prices", "/udf/history"} <= set(shown)
            await page.run(f"{SYMBOLS}.click()")
            await page.until(f"!!{SEND} && {IS_RESOLVED}")
            await page.run(f"{SEND}.click()")
            await page.until(
                "[...document.querySelectorAll('.live-responses-table .response-col_status')]"
                ".some((one) => one.textContent.startsWith('200'))"
            )
