"""Kept trades by REST, before a table that a test plays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from include.store.trades.captured import RAW_TABLES, RawTable
from include.store.trades.pages import StoredTrade, TradePage
from serving.app import create_app
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.http import context as contexts
from serving.http.routes import trades as module

AT = datetime(2026, 11, 21, 17, 0, 0, 123_000, tzinfo=UTC)
DAY = AT.date()


def trade(number: int) -> StoredTrade:
    return StoredTrade(
        number, Decimal("1E-8"), Decimal("0.10"), number * 2, number * 2 + 1, AT, True
    )


class Table:
    """What is kept, and what was asked for."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.asked: list[tuple[str, str, int, int | None, int, int]] = []

    def read(
        self,
        _connection: Any,
        table: RawTable,
        symbol: str,
        from_id: int,
        to_id: int | None,
        *,
        limit: int,
        since_us: int,
    ) -> TradePage | None:
        self.asked.append((table.name, symbol, from_id, to_id, limit, since_us))
        if not self.ids:
            return None
        found = [one for one in self.ids if from_id <= one <= (to_id or self.ids[-1])]
        further = found[limit] if len(found) > limit else None
        return TradePage(
            [trade(one) for one in found[:limit]], further,
            self.ids[0], date(2026, 11, 1), self.ids[-1], DAY,
        )  # fmt: skip


class History:
    async def call(self, call: Callable[[Any], Any]) -> Any:
        return call(None)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    found = Table()
    monkeypatch.setattr(module, "read_trades", found.read)
    monkeypatch.setattr(module, "listed_from_us", lambda _connection, _symbol: 7)
    monkeypatch.setattr(contexts, "read_listings", lambda _connection: [])
    return found


@pytest.fixture
async def client(table: Table) -> AsyncIterator[httpx.AsyncClient]:
    history: Any = History()
    live_bars = LiveBars(
        lambda: pytest.fail("nobody listens"), lambda _symbol, _newest: ((), (), ())
    )
    prices = DayPriceCache(history, streamed=list, newest=live_bars.newest, now_us=lambda: 0)
    app = create_app(
        live_bars,
        history,
        streamed=lambda: ["BTCUSDT", "ETHUSDT.P"],
        now_us=lambda: 0,
        newest=live_bars.newest,
        condition=dict,
        prices=prices,
        requests_per_minute=1_000,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here/api/v1") as found:
        yield found


async def test_trades_are_ordered_by_id_with_decimals_as_text(
    client: httpx.AsyncClient, table: Table
) -> None:
    table.ids = [3, 4, 5]
    answer = await client.get("/trades?symbol=BTCUSDT&from_id=4")
    assert answer.json() == {
        "trades": [
            {
                "symbol": "BTCUSDT",
                "id": number,
                "price": "0.00000001",
                "quantity": "0.10",
                "time": "2026-11-21T17:00:00.123000Z",
                "is_buyer_maker": True,
                "first_trade_id": number * 2,
                "last_trade_id": number * 2 + 1,
            }
            for number in (4, 5)
        ],
        "next_cursor": None,
        "kept": {"first_id": 3, "last_id": 5},
    }
    assert table.asked == [("agg_trades", "BTCUSDT", 4, None, module.DEFAULT_LIMIT, 7)]
    assert answer.headers["cache-control"] == "no-cache"  # there will be more
    single = await client.get("/trades?symbol=ETHUSDT.P&from_id=9&kind=trades")
    assert (single.json()["trades"], table.asked[-1][0]) == ([], "trades")


async def test_pages_follow_one_another_by_their_cursor(
    client: httpx.AsyncClient, table: Table
) -> None:
    table.ids = [1, 2, 4, 5, 9]
    asked: dict[str, Any] = {"symbol": "BTCUSDT", "from_id": 2, "to_id": 8, "limit": 2}
    first = (await client.get("/trades", params=asked)).json()
    asked["cursor"] = first["next_cursor"]
    second = (await client.get("/trades", params=asked)).json()
    assert [one["id"] for one in first["trades"] + second["trades"]] == [2, 4, 5]
    assert second["next_cursor"] is None
    del asked["cursor"]
    as_csv = await client.get("/trades", params=asked, headers={"accept": "text/csv"})
    assert as_csv.headers["x-next-cursor"] == first["next_cursor"]
    assert as_csv.text.splitlines()[1].startswith("BTCUSDT,2,0.00000001,0.10,")


async def test_complete_range_is_cacheable(client: httpx.AsyncClient, table: Table) -> None:
    table.ids = [1, 2, 3, 5]
    whole = await client.get("/trades?symbol=BTCUSDT&from_id=1&to_id=3")
    assert whole.headers["cache-control"] == f"public, max-age={module.WHOLE_FOR_S}"
    with_hole = await client.get("/trades?symbol=BTCUSDT&from_id=1&to_id=5")
    assert with_hole.headers["cache-control"] == "no-cache"
    again = await client.get(
        "/trades?symbol=BTCUSDT&from_id=1&to_id=3", headers={"if-none-match": whole.headers["etag"]}
    )
    assert again.status_code == 304


async def test_missing_trades_say_which_setting_or_range_has_them(
    client: httpx.AsyncClient, table: Table
) -> None:
    answer = await client.get("/trades?symbol=BTCUSDT&from_id=1&kind=trades")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    for part in ("BTCUSDT", "market.trades", "CAPTURE=trades", "--kind trades --keep-raw"):
        assert part in answer.json()["detail"]
    table.ids = [100, 200]
    answer = await client.get("/trades?symbol=BTCUSDT&from_id=5&to_id=9")
    assert answer.status_code == 404
    detail = answer.json()["detail"]
    assert "5 to 9 of BTCUSDT" in detail
    assert "market.agg_trades has 100 (2026-11-01) to 200 (2026-11-21)" in detail
    behind = await client.get("/trades?symbol=BTCUSDT&from_id=201")
    assert (behind.status_code, behind.json()["trades"]) == (200, [])


@pytest.mark.parametrize(
    ("query", "status", "part"),
    [
        ("symbol=BTCUSDT", 400, "from_id"),
        ("from_id=1", 400, "symbol"),
        ("symbol=NONE&from_id=1", 404, "NONE"),
        ("symbol=BTCUSDT&from_id=-1", 400, "from_id"),
        (f"symbol=BTCUSDT&from_id={2**63}", 400, "from_id"),
        ("symbol=BTCUSDT&from_id=x", 400, "from_id"),
        ("symbol=BTCUSDT&from_id=9&to_id=8", 400, "to_id"),
        ("symbol=BTCUSDT&from_id=1&limit=0", 400, "limit"),
        (f"symbol=BTCUSDT&from_id=1&limit={module.MAX_LIMIT + 1}", 400, "limit"),
        ("symbol=BTCUSDT&from_id=1&kind=klines", 400, "kind"),
        ("symbol=BTCUSDT&from_id=1&cursor=nonsense", 400, "cursor"),
        ("symbol=BTCUSDT&from_id=9&cursor=MQ", 400, "cursor"),  # of page 1
        ("symbol=BTCUSDT,ETHUSDT.P&from_id=1", 400, "symbol"),
    ],
)
async def test_invalid_requests_are_problems(
    client: httpx.AsyncClient, table: Table, query: str, status: int, part: str
) -> None:
    table.ids = [1]
    answer = await client.get(f"/trades?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert part in answer.json()["detail"]


def test_each_kind_has_a_table() -> None:
    assert {RAW_TABLES[one].name for one in module.Kind} == {"agg_trades", "trades"}
