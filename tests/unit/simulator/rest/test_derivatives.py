"""REST answers of futures alone: price klines, funding, open interest and ratios."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from simulator.clock import DAY_US, MINUTE_US, SimulatedClock, to_us
from simulator.http.fault_rules import FaultRules
from simulator.market.derivatives.funding import IntervalChange
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.rest.endpoints import RestEndpoints
from simulator.rest.faults import RestFaults, RestRule, SeriesLag
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import MarketVenue

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
NOW = START + 40 * DAY_US + 7 * MINUTE_US + 30_500_000
HOUR = 60 * MINUTE_US


class Rest:
    """The endpoints of a stopped exchange."""

    def __init__(self) -> None:
        self.market = SimulatedMarket(
            select_instruments("um", ("BTCUSDT", "KEEPUSDT"), seed=1), seed=1, start_us=START
        )
        clock = SimulatedClock(start_us=NOW, speed=0)
        self.faults = RestFaults()
        self.venue = MarketVenue(
            "um", self.market, clock, kline_lag_us=0, trade_lag_us=0, faults=self.faults
        )
        endpoints = RestEndpoints(self.venue, clock, weight_limit=10).table()
        self._endpoints = {one.name: one for one in endpoints}

    def get(self, name: str, **query: Any) -> Any:
        endpoint = self._endpoints[name]
        texts = {key: str(value) for key, value in query.items()}
        return endpoint.handler(QueryParameters(texts, endpoint.known, is_strict=False), 1_000)

    def error(self, name: str, **query: Any) -> tuple[int, str]:
        with pytest.raises(ApiError) as caught:
            self.get(name, **query)
        return caught.value.code, str(caught.value)


@pytest.fixture(scope="module")
def shared() -> Rest:
    return Rest()


@pytest.fixture
def rest() -> Rest:
    return Rest()


# --- price klines


@pytest.mark.parametrize(
    ("name", "key", "count"),
    [("markPriceKlines", "symbol", 60), ("indexPriceKlines", "pair", 60),
     ("premiumIndexKlines", "symbol", 12)],
)  # fmt: skip
def test_price_klines_have_the_recorded_shape(
    shared: Rest, name: str, key: str, count: int
) -> None:
    rows = shared.get(name, **{key: "BTCUSDT"}, interval="1m", limit=3)
    assert [row[0] for row in rows] == [
        (NOW // MINUTE_US - ago) * MINUTE_US // 1_000 for ago in (2, 1, 0)
    ]
    for row in rows[:2]:
        opened, low, high, close = (Decimal(row[place]) for place in (1, 3, 2, 4))
        assert low <= min(opened, close) <= max(opened, close) <= high
        assert row[5:] == ["0", row[0] + 59_999, "0", count, "0", "0", "0"]
        assert all(len(row[place].partition(".")[2]) == 8 for place in (1, 2, 3, 4))
    assert rows[2][8] == (31 if count == 60 else 7)


def test_price_klines_page_like_klines(shared: Rest) -> None:
    for interval in ("1m", "4h", "1d", "1w", "1M"):
        query = {"interval": interval, "startTime": START // 1_000 + 1, "limit": 4}
        marks = shared.get("markPriceKlines", symbol="BTCUSDT", **query)
        klines = shared.get("klines", symbol="BTCUSDT", **query)
        if not isinstance(klines, list):
            continue  # encoded already
        assert [row[0] for row in marks] == [row[0] for row in klines]
        assert [row[6] for row in marks] == [row[6] for row in klines]
    assert shared.get("markPriceKlines", symbol="BTCUSDT", interval="1m",
                      startTime=NOW // 1_000 + 1) == []  # fmt: skip


def test_price_klines_refuse_what_the_exchange_refuses(shared: Rest) -> None:
    ask = shared.error
    assert ask("markPriceKlines", symbol="NOSUCHUSDT", interval="1m")[0] == -1121
    assert ask("indexPriceKlines", pair="NOSUCH", interval="1m") == (-4144, "Invalid pair")
    assert ask("indexPriceKlines", symbol="BTCUSDT", interval="1m")[0] == -1102
    assert ask("markPriceKlines", symbol="BTCUSDT", interval="1s")[0] == -1120
    assert ask("markPriceKlines", symbol="BTCUSDT", interval="1m", limit=1_501)[0] == -1130
    assert ask("markPriceKlines", symbol="BTCUSDT", interval="1m", startTime=2, endTime=1)[0] == (
        -1023
    )


# --- funding


def test_funding_rates_ascend_and_name_the_mark_price(shared: Rest) -> None:
    rows = shared.get("fundingRate", symbol="BTCUSDT")
    assert len(rows) == 100
    times = [row["fundingTime"] for row in rows]
    assert times == sorted(times)
    assert times[-1] // 1_000 * 1_000_000 == START + 40 * DAY_US
    series = shared.market.derivatives("BTCUSDT")
    for row in rows[-3:]:
        assert list(row) == ["symbol", "fundingTime", "fundingRate", "markPrice"]
        mark = series.mark_price(row["fundingTime"] // 1_000 * 1_000_000)
        assert Decimal(row["markPrice"]) == Decimal(mark.mark).scaleb(-8)
        assert Decimal(row["fundingRate"]) == Decimal(mark.funding_rate or 0).scaleb(-8)


def test_funding_rates_page_by_their_recorded_times(shared: Rest) -> None:
    everything = shared.get("fundingRate", symbol="BTCUSDT", startTime=0, limit=1_000)
    assert len(everything) == 121
    found, start = [], 0
    while page := shared.get("fundingRate", symbol="BTCUSDT", startTime=start, limit=7):
        found += page
        start = page[-1]["fundingTime"] + 1
    assert found == everything
    late = next(row for row in everything if row["fundingTime"] % 1_000)
    hour = late["fundingTime"] // 1_000 * 1_000
    between = shared.get("fundingRate", symbol="BTCUSDT", startTime=hour, endTime=hour + 60_000)
    assert between == [late]
    before = {"startTime": hour - 1_000, "endTime": late["fundingTime"] - 1}
    assert shared.get("fundingRate", symbol="BTCUSDT", **before) == []


def test_funding_rates_of_all_contracts_come_together(shared: Rest) -> None:
    rows = shared.get("fundingRate", limit=50)
    assert {row["symbol"] for row in rows} == {"BTCUSDT", "KEEPUSDT"}
    assert [row["fundingTime"] for row in rows] == sorted(row["fundingTime"] for row in rows)
    assert shared.error("fundingRate", symbol="NOSUCHUSDT")[0] == -1121
    assert shared.error("fundingRate", symbol="BTCUSDT", limit=1_001)[0] == -1130


def test_funding_info_lists_only_adjusted_contracts(rest: Rest) -> None:
    assert "BTCUSDT" not in {row["symbol"] for row in rest.get("fundingInfo")}
    changed_us = START + DAY_US
    rest.market.derivatives("BTCUSDT").set_intervals((IntervalChange(changed_us, 4),))
    (row,) = (row for row in rest.get("fundingInfo") if row["symbol"] == "BTCUSDT")
    assert row == {
        "symbol": "BTCUSDT",
        "adjustedFundingRateCap": "0.02000000",
        "adjustedFundingRateFloor": "-0.02000000",
        "fundingIntervalHours": 4,
        "disclaimer": False,
        "updateTime": changed_us // 1_000,
    }


def test_premium_index_agrees_with_the_settlements(shared: Rest) -> None:
    row = shared.get("premiumIndex", symbol="BTCUSDT")
    assert row["nextFundingTime"] * 1_000 == START + 40 * DAY_US + 8 * HOUR
    assert {one["symbol"] for one in shared.get("premiumIndex")} == {"BTCUSDT", "KEEPUSDT"}


# --- open interest and ratios


def test_open_interest_is_the_current_one(shared: Rest) -> None:
    row = shared.get("openInterest", symbol="BTCUSDT")
    last = shared.get("futures/data/openInterestHist", symbol="BTCUSDT", period="5m")[-1]
    assert (row["symbol"], row["time"]) == ("BTCUSDT", NOW // 1_000)
    assert Decimal(row["openInterest"]) == Decimal(last["sumOpenInterest"])


# --- faults


def test_late_series_omit_their_latest_rows(rest: Rest) -> None:
    before = rest.get("fundingRate", symbol="BTCUSDT")
    assert isinstance(rest.faults, FaultRules)
    rest.faults.add(RestRule(effect=SeriesLag(lag_us=3 * HOUR), endpoint="fundingRate"))
    rest.faults.add(RestRule(effect=SeriesLag(lag_us=2 * HOUR), endpoint="openInterestHist"))
    assert rest.get("fundingRate", symbol="BTCUSDT")[-1] == before[-2]
    rows = rest.get("futures/data/openInterestHist", symbol="BTCUSDT", period="1h")
    assert rows[-1]["timestamp"] == (NOW // HOUR - 2) * HOUR // 1_000
    ratios = rest.get("futures/data/takerlongshortRatio", symbol="BTCUSDT", period="1h")
    assert ratios[-1]["timestamp"] == NOW // HOUR * HOUR // 1_000


def test_negative_open_interest_is_served_by_both_endpoints(rest: Rest) -> None:
    rest.market.derivatives("BTCUSDT").negative = ((NOW - HOUR, NOW + HOUR),)
    assert rest.get("openInterest", symbol="BTCUSDT")["openInterest"].startswith("-")
    rows = rest.get("futures/data/openInterestHist", symbol="BTCUSDT", period="1h")
    assert rows[-1]["sumOpenInterest"].startswith("-")
    assert rows[-1]["sumOpenInterestValue"].startswith("-")
    assert not rows[-2]["sumOpenInterest"].startswith("-")


def test_coin_m_has_price_klines_of_pairs_and_funding_of_perpetuals() -> None:
    market = SimulatedMarket(
        select_instruments("cm", ("BTCUSD_PERP", "BTCUSD_260327"), seed=1), seed=1, start_us=START
    )
    clock = SimulatedClock(start_us=NOW, speed=0)
    venue = MarketVenue("cm", market, clock, kline_lag_us=0, trade_lag_us=0)
    table = {one.name: one for one in RestEndpoints(venue, clock, weight_limit=10).table()}

    def get(name: str, **query: str) -> Any:
        params = QueryParameters(query, table[name].known, is_strict=False)
        return table[name].handler(params, 1_000)

    dated, perpetual = market.derivatives("BTCUSD_260327"), market.derivatives("BTCUSD_PERP")
    rows = get("indexPriceKlines", pair="BTCUSD", interval="1h", limit="5")
    assert len(rows) == 5
    at_us = NOW // HOUR * HOUR
    assert dated.mark_price(at_us).index_price == perpetual.mark_price(at_us).index_price
    assert dated.mark_price(at_us).mark != perpetual.mark_price(at_us).mark
    assert dated.mark_price(at_us).next_funding_us is None
    assert get("fundingRate", symbol="BTCUSD_260327") == []
    assert len(get("fundingRate", symbol="BTCUSD_PERP")) == 100
    assert get("openInterest", symbol="BTCUSD_260327")["pair"] == "BTCUSD"
