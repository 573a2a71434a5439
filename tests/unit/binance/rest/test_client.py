"""The client asks within its budget, tries again where that helps, and types the answers."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from decimal import Decimal

import httpx
import pytest

from include.binance.endpoints import Endpoints
from include.binance.rest.client import BinanceRest
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError, RateLimitedError, TransientError

START = 1_735_689_600_000_000
NOW = START + 10 * MINUTE_US


class Budget:
    """Grants everything and remembers."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.reports: list[tuple[int | None, float | None]] = []

    def take(self, weight: int) -> None:
        self.taken.append(weight)

    def report(self, used: int | None, *, retry_after_s: float | None = None) -> None:
        self.reports.append((used, retry_after_s))


class Exchange:
    """Answers from a table of handlers and remembers the requests."""

    def __init__(self, **handlers: Callable[[httpx.Request], httpx.Response]) -> None:
        self.requests: list[httpx.Request] = []
        self.handlers = {
            "time": lambda _: httpx.Response(200, json={"serverTime": NOW}),
            **handlers,
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.handlers[request.url.path.rpartition("/")[2]](request)

    @property
    def methods(self) -> list[str]:
        return [request.url.path.rpartition("/")[2] for request in self.requests]


def client(
    exchange: Exchange, market: Market = Market.SPOT, **options: object
) -> tuple[BinanceRest, Budget, list[float]]:
    budget, slept = Budget(), []
    rest = BinanceRest(
        Endpoints(market, "", "https://api.test"),
        budget=budget,
        sleep=slept.append,
        transport=httpx.MockTransport(exchange),
        **options,  # type: ignore[arg-type]
    )
    return rest, budget, slept


def row(index: int, *, close: str = "2") -> list[object]:
    at = START + index * MINUTE_US
    return [at, "1.50000000", "3", "1", close, "10", at + MINUTE_US - 1, "20", 4, "5", "9", "0"]


def klines(*rows: list[object]) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(200, content=json.dumps(rows).encode())


def test_page_has_every_digit_and_the_server_time() -> None:
    rest, budget, _ = client(Exchange(klines=klines(row(0, close="2.00000001"))))
    page = rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    assert [one.close for one in page.candles] == [Decimal("2.00000001")]
    assert (page.candles[0].symbol, page.candles[0].open_time_us) == ("BTCUSDT", START)
    assert (page.server_time_us, page.next_start_us) == (NOW, None)
    assert budget.taken == [1, 2]


def test_rows_are_final_thirty_seconds_after_their_minute_in_server_time() -> None:
    exchange = Exchange(klines=klines(row(0), row(1)))
    exchange.handlers["time"] = lambda _: httpx.Response(
        200, json={"serverTime": START + 2 * MINUTE_US + 29_999_999}
    )
    rest, _, _ = client(exchange)
    page = rest.klines("BTCUSDT", "1m", START)
    assert (len(page.candles), page.not_final) == (1, 1)
    exchange.handlers["time"] = lambda _: httpx.Response(
        200, json={"serverTime": START + 2 * MINUTE_US + 30_000_000}
    )
    page = rest.klines("BTCUSDT", "1m", START)
    assert (len(page.candles), page.not_final) == (2, 0)


def test_server_time_is_requested_before_the_page_and_cached_for_old_minutes() -> None:
    exchange = Exchange(klines=klines(row(0)))
    rest, _, _ = client(exchange)
    for _ in range(3):
        rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    assert exchange.methods == ["time", "klines", "klines", "klines"]
    rest.klines("BTCUSDT", "1m", START, NOW)
    assert exchange.methods[-2:] == ["time", "klines"]


def test_minute_after_the_range_needs_no_later_server_time() -> None:
    exchange = Exchange(klines=klines(row(0), row(1)))
    exchange.handlers["time"] = lambda _: httpx.Response(
        200, json={"serverTime": START + MINUTE_US + 30_000_000}
    )
    rest, _, _ = client(exchange)
    for _ in range(2):
        page = rest.klines("BTCUSDT", "1m", START, START + MINUTE_US, with_next=True)
        assert [one.open_time_us for one in page.sure] == [START]
    assert exchange.methods == ["time", "klines", "klines"]


def test_full_page_has_the_start_of_the_next() -> None:
    rest, _, _ = client(Exchange(klines=klines(row(0), row(1))))
    page = rest.klines("BTCUSDT", "1m", START, START + 5 * MINUTE_US, limit=2)
    assert page.next_start_us == START + 2 * MINUTE_US


def test_bounds_are_milliseconds_and_the_end_is_exclusive() -> None:
    exchange = Exchange(klines=klines())
    rest, _, _ = client(exchange)
    rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    sent = exchange.requests[-1]
    assert sent.url.params["startTime"] == str(START // 1000)
    assert sent.url.params["endTime"] == str((START + MINUTE_US) // 1000 - 1)
    assert sent.headers["X-MBX-TIME-UNIT"] == "MICROSECOND"
    rest.klines("BTCUSDT", "1m", START, START + MINUTE_US, with_next=True)
    sent = exchange.requests[-1]
    assert sent.url.params["endTime"] == str((START + 2 * MINUTE_US) // 1000 - 1)


def test_futures_use_their_own_paths_and_milliseconds() -> None:
    old = row(0)
    old[0] = START // 1000
    exchange = Exchange(klines=klines(old))
    exchange.handlers["time"] = lambda _: httpx.Response(200, json={"serverTime": NOW // 1000})
    rest, budget, _ = client(exchange, Market.UM)
    page = rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    assert (page.candles[0].symbol, page.candles[0].open_time_us) == ("BTCUSDT.P", START)
    assert exchange.requests[-1].url.path == "/fapi/v1/klines"
    assert "X-MBX-TIME-UNIT" not in exchange.requests[-1].headers
    assert budget.taken == [1, 2]


def test_transient_failure_is_retried_and_costs_weight_again() -> None:
    answers = iter([httpx.Response(502), httpx.Response(200, json=[row(0)])])
    rest, budget, slept = client(Exchange(klines=lambda _: next(answers)))
    assert len(rest.klines("BTCUSDT", "1m", START, START + MINUTE_US).candles) == 1
    assert budget.taken == [1, 2, 2]
    assert len(slept) == 1


def test_timeout_is_retried_a_bounded_number_of_times() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no bytes", request=request)

    exchange = Exchange(klines=silent)
    rest, _, slept = client(exchange, attempts=3)
    with pytest.raises(TransientError, match=r"no answer from api\.test to GET /api/v3/klines BTC"):
        rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    assert exchange.methods.count("klines") == 3
    assert len(slept) == 2


def test_429_is_not_retried_and_blocks_the_budget() -> None:
    refused = httpx.Response(429, headers={"Retry-After": "9", "X-MBX-USED-WEIGHT-1M": "6001"})
    exchange = Exchange(klines=lambda _: refused)
    rest, budget, slept = client(exchange)
    with pytest.raises(RateLimitedError) as told:
        rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    assert (told.value.retry_after_s, slept) == (9, [])
    assert exchange.methods.count("klines") == 1
    assert budget.reports[-1] == (6001, 9)


def test_used_weight_of_each_answer_is_reported() -> None:
    answer = httpx.Response(200, json=[], headers={"X-MBX-USED-WEIGHT-1M": "41"})
    rest, budget, _ = client(Exchange(klines=lambda _: answer))
    rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
    assert budget.reports[-1] == (41, None)


def test_answer_with_another_structure_is_a_permanent_error() -> None:
    rest, _, _ = client(Exchange(klines=klines([1, "x"])))
    with pytest.raises(PermanentError, match="undocumented structure"):
        rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"<html>", "identity", "other than JSON"),
        (b"\xff[[1]]", "identity", "other than JSON"),
        (b"no gzip", "gzip", "no answer"),
    ],
    ids=["proxy's page", "not UTF-8", "not compressed"],
)
def test_unreadable_answer_is_a_transient_error(body: bytes, encoding: str, message: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"content-encoding": encoding}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(body))

    rest, _, _ = client(Exchange(klines=answer), attempts=2)
    with pytest.raises(TransientError, match=message):
        rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)


def test_unknown_interval_or_excessive_limit_is_refused_without_a_request() -> None:
    exchange = Exchange()
    rest, _, _ = client(exchange)
    with pytest.raises(ValueError, match="unknown timeframe"):
        rest.klines("BTCUSDT", "7m", START)
    with pytest.raises(PermanentError, match=r"limit 1001 is not within 1\.\.1000"):
        rest.klines("BTCUSDT", "1m", START, limit=1_001)
    assert exchange.requests == []


def test_void_agg_trades_are_marked() -> None:
    rows = [
        {"a": 1, "p": "0", "q": "0", "f": -1, "l": -1, "T": START, "m": True, "M": True},
        {"a": 2, "p": "1.5", "q": "2", "f": 5, "l": 6, "T": START, "m": False, "M": True},
    ]
    rest, budget, _ = client(Exchange(aggTrades=lambda _: httpx.Response(200, json=rows)))
    assert [(one.id, one.is_void) for one in rest.agg_trades("BTCUSDT", from_id=1)] == [
        (1, True),
        (2, False),
    ]
    assert budget.taken == [4]


def test_daily_volumes_are_keyed_by_platform_symbol() -> None:
    rows = [{"symbol": "BTCUSDT", "quoteVolume": "12.5", "volume": "1", "other": None}]
    tickers = {"24hr": lambda _: httpx.Response(200, json=rows)}
    rest, budget, _ = client(Exchange(**tickers), Market.UM)
    assert rest.quote_volumes_24h() == {"BTCUSDT.P": Decimal("12.5")}
    assert budget.taken == [40]


def test_client_keeps_no_answer_in_memory() -> None:
    """An httpx answer refers to itself; its content would stay until garbage collection."""
    page = json.dumps([row(0)]).encode()
    exchange = Exchange(klines=lambda _: httpx.Response(200, stream=httpx.ByteStream(page)))
    rest, _, _ = client(exchange)
    gc.collect()
    gc.disable()
    try:
        rest.klines("BTCUSDT", "1m", START, START + MINUTE_US)
        answers = [one for one in gc.get_objects() if isinstance(one, httpx.Response)]
    finally:
        gc.enable()
    asked = [
        one for one in answers if one._request is not None
    ]  # those of other tests may have none
    (answer,) = (one for one in asked if one.request.url.path.endswith("/klines"))
    with pytest.raises(httpx.ResponseNotRead):
        answer.content  # noqa: B018


@pytest.mark.parametrize(
    ("market", "path", "weight"),
    [
        (Market.SPOT, "/api/v3/depth", 50),
        (Market.UM, "/fapi/v1/depth", 20),
        (Market.CM, "/dapi/v1/depth", 20),
    ],
)
def test_depth_costs_the_weight_of_a_thousand_levels(
    market: Market, path: str, weight: int
) -> None:
    answer = {"lastUpdateId": 3, "bids": [["1.5", "2"]], "asks": []}
    exchange = Exchange(depth=lambda _: httpx.Response(200, json=answer))
    rest, budget, _ = client(exchange, market)
    snapshot = rest.depth("BTCUSDT")
    assert (snapshot.last_update_id, snapshot.bids) == (3, [("1.5", "2")])
    assert exchange.requests[0].url.path == path
    assert dict(exchange.requests[0].url.params) == {"symbol": "BTCUSDT", "limit": "1000"}
    assert budget.taken == [weight]


def test_coin_m_range_has_no_more_bars_than_rows() -> None:
    exchange = Exchange(klines=klines(row(0), row(1)))
    rest, _, _ = client(exchange, Market.CM)
    rest.klines("BTCUSD_PERP", "1m", START, START + 9 * MINUTE_US, limit=2)
    asked = exchange.requests[-1].url
    assert asked.path == "/dapi/v1/klines"
    assert int(asked.params["endTime"]) - int(asked.params["startTime"]) == 2 * 60_000 - 1


def test_settlement_prices_come_by_time_of_delivery() -> None:
    answer = [{"deliveryTime": 1_695_945_600_000, "deliveryPrice": 27103.10000001}]
    exchange = Exchange(**{"delivery-price": lambda _: httpx.Response(200, json=answer)})
    rest, budget, _ = client(exchange, Market.CM)
    assert rest.delivery_prices("BTCUSD") == {1_695_945_600_000_000: Decimal("27103.10000001")}
    assert exchange.requests[0].url.path == "/futures/data/delivery-price"
    assert exchange.requests[0].url.params["pair"] == "BTCUSD"
    assert budget.taken == [0]


def test_amounts_of_coin_m_are_in_the_quote_asset() -> None:
    ticker = {"symbol": "BTCUSD_PERP", "baseVolume": "2.5", "weightedAvgPrice": "40000.0"}
    exchange = Exchange(**{"24hr": lambda _: httpx.Response(200, json=[ticker])})
    rest, _, _ = client(exchange, Market.CM)
    assert rest.quote_volumes_24h() == {"BTCUSD_PERP": Decimal(100_000)}
