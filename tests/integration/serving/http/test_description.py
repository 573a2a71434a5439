"""The API conforms to its description, and no request causes a server error."""

from __future__ import annotations

from typing import Any

import pytest

from include.domain.timeframes import TIMEFRAMES
from serving.http.routes import symbols as symbols_module
from streamer.hub.ticks import BookTickerUpdate
from streamer.hub.trade_hub import BookTickerHub, TickHubs
from tests.integration.serving.http.api_client import SYMBOLS, T0, api_client, application
from tests.integration.serving.http.described import OF_MARTS, ask_all, on_a_socket


@pytest.mark.long
def test_no_request_causes_a_server_error(stored_url: str) -> None:
    ticks = TickHubs(book_tickers=BookTickerHub(linger_s=1_000))

    def served() -> Any:
        with ticks.book_tickers.subscribe(["BTCUSDT"]):
            ticks.book_tickers.publish(
                BookTickerUpdate("BTCUSDT", 7, "1.10", "2", "1.20", "3", None, T0)
            )
        return application(stored_url, ticks=ticks)

    with on_a_socket(served) as url:
        assert ask_all(url, symbols=SYMBOLS, but=OF_MARTS) > 300


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols_module, "BOOK_TIMEOUT_S", 0.1)


async def test_each_answer_is_described(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        told = (await client.get("/api/v1/openapi.json")).json()
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert "422" not in operation["responses"]
            assert {"400", "404", "429", "503"} <= set(operation["responses"]), path
            assert operation["summary"], (path, method)
    candles = told["paths"]["/api/v1/candles"]["get"]
    assert set(candles["responses"]["200"]["content"]) == {
        "application/json",
        "text/csv",
        "application/vnd.apache.arrow.file",
        "application/vnd.apache.parquet",
    }
    (timeframe,) = [one for one in candles["parameters"] if one["name"] == "timeframe"]
    assert timeframe["schema"]["enum"] == list(TIMEFRAMES)
    assert "ProblemDetails" in told["components"]["schemas"]


async def test_description_has_every_path(stored_url: str) -> None:
    async with api_client(stored_url) as client:
        told = (await client.get("/api/v1/openapi.json")).raise_for_status().json()
        assert set(told["paths"]) == {
            "/api/v1/login",
            "/api/v1/logout",
            "/api/v1/me",
            "/api/v1/sessions",
            "/api/v1/sessions/{session_id}",
            "/api/v1/users",
            "/api/v1/watchlist",
            "/api/v1/watchlist/{symbol}",
            "/api/v1/health",
            "/api/v1/health/details",
            "/api/v1/symbols",
            "/api/v1/symbols/{symbol}",
            "/api/v1/symbols/{symbol}/price",
            "/api/v1/symbols/{symbol}/book",
            "/api/v1/candles",
            "/api/v1/liquidations",
            "/api/v1/trades",
            "/api/v1/symbols/{symbol}/order-book",
            "/api/v1/prices",
            "/api/v1/symbols/{symbol}/levels",
            "/api/v1/symbols/{symbol}/indicators",
            "/api/v1/symbols/{symbol}/volume-profile",
            "/api/v1/symbols/{symbol}/footprint",
            "/api/v1/symbols/{symbol}/coverage",
            "/api/v1/symbols/{symbol}/gaps",
            "/api/v1/candles/latest",
            "/api/v1/statistics",
            "/udf/config",
            "/udf/time",
            "/udf/symbols",
            "/udf/symbol_info",
            "/udf/search",
            "/udf/history",
            "/udf/quotes",
            "/udf/marks",
            "/udf/timescale_marks",
        }
        for path in told["paths"].values():
            for operation in path.values():
                assert operation["summary"]
                assert operation["description"]
