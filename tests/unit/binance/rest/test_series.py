"""Derivative series by REST: requests, rules and pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from include.binance.endpoints import Endpoints
from include.binance.rest.client import BinanceRest
from include.binance.rest.series import SeriesPage, SeriesRest, oldest_us
from include.binance.rest.weights import LocalBudget
from include.domain.candles import Status
from include.domain.instruments import Market
from include.domain.series.kinds import Series
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, to_us
from include.errors import RateLimitedError

START_US = to_us(datetime(2026, 11, 1, tzinfo=UTC))
MS = START_US // 1000
NOW_US = START_US + DAY_US


class Exchange:
    """Answers requests by path, and remembers them."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.pools = LocalBudget(1_000), LocalBudget(1_000)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.url.path, dict(request.url.params)))
        answer = self.answers[request.url.path.rpartition("/")[2]]
        if isinstance(answer, httpx.Response):
            return answer
        rows = answer(dict(request.url.params)) if callable(answer) else answer
        return httpx.Response(200, content=json.dumps(rows))

    def rest(self, market: Market = Market.UM) -> SeriesRest:
        endpoints = Endpoints(market, "wss://stream", "https://rest")
        client = BinanceRest(
            endpoints, budget=LocalBudget(2_400), transport=httpx.MockTransport(self)
        )
        return SeriesRest(client, funding_pool=self.pools[0], statistics_pool=self.pools[1])

    def pages(
        self, series: Series, *, symbol: str = "BTCUSDT.P", until_us: int = START_US + HOUR_US
    ) -> list[SeriesPage]:
        return list(
            self.rest().pages(series, symbol, START_US, until_us, server_time_us=NOW_US)
        )  # fmt: skip


def kline(minute: int, *prices: str) -> list[Any]:
    open_ms = MS + minute * 60_000
    return [open_ms, *prices, "0", open_ms + 59_999, "0", 60, "0", "0", "0"]


def test_price_pages_cover_the_range_once() -> None:
    exchange = Exchange(markPriceKlines=[])
    pages = exchange.pages(Series.MARK, until_us=START_US + 1_000 * MINUTE_US)
    assert [(one.start_us - START_US) // MINUTE_US for one in pages] == [0, 498, 996]
    assert pages[-1].end_us == START_US + 1_000 * MINUTE_US
    path, asked = exchange.asked[0]
    assert path == "/fapi/v1/markPriceKlines"
    assert asked == {
        "symbol": "BTCUSDT", "interval": "1m", "limit": "499",
        "startTime": str(MS), "endTime": str(MS + 499 * 60_000 - 1),  # one more than is stored
    }  # fmt: skip


def test_index_prices_are_requested_by_pair() -> None:
    exchange = Exchange(indexPriceKlines=[])
    exchange.pages(Series.INDEX, symbol="BTCUSDT_270326.P")
    assert exchange.asked[0][1]["pair"] == "BTCUSDT"


def test_prices_keep_their_digits_and_open_minutes_are_left_out() -> None:
    last = (NOW_US - START_US) // MINUTE_US - 1
    exchange = Exchange(
        premiumIndexKlines=[kline(0, "-0.00010000", "0.1", "-1", "0"), kline(last, *"1111")]
    )
    (first, *_, final) = exchange.pages(Series.PREMIUM, until_us=NOW_US)
    assert [str(value) for value in first.points[0].values] == ["-0.00010000", "0.1", "-1", "0"]
    assert final.points == []  # ended less than 30 s ago


def test_the_last_minute_of_a_young_answer_may_be_open() -> None:
    (page,) = Exchange(markPriceKlines=[kline(0, *"1111"), kline(1, *"1111")]).pages(Series.MARK)
    assert [one.time_us for one in page.points] == [START_US]


def test_the_last_minute_of_an_old_answer_is_closed() -> None:
    rest = Exchange(markPriceKlines=[kline(0, *"1111")]).rest()
    span = (START_US, START_US + HOUR_US)
    (page,) = rest.pages(
        Series.MARK, "BTCUSDT.P", *span, server_time_us=START_US + DAY_US + 2 * MINUTE_US
    )
    assert [one.time_us for one in page.points] == [START_US]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (kline(0, "1", "0.5", "0.4", "0.5"), "high is below another price"),
        (kline(0, "1", "2", "1.5", "1"), "low is above another price"),
        (kline(0, "NaN", "1", "1", "1"), "open is no number: 'NaN'"),
        (kline(0, "", "1", "1", "1"), "open is empty"),
        (kline(0, "1", "1", "0", "1"), "a price is not positive"),
        ([MS + 1, "1", "1", "1", "1"], "open_time is not a full minute"),
    ],
)
def test_a_bad_price_row_is_rejected_and_the_others_stay(row: list[Any], reason: str) -> None:
    exchange = Exchange(markPriceKlines=[row, kline(1, "1", "1", "1", "1")])
    exchange.answers["markPriceKlines"].append(kline(2, "1", "1", "1", "1"))
    (page,) = exchange.pages(Series.MARK)
    assert [(one.number, one.reason) for one in page.rejected] == [(1, reason)]
    assert page.rejected[0].request == "markPriceKlines BTCUSDT"
    assert len(page.points) == 1


def test_contradictory_rows_of_one_time_are_rejected_and_equal_ones_count_once() -> None:
    rows = [kline(0, *"1111"), kline(0, *"1111"), kline(1, *"1111"), kline(1, *"2222")]
    rows.append(kline(2, *"1111"))
    (page,) = Exchange(markPriceKlines=rows).pages(Series.MARK)
    assert [one.time_us for one in page.points] == [START_US]
    assert [one.reason for one in page.rejected] == ["rows of one time contradict each other"]


def settlement(hour: int, *, late_ms: int = 3, rate: str = "0.0001", mark: str = "5") -> Any:
    return {
        "symbol": "BTCUSDT", "fundingTime": MS + hour * 3_600_000 + late_ms,
        "fundingRate": rate, "markPrice": mark,
    }  # fmt: skip


def test_settlements_belong_to_their_hour_and_an_empty_mark_price_is_unknown() -> None:
    exchange = Exchange(
        fundingRate=[settlement(0), settlement(8, mark=""), settlement(16, late_ms=9_999)]
    )
    (page,) = exchange.pages(Series.FUNDING, until_us=NOW_US)
    assert [(one.time_us - START_US) // HOUR_US for one in page.points] == [0, 8]
    assert [one.values[2] for one in page.points] == [Decimal(5), None]
    assert [one.reason for one in page.rejected] == ["funding_time is not near a whole hour"]


def test_full_pages_of_settlements_are_followed_by_the_next() -> None:
    hours = range(1_500)

    def answer(asked: dict[str, str]) -> list[Any]:
        found = [settlement(hour) for hour in hours]
        return [one for one in found if one["fundingTime"] >= int(asked["startTime"])][:1_000]

    exchange = Exchange(fundingRate=answer)
    pages = exchange.pages(Series.FUNDING, until_us=START_US + 1_500 * HOUR_US)
    assert [one.time_us for page in pages for one in page.points] == [
        START_US + hour * HOUR_US for hour in hours
    ]


def test_four_ratios_meet_by_time_and_a_missing_one_makes_the_row_partial() -> None:
    def ratios(*values: str) -> list[Any]:
        return [
            {"timestamp": MS + number * 300_000, "longShortRatio": value}
            for number, value in enumerate(values)
        ]

    exchange = Exchange(
        topLongShortAccountRatio=ratios("1.1", "1.2"),
        topLongShortPositionRatio=ratios("2.1", "2.2"),
        globalLongShortAccountRatio=ratios("3.1"),
        takerlongshortRatio=[{"timestamp": MS, "buySellRatio": "4.1"}],
    )
    (page,) = exchange.pages(Series.RATIOS)
    assert [(one.values, one.status) for one in page.points] == [
        (tuple(map(Decimal, ("1.1", "2.1", "3.1", "4.1"))), Status.VERIFIED),
        ((Decimal("1.2"), Decimal("2.2"), None, None), Status.PARTIAL),
    ]
    assert {path for path, _ in exchange.asked} == {
        f"/futures/data/{name}" for name in exchange.answers
    }
    assert exchange.pools[1].used == 4


def test_negative_open_interest_is_rejected() -> None:
    rows = [
        {"timestamp": MS, "sumOpenInterest": "-1", "sumOpenInterestValue": "2"},
        {"timestamp": MS + 300_000, "sumOpenInterest": "1", "sumOpenInterestValue": "2"},
        {"timestamp": MS + 300_001, "sumOpenInterest": "1", "sumOpenInterestValue": "2"},
    ]
    (page,) = Exchange(openInterestHist=rows).pages(Series.OPEN_INTEREST)
    assert [one.reason for one in page.rejected] == [
        "open_interest is negative",
        "timestamp is not a multiple of 5 minutes",
    ]
    assert len(page.points) == 1


def test_a_refusal_closes_the_pool_of_its_method() -> None:
    refusal = httpx.Response(429, headers={"retry-after": "120"}, content=b"{}")
    exchange = Exchange(fundingRate=refusal)
    with pytest.raises(RateLimitedError):
        exchange.pages(Series.FUNDING)
    with pytest.raises(RateLimitedError):
        LocalBudget.take.__get__(_impatient(exchange.pools[0]))(1)


def _impatient(budget: LocalBudget) -> LocalBudget:
    budget._max_wait_s = 0.0
    return budget


def test_statistics_of_coin_m_have_files_only() -> None:
    rest = Exchange().rest(Market.CM)
    assert not rest.serves(Series.RATIOS)
    assert rest.serves(Series.FUNDING)


def test_statistics_are_served_for_thirty_days() -> None:
    assert oldest_us(Series.FUNDING, NOW_US) == 0
    oldest = oldest_us(Series.OPEN_INTEREST, NOW_US + 1)
    assert NOW_US - 30 * DAY_US < oldest < NOW_US - 29 * DAY_US
    assert oldest % (5 * MINUTE_US) == 0
