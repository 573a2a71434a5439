"""The metrics of a separate server, as Prometheus reads them and as they are documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.metrics import SERVING_METRICS
from streamer.hub.trade_hub import TickHubs

ROOT = Path(__file__).parents[3]


class Source:
    """A source that can be cut off."""

    status = "well"
    disconnects = 0


def client_of(source: Source, ticks: TickHubs, *, is_remote: bool) -> httpx.AsyncClient:
    nothing: Any = None
    live_bars = LiveBars(lambda: nothing, lambda _symbol, _newest: ((), (), ()))
    app = create_app(
        live_bars,
        nothing,
        streamed=lambda: ["BTCUSDT", "ETHUSDT"],
        now_us=lambda: 0,
        newest=live_bars.newest,
        condition=lambda: {"status": source.status},
        statistics=lambda: {"disconnects": source.disconnects},
        prices=DayPriceCache(nothing, streamed=list, newest=live_bars.newest, now_us=lambda: 0),
        ticks=ticks,
        is_remote=is_remote,
        requests_per_minute=1_000,
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


@pytest.fixture
def source() -> Source:
    return Source()


async def scraped(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    answer = (await client.get("/metrics")).raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_separate_server_counts_its_source_readers_and_requests(source: Source) -> None:
    ticks = TickHubs()
    async with client_of(source, ticks, is_remote=True) as client:
        before = await scraped(client)
        assert before["candelabra_serving_source_up",] == 1
        assert before["candelabra_serving_symbols",] == 2
        assert before["process_resident_memory_bytes",] > 0
        source.status, source.disconnects = "ailing", 3
        assert (await client.get("/api/v1/health")).status_code == 200
        assert (await client.get("/nowhere")).status_code == 404
        with ticks.trades.subscribe(["BTCUSDT"]):
            after = await scraped(client)
        assert after["candelabra_serving_source_up",] == 0
        assert after["candelabra_serving_source_disconnects_total",] == 3
        assert after["candelabra_serving_subscriptions", "trades"] == 1
        assert after["candelabra_serving_requests_total", "2xx"] == 2
        assert after["candelabra_serving_requests_total", "4xx"] == 1
        names = {name.removesuffix("_total") for name, *_ in after}
        assert names >= SERVING_METRICS.keys()


async def test_streamer_has_no_second_metrics_beside_its_api(source: Source) -> None:
    async with client_of(source, TickHubs(), is_remote=False) as client:
        assert (await client.get("/metrics")).status_code == 404


def test_serving_page_has_a_row_for_each_metric() -> None:
    rows = re.findall(
        r"^\| `(candelabra_serving_\w+)` \| (\w+) \|(.*?)\| (.*) \|$",
        (ROOT / "docs" / "serving.md").read_text(),
        re.MULTILINE,
    )
    found = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in rows
    }
    assert found == {
        name: (one.kind, one.labels, one.meaning) for name, one in SERVING_METRICS.items()
    }
