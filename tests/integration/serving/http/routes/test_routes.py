"""REST as a client sees it, before a database with a few minutes in it."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import polars as pl
import pytest

from include.domain.candles import CandleCandidate, Source, Status
from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect
from serving.http import response_cache as kept
from tests.integration.serving.http.api_client import (
    NOW_US,
    ROWS,
    SYMBOLS,
    T0,
    api_client,
    api_client_of,
    application,
    candle,
)


@pytest.fixture
def no_version_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request has PostgreSQL asked whether what is kept still holds."""
    monkeypatch.setattr(kept, "VERSION_TTL_S", 0.0)


def closes(answer: httpx.Response) -> list[str]:
    return [one["close"] for one in answer.raise_for_status().json()["candles"]]


async def test_newest_candles_are_returned_oldest_first(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        answer = await client.get("/api/v1/candles", params={"symbol": "BTCUSDT", "limit": 2})
        assert closes(answer) == ["5.10", "6.10"]
        (_, last) = answer.json()["candles"]
        assert last == {
            "symbol": "BTCUSDT",
            "timeframe": "1m",
            "open_time": from_us(T0 + 5 * MINUTE_US).isoformat().replace("+00:00", "Z"),
            "open": "6.10",
            "high": "7.10",
            "low": "6.10",
            "close": "6.10",
            "volume": "0.00000001",
            "quote_volume": "0.10",
            "trade_count": 1,
            "taker_buy_volume": "0",
            "taker_buy_quote_volume": "0",
            "first_trade_id": 5,
            "last_trade_id": 5,
            "minute_count": 1,
            "is_closed": True,
            "status": "verified",
            "source": "rest",
        }
        assert answer.json()["next_cursor"] is None
        assert answer.headers["cache-control"] == "no-cache"


async def test_pages_of_several_symbols_follow_one_another(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        found: list[tuple[str, str]] = []
        asked: dict[str, Any] = {"symbol": ",".join(SYMBOLS), "from": T0 // 1_000, "limit": 4}
        for _ in range(10):
            answer = (await client.get("/api/v1/candles", params=asked)).raise_for_status().json()
            found += [(one["symbol"], one["close"]) for one in answer["candles"]]
            if answer["next_cursor"] is None:
                break
            asked["cursor"] = answer["next_cursor"]
        assert found == [(symbol, f"{index + 1}.10") for symbol in SYMBOLS for index in range(ROWS)]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (str((T0 + MINUTE_US) // 1_000), str((T0 + 3 * MINUTE_US) // 1_000)),
        (from_us(T0 + MINUTE_US).isoformat(), from_us(T0 + 3 * MINUTE_US).isoformat()),
        (
            from_us(T0 + MINUTE_US).isoformat().replace("+00:00", "Z"),
            from_us(T0 + 3 * MINUTE_US).replace(tzinfo=None).isoformat(),
        ),
    ],
)
async def test_times_are_iso_or_milliseconds(stored_url: str, start: str, end: str) -> None:
    async with api_client(stored_url) as client:
        answer = await client.get(
            "/api/v1/candles", params={"symbol": "BTCUSDT", "from": start, "to": end}
        )
        assert closes(answer) == ["2.10", "3.10"]


@pytest.mark.usefixtures("no_version_cache")
async def test_past_range_is_cacheable_and_revalidated_by_its_tag(
    stored_url: str,
) -> None:
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT", "from": T0 // 1_000, "to": T0 // 1_000 + 120_000}
        answer = await client.get("/api/v1/candles", params=asked)
        assert answer.headers["cache-control"] == "public, max-age=60"
        again = await client.get(
            "/api/v1/candles", params=asked, headers={"if-none-match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        with connect(stored_url, application_name="test") as connection:
            later = replace(candle("BTCUSDT", 0), volume=Decimal(2))
            merge_candidates(
                connection,
                [CandleCandidate(later, Status.VERIFIED, Source.REST, evidence_at_us=NOW_US + 1)],
            )
        changed = await client.get(
            "/api/v1/candles", params=asked, headers={"if-none-match": answer.headers["etag"]}
        )
        assert changed.status_code == 200
        assert changed.json()["candles"][0]["volume"] == "2"


async def test_cached_answer_is_reused_for_at_most_a_second(
    stored_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with application(stored_url) as app, api_client_of(app) as client:
        asked = {"symbol": "BTCUSDT", "from": T0 // 1_000, "to": T0 // 1_000 + 240_000}
        first, second = [await client.get("/api/v1/candles", params=asked) for _ in range(2)]
        with connect(stored_url, application_name="test") as connection:
            mended = replace(candle("BTCUSDT", 1), close=Decimal("9.10"), high=Decimal("9.10"))
            offer = CandleCandidate(mended, Status.VERIFIED, Source.REST, evidence_at_us=NOW_US + 1)
            merge_candidates(connection, [offer])
        async with asyncio.timeout(10):
            while (again := await client.get("/api/v1/candles", params=asked)).text == second.text:
                await asyncio.sleep(0.05)
        assert second.text == first.text
        assert closes(again)[1] == "9.10"
        # those that may change any moment are never answered so
        monkeypatch.setattr(app.state.context.response_cache, "at_hand", pytest.fail)
        running = asked | {"to": NOW_US // 1_000}
        assert (await client.get("/api/v1/candles", params=running)).status_code == 200


@pytest.mark.usefixtures("no_version_cache")
async def test_cached_answer_equals_the_table(stored_url: str) -> None:
    async with application(stored_url) as app, api_client_of(app) as client:
        asked = {"symbol": "BTCUSDT", "from": T0 // 1_000, "to": T0 // 1_000 + 240_000, "limit": 2}

        async def ask(**further: str) -> httpx.Response:
            return (await client.get("/api/v1/candles", params=asked | further)).raise_for_status()

        first = await ask()
        for _ in range(3):
            again = await ask()
            assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
        assert len(app.state.context.response_cache) == 1
        assert first.json()["next_cursor"] is not None
        rest = [await ask(cursor=first.json()["next_cursor"]) for _ in range(3)]
        assert [closes(one) for one in rest] == [["3.10", "4.10"]] * 3
        with connect(stored_url, application_name="test") as connection:
            for text, told in (("VALUES", "9.10"), ("SOURCE", "dump_daily")):
                if text == "VALUES":
                    mended = replace(candle("BTCUSDT", 1), close=Decimal(told), high=Decimal(told))
                    offer = CandleCandidate(
                        mended, Status.VERIFIED, Source.REST, evidence_at_us=NOW_US + 1
                    )
                    merge_candidates(connection, [offer])
                else:  # which the change log passes over
                    connection.execute(
                        "UPDATE market.candles_1m SET source = %s, source_rank = 70"
                        " WHERE symbol = 'BTCUSDT' AND open_time = %s",
                        (told, from_us(T0)),
                    )
                changed = await ask()
                assert changed.content != first.content
                assert f'"{told}"' in changed.text
                first = changed
        csv_form = await client.get("/api/v1/candles", params=asked, headers={"accept": "text/csv"})
        assert len(csv_form.text.splitlines()) == 3


async def test_bulk_formats_are_csv_arrow_and_parquet(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT", "from": T0 // 1_000, "limit": 2}
        plain = (await client.get("/api/v1/candles", params=asked)).json()

        async def answer(media: str) -> httpx.Response:
            found = await client.get("/api/v1/candles", params=asked, headers={"accept": media})
            assert found.headers["content-type"].split(";")[0] == media
            assert found.headers["x-next-cursor"] == plain["next_cursor"]
            return found

        text = (await answer("text/csv")).text
        read = list(csv.DictReader(io.StringIO(text)))
        assert [one["close"] for one in read] == ["1.10", "2.10"]
        assert read[0]["volume"] == "0.00000001"
        for media, reader in (
            ("application/vnd.apache.arrow.file", pl.read_ipc),
            ("application/vnd.apache.parquet", pl.read_parquet),
        ):
            frame = reader(io.BytesIO((await answer(media)).content))
            assert frame.schema["open_time"] == pl.Datetime("us", "UTC")
            assert frame.schema["close"] == frame.schema["volume"] == pl.Decimal(38, 18)
            assert frame["close"].to_list() == [Decimal("1.10"), Decimal("2.10")]
            assert frame["volume"].to_list() == [Decimal("1E-8")] * 2
            floats = await client.get(
                "/api/v1/candles", params=asked | {"numbers": "float"}, headers={"accept": media}
            )
            frame = reader(io.BytesIO(floats.content))
            assert frame.schema["close"] == pl.Float64
            assert frame["close"].to_list() == [1.1, 2.1]
            assert frame["volume"].to_list() == [1e-8] * 2
        wrong = await client.get("/api/v1/candles", params=asked | {"numbers": "double"})
        assert wrong.status_code == 400
        assert "numbers" in wrong.json()["detail"]


async def test_symbols_have_their_listing_and_whether_they_are_streamed(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        found = (await client.get("/api/v1/symbols")).raise_for_status().json()["symbols"]
        assert [(one["symbol"], one["market"], one["is_streamed"]) for one in found] == [
            ("BTCUSDT", "spot", True),
            ("ETHUSDT.P", "um", False),
        ]
        assert found[0]["listed_from"] is None
        assert found[1]["listed_from"].startswith("2023-11-14T")
        one = (await client.get("/api/v1/symbols/ETHUSDT.P")).raise_for_status().json()
        assert one["listings"] == [found[1]]
        for asked, names in (({"market": "um"}, ["ETHUSDT.P"]), ({"streamed": 1}, ["BTCUSDT"])):
            found = (await client.get("/api/v1/symbols", params=asked)).json()["symbols"]
            assert [one["symbol"] for one in found] == names


async def test_streamed_but_unregistered_symbol_is_listed(stored_url: str) -> None:
    with connect(stored_url, application_name="test") as connection:
        connection.execute("DELETE FROM market.instruments WHERE symbol = 'BTCUSDT'")
    async with api_client(stored_url) as client:
        found = (await client.get("/api/v1/symbols", params={"market": "spot"})).json()["symbols"]
        assert [(one["symbol"], one["market"], one["exchange_symbol"]) for one in found] == [
            ("BTCUSDT", "spot", "BTCUSDT")
        ]
        assert found[0]["is_streamed"]
        assert found[0]["tick_size"] is None
        one = (await client.get("/api/v1/symbols/BTCUSDT")).raise_for_status().json()
        assert one["listings"] == found
        every = (await client.get("/api/v1/symbols")).json()["symbols"]
        assert [one["symbol"] for one in every] == ["BTCUSDT", "ETHUSDT.P"]


async def test_day_prices_combine_stored_and_live_minutes(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        async with asyncio.timeout(20):
            while True:
                answer = (await client.get("/api/v1/prices")).raise_for_status().json()
                told = next(iter(answer["prices"]), {})
                if told.get("missing_minutes") is not None and told["last"] == "7.10":
                    break
                await asyncio.sleep(0.02)
        assert told == {
            "symbol": "BTCUSDT",
            "from": from_us(T0).isoformat().replace("+00:00", "Z"),
            "newest_minute": from_us(T0 + ROWS * MINUTE_US).isoformat().replace("+00:00", "Z"),
            "open": "1.10",
            "high": "8.10",
            "low": "1.10",
            "last": "7.10",
            "change": "6.00",
            "change_percent": "545.4545",
            "volume": "0.00000007",
            "quote_volume": "0.70",
            "trade_count": 7,
            "minute_count": 7,
            "missing_minutes": 1_433,
            "is_whole": False,
        }
        answer = await client.get("/api/v1/prices", params={"symbol": "ETHUSDT.P"})
        assert answer.status_code == 404  # is stored, and not streamed


PRICE_COLUMNS = (
    "open", "high", "low", "last", "volume", "quote_volume", "trade_count", "minute_count",
)  # fmt: skip
DAY_IN_SQL = """
SELECT
    (array_agg(open ORDER BY open_time))[1] AS open, max(high) AS high, min(low) AS low,
    (array_agg(close ORDER BY open_time DESC))[1] AS last, sum(volume) AS volume,
    sum(quote_volume) AS quote_volume, sum(trade_count)::int AS trade_count,
    count(*)::int AS minute_count
FROM market.candles_1m WHERE symbol = 'BTCUSDT' AND open_time > %s
"""


async def test_day_prices_include_history_loaded_after_the_first_request(stored_url: str) -> None:
    """By whatever writes to the table, here as a backfill does."""

    async def first_price(client: httpx.AsyncClient) -> dict[str, Any]:
        answer = (await client.get("/api/v1/prices")).raise_for_status().json()
        return next(iter(answer["prices"]), {})

    newest_us = T0 + ROWS * MINUTE_US
    start_us = newest_us - DAY_US + MINUTE_US
    history = [
        replace(candle("BTCUSDT", 0), open_time_us=open_us, open=Decimal("9.5"), high=Decimal(11))
        for open_us in range(start_us, T0, MINUTE_US)
    ]
    async with api_client(stored_url) as client:
        async with asyncio.timeout(20):
            while (told := await first_price(client)).get("missing_minutes") != len(history):
                await asyncio.sleep(0.02)
            assert told["open"] == "1.10"
            with connect(stored_url, application_name="test") as connection:
                merge_candidates(
                    connection,
                    [
                        CandleCandidate(one, Status.VERIFIED, Source.DUMP_DAILY, newest_us)
                        for one in history
                    ],
                )
                row = connection.execute(DAY_IN_SQL, (from_us(start_us - MINUTE_US),)).fetchone()
            while not (told := await first_price(client)).get("is_whole"):
                await asyncio.sleep(0.02)
    assert row is not None
    in_sql = dict(zip(PRICE_COLUMNS, row, strict=True))
    # The newest minute is not stored yet: it comes from memory.
    in_sql |= {"last": Decimal(told["last"]), "minute_count": in_sql["minute_count"] + 1}
    assert (told["open"], told["missing_minutes"]) == ("9.50", 0)
    assert {name: Decimal(told[name]) for name in ("open", "high", "low", "last")} == {
        name: in_sql[name] for name in ("open", "high", "low", "last")
    }
    assert told["minute_count"] == in_sql["minute_count"]


async def test_page_loads_only_its_own_files(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        parts = re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text)
        assert len(parts) == 4
        for part in parts:
            answer = (await client.get(part)).raise_for_status()
            assert answer.content
            again = await client.get(part, headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304
        script = (await client.get("/page/lightweight-charts.js")).text
        assert "TradingView Lightweight Charts" in script[:200]
        for wrong in ("/page/index.html", "/page/..%2f..%2fconfig.py", "/page/none.js"):
            assert (await client.get(wrong)).status_code == 404


async def test_page_of_the_api_loads_only_its_own_files(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        page = (await client.get("/api/v1/docs")).raise_for_status()
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        parts = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
        assert len(parts) == 5
        for part in parts:
            assert (await client.get(part)).raise_for_status().content
        missing = (await client.get("/api/v1/nothing")).json()["detail"]
        assert "/api/v1/docs lists what there is" in missing
        assert (await client.get("/page/docs.html")).status_code == 404


WRONG = [
    ("/api/v1/candles", 400, "symbol"),
    ("/api/v1/candles?symbol=", 400, "none given"),
    ("/api/v1/candles?symbol=BTCUSD", 404, "did you mean BTCUSDT"),
    ("/api/v1/candles?symbol='; DROP TABLE market.candles_1m", 404, "no symbol"),
    ("/api/v1/candles?symbol=" + "x" * 5_000, 404, "is none"),
    ("/api/v1/candles?symbol=" + ",".join(f"A{i}" for i in range(101)), 400, "100 at most"),
    ("/api/v1/candles?symbol=BTCUSDT&timeframe=7m", 400, "known are 1m"),
    ("/api/v1/candles?symbol=BTCUSDT&limit=0", 400, "limit"),
    ("/api/v1/candles?symbol=BTCUSDT&limit=10001", 400, "limit"),
    ("/api/v1/candles?symbol=BTCUSDT&limit=many", 400, "limit"),
    ("/api/v1/candles?symbol=BTCUSDT&from=yesterday", 400, "ISO 8601"),
    ("/api/v1/candles?symbol=BTCUSDT&from=9999999999999999", 400, "years 1 to 9999"),
    ("/api/v1/candles?symbol=BTCUSDT&from=2000&to=1000", 400, "lies before from"),
    ("/api/v1/candles?symbol=BTCUSDT&cursor=../../etc/passwd", 400, "cursor"),
    ("/api/v1/candles?symbol=BTCUSDT&cursor=OTksMQ", 400, "cursor"),
    ("/api/v1/symbols?market=coin-m", 400, "spot or um"),
    ("/api/v1/symbols/NONE", 404, "no symbol"),
    ("/api/v1/symbols/NONE/price", 404, "no symbol"),
    ("/api/v1/nothing", 404, "there is nothing at"),
]


async def test_invalid_requests_are_problems(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        for url, status, text in WRONG:
            answer = await client.get(url)
            assert answer.status_code == status, url
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["status"] == status
            assert text in problem["detail"], url
            assert len(answer.content) < 2_000


async def test_unsupported_media_types_and_methods_are_problems(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT"}
        answer = await client.get(
            "/api/v1/candles", params=asked, headers={"accept": "application/xml"}
        )
        assert (answer.status_code, answer.json()["title"]) == (406, "Not Acceptable")
        answer = await client.post("/api/v1/candles", params=asked)
        assert answer.status_code == 405
        assert answer.headers["content-type"] == "application/problem+json"


async def test_rate_limited_client_is_refused_with_a_wait(stored_url: str) -> None:
    async with api_client(stored_url, requests_per_minute=3) as client:
        for left in (2, 1, 0):
            answer = await client.get("/api/v1/health")
            assert (answer.status_code, answer.headers["ratelimit-remaining"]) == (200, str(left))
        refused = await client.get("/api/v1/health")
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 20


async def test_cross_origin_requests_need_an_allowed_origin(stored_url: str) -> None:
    theirs = {"origin": "https://charts.example.org"}
    async with api_client(stored_url) as client:
        answer = await client.get("/api/v1/health", headers=theirs)
        assert "access-control-allow-origin" not in answer.headers
    async with api_client(stored_url, allowed_origins=[theirs["origin"]]) as client:
        answer = await client.get("/api/v1/health", headers=theirs)
        assert answer.headers["access-control-allow-origin"] == theirs["origin"]
        other = await client.get("/api/v1/health", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_long_answers_are_compressed(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        answer = await client.get(
            "/api/v1/candles", params={"symbol": "BTCUSDT"}, headers={"accept-encoding": "gzip"}
        )
        assert answer.headers["content-encoding"] == "gzip"
        assert len(closes(answer)) == ROWS


async def test_health_reports_each_component(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        assert (await client.get("/api/v1/health")).json() == {"status": "alive"}
        told = (await client.get("/api/v1/health/details")).json()
        assert told["status"] == "well"
        assert set(told["components"]) == {"database", "market", "readers"}
    parts = {"writer": {"status": "ailing", "reasons": ["the database cannot be reached"]}}
    async with api_client(
        stored_url, condition=lambda: {"status": "ailing", "components": parts}
    ) as client:
        told = (await client.get("/api/v1/health/details")).json()
        assert told["status"] == "ailing"
        assert told["components"]["writer"] == parts["writer"]
        assert told["components"]["market"] == {"status": "ailing"}


@pytest.mark.long
async def test_live_prices_are_served_without_postgresql() -> None:
    async with api_client("postgresql://nobody@127.0.0.1:1/none") as client:
        answer = await client.get("/api/v1/candles", params={"symbol": "BTCUSDT"})
        assert answer.status_code == 503
        assert "nobody" not in answer.text
        told = (await client.get("/api/v1/health/details")).json()
        assert (told["status"], told["components"]["database"]["status"]) == ("ailing", "away")
