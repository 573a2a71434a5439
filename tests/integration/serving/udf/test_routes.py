"""The datafeed as the charting library drives it: config, resolve, history page by page, marks."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from include.domain.timeframes import MINUTE_US, SECOND_US, from_us
from include.store.postgres.pools import connect
from tests.integration.serving.http.api_client import NOW_US, ROWS, T0, api_client

S0 = T0 // SECOND_US


async def udf_answer(client: httpx.AsyncClient, path: str, **asked: Any) -> Any:
    answer = await client.get(f"/udf/{path}", params=asked)
    return answer.raise_for_status().json()


async def test_chart_resolves_a_symbol_and_pages_back_to_its_first_bar(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        config = await udf_answer(client, "config")
        assert config["supports_search"]
        (found, *_) = await udf_answer(
            client, "search", query="btc", limit=30, type="", exchange=""
        )
        symbol = await udf_answer(client, "symbols", symbol=found["full_name"])
        assert (symbol["name"], symbol["pricescale"], symbol["minmov"]) == ("BTCUSDT", 100, 1)
        assert set(symbol["supported_resolutions"]) == set(config["supported_resolutions"])
        assert (symbol["session"], symbol["timezone"]) == ("24x7", "Etc/UTC")

        times: list[int] = []
        end = S0 + 3_600
        for _ in range(10):
            bars = await udf_answer(
                client,
                "history",
                symbol=symbol["ticker"],
                resolution="1",
                countback=4,
                **{"from": end - 60, "to": end},
            )
            if bars["s"] == "no_data":
                assert "nextTime" not in bars  # nothing lies before
                break
            assert len({len(bars[name]) for name in "tohlcv"}) == 1
            times = bars["t"] + times
            end = bars["t"][0]
        assert times == [S0 + 60 * index for index in range(ROWS)]


async def test_empty_range_names_the_newest_bar_before_it(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT", "resolution": "1", "from": S0 + 7_200, "to": S0 + 9_000}
        assert await udf_answer(client, "history", **asked) == {
            "s": "no_data",
            "nextTime": S0 + 60 * (ROWS - 1),
        }


async def test_range_without_countback_starts_at_its_bound(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT", "resolution": "1", "from": S0 + 60, "to": S0 + 180}
        bars = await udf_answer(client, "history", **asked)
        assert (bars["t"], bars["c"], bars["v"]) == (
            [S0 + 60, S0 + 120], [2.1, 3.1], [1e-8, 1e-8],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"symbol": "NONE", "resolution": "1", "from": 0, "to": 9}, "unknown symbol NONE"),
        ({"symbol": "BTCUSDT", "resolution": "7", "from": 0, "to": 9}, "unknown resolution 7"),
        ({"symbol": "BTCUSDT", "resolution": "1", "from": 9, "to": 1}, "to lies before from"),
        ({"symbol": "OTHER:BTCUSDT", "resolution": "1", "from": 0, "to": 9}, "unknown symbol"),
    ],
)
async def test_invalid_request_is_a_protocol_error(
    stored_url: str, asked: dict[str, Any], why: str
) -> None:
    async with api_client(stored_url) as client:
        answer = await udf_answer(client, "history", **asked)
        assert answer["s"] == "error"
        assert why in answer["errmsg"]


@pytest.mark.parametrize("path", ["history", "marks", "timescale_marks"])
async def test_range_may_begin_before_1970(stored_url: str, path: str) -> None:
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT", "resolution": "1", "to": NOW_US // 1_000_000}
        assert await udf_answer(client, path, **asked, **{"from": -6_000_000}) == (
            await udf_answer(client, path, **asked, **{"from": 0})
        )


async def test_numbers_out_of_range_are_refused(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        for wrong in ({"from": 0, "to": -9}, {"from": 0, "to": 10**18}, {"from": "x", "to": 1}):
            answer = await client.get(
                "/udf/history", params={"symbol": "BTCUSDT", "resolution": "1", **wrong}
            )
            assert answer.status_code == 400


async def test_quotes_are_the_day_prices(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        answer = await udf_answer(client, "quotes", symbols="BINANCE:BTCUSDT,NONE")
        known, unknown = answer["d"]
        assert (known["s"], known["n"], known["v"]["lp"]) == ("ok", "BINANCE:BTCUSDT", 7.1)
        assert unknown["s"] == "error"
        assert not known["v"]["is_whole"]
        assert known["v"]["description"].startswith("BTC / USDT, spot (24 h incomplete: ")
        assert known["v"]["description"].endswith(" of 1,440 minutes)")


async def test_search_ranks_prefix_matches_first(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        found = await udf_answer(client, "search", query="usdt")
        assert [one["symbol"] for one in found] == ["BTCUSDT", "ETHUSDT.P"]
        found = await udf_answer(client, "search", query="", type="futures", exchange="BINANCE-UM")
        assert [one["symbol"] for one in found] == ["ETHUSDT.P"]


async def test_symbol_info_has_one_list_per_column(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        found = await udf_answer(client, "symbol_info", group="BINANCE")
        assert (found["symbol"], found["pricescale"]) == (["BTCUSDT"], [100])


async def test_repairs_gaps_and_outages_are_marked_on_their_bars(
    stored_url: str,
) -> None:
    with connect(stored_url, application_name="test") as connection:
        connection.execute(
            "INSERT INTO ops.gaps (symbol, dataset, from_time, to_time, cause) VALUES"
            " ('BTCUSDT', 'candles_1m', %s, %s, 'cut')",
            (from_us(T0 + 2 * MINUTE_US), from_us(T0 + 3 * MINUTE_US)),
        )
        connection.execute(
            "INSERT INTO ops.outages (market, minutes, cause) VALUES"
            " ('spot', tstzmultirange(tstzrange(%s, %s)), 'down')",
            (from_us(T0 + 20 * MINUTE_US), from_us(NOW_US)),
        )
    async with api_client(stored_url) as client:
        asked = {"symbol": "BTCUSDT", "from": S0, "to": S0 + 3_600, "resolution": "60"}
        marks = await udf_answer(client, "marks", **asked)
        hour = S0 // 3_600 * 3_600
        assert (marks["time"], marks["label"]) == ([hour], ["G"])
        assert "cut" in marks["text"][0]
        (outage,) = await udf_answer(client, "timescale_marks", **asked | {"resolution": "1"})
        assert outage["time"] == S0 + 1_200
        assert "the whole market" in outage["tooltip"][0]
        assert (await udf_answer(client, "marks", **asked | {"symbol": "NONE"}))["time"] == []


async def test_time_is_in_seconds(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        answer = await client.get("/udf/time")
        assert abs(int(answer.text) - time.time()) < 60
