"""Answers of many rows are made beside the event loop, whatever they are about."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest

from include.domain.candles import Candle
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from include.store.candles.bars import StoredBar
from include.store.instruments import Listing, read_listings
from include.store.trades.analytics import Rows
from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.http import context as contexts
from serving.http import formats
from serving.http.context import MAX_MAKING, MAX_ROWS_IN_LOOP, Context
from serving.http.formats import Format

FEW = 3
T0 = 1_700_000_040_000_000


def bar(index: int) -> StoredBar:
    one = Decimal("1.10")
    candle = Candle(
        "S0USDT", T0 + index * MINUTE_US, one, one, one, one, one, one, 1, one, one, index, index
    )
    return StoredBar(candle, 1)


def listing(index: int) -> Listing:
    tick = Decimal("0.01")
    return Listing(
        Instrument(f"S{index}USDT", Market.SPOT, f"S{index}", "USDT", "TRADING", tick, tick),
        0,
        None,
    )


class Tables:
    """As many rows of everything as a test wants."""

    def __init__(self) -> None:
        self.rows = 1

    async def call(self, call: Any) -> Any:
        if call is read_listings:
            return [listing(index) for index in range(self.rows)]
        if isinstance(call, partial):  # of candles: their JSON, which has to be made of rows here
            bars = [bar(index) for index in range(self.rows)], None
            return None if "cache" in call.keywords else bars
        return Rows({"day": "date", "value": "numeric"}, [(None, Decimal("1E-8"))] * self.rows)


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Those in which bodies were made."""
    found: list[threading.Thread] = []

    def noted(writer: Any, *arguments: Any) -> bytes:
        found.append(threading.current_thread())
        return writer(*arguments)

    for form, writer in list(formats._WRITERS.items()):
        monkeypatch.setitem(formats._WRITERS, form, partial(noted, writer))
    return found


@pytest.fixture
async def client(tables: Tables) -> AsyncIterator[httpx.AsyncClient]:
    history: Any = tables
    live_bars = LiveBars(
        lambda: pytest.fail("nobody listens"), lambda _symbol, _newest: ((), (), ())
    )
    app = create_app(
        live_bars,
        history,
        streamed=lambda: ["S0USDT"],
        now_us=lambda: 0,
        newest=live_bars.newest,
        condition=dict,
        prices=DayPriceCache(history, streamed=list, newest=live_bars.newest, now_us=lambda: 0),
        requests_per_minute=1_000,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here/api/v1") as found:
        yield found


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize(
    "path", ["/candles?symbol=S0USDT&limit=5000", "/symbols", "/symbols/S0USDT/coverage"]
)
async def test_many_rows_are_encoded_in_a_thread_and_few_in_the_loop(
    client: httpx.AsyncClient,
    tables: Tables,
    threads: list[threading.Thread],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    form: Format,
) -> None:
    tables.rows = FEW
    bodies = []
    for most in (FEW, FEW - 1):
        monkeypatch.setattr(contexts, "MAX_ROWS_IN_LOOP", most)
        answer = (await client.get(path, headers={"accept": form.value})).raise_for_status()
        assert answer.headers["content-type"].startswith(form.value)
        bodies.append(answer.content)
    assert bodies[0] == bodies[1]
    here = threading.current_thread()
    assert [one is here for one in threads] == [True, False]


async def test_concurrent_encodings_are_bounded_and_errors_reach_their_caller() -> None:
    live_bars: Any = None
    context = Context(
        live_bars, live_bars, list, lambda: 0, live_bars, dict, live_bars, lambda: 0.0
    )
    under_way = max_under_way = 0
    lock, go_on = threading.Lock(), threading.Event()

    def make() -> None:
        nonlocal under_way, max_under_way
        with lock:
            under_way += 1
            max_under_way = max(under_way, max_under_way)
        assert go_on.wait(30)
        with lock:
            under_way -= 1

    rows = MAX_ROWS_IN_LOOP + 1
    asking = [asyncio.create_task(context.made(make, rows=rows)) for _ in range(4 * MAX_MAKING)]
    async with asyncio.timeout(30):
        while under_way < MAX_MAKING:
            await asyncio.sleep(0.001)
        go_on.set()
        await asyncio.gather(*asking)
        assert max_under_way == MAX_MAKING
        with pytest.raises(ZeroDivisionError):
            await context.made(lambda: 1 // 0, rows=rows)
