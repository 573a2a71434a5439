"""REST answers under `/futures/data`: open interest, ratios, taker volumes and basis."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from simulator.clock import DAY_US, MINUTE_US, SimulatedClock, to_us
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.market.quarters import deliveries
from simulator.rest.endpoints import RestEndpoints
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import KlineQuery, MarketVenue

START = to_us(datetime(2026, 2, 20, tzinfo=UTC))
NOW = START + 40 * DAY_US + 7 * MINUTE_US + 30_500_000
HOUR = 60 * MINUTE_US
(DELIVERY, *_) = deliveries(START, NOW)  # on 2026-03-27, within the thirty days
DATA = (
    "openInterestHist", "topLongShortAccountRatio", "topLongShortPositionRatio",
    "globalLongShortAccountRatio", "takerlongshortRatio",
)  # fmt: skip
SYMBOLS: dict[MarketName, tuple[str, ...]] = {
    "um": ("BTCUSDT", "BTCUSDT_QUARTER"),
    "cm": ("BTCUSD_PERP", "BTCUSD_QUARTER", "ETHUSD_PERP"),
}


class Rest:
    """The endpoints of a stopped exchange."""

    def __init__(self, name: MarketName) -> None:
        instruments = select_instruments(
            name, SYMBOLS[name], seed=1, period_us=(START, NOW + 200 * DAY_US)
        )
        self.market = SimulatedMarket(instruments, seed=1, start_us=START)
        clock = SimulatedClock(start_us=NOW, speed=0)
        self.venue = MarketVenue(name, self.market, clock, kline_lag_us=0, trade_lag_us=0)
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

    def klines(self, symbol: str, start_us: int, end_us: int) -> list[list[Any]]:
        """The oracle's minutes that open in a period; the end is exclusive."""
        query = KlineQuery(
            symbol=symbol, interval=parse_interval("1m"), start_us=start_us, end_us=end_us - 1,
            is_oracle=True,
        )  # fmt: skip
        return self.venue.klines(query, unit_us=1_000)


@pytest.fixture(scope="module")
def shared() -> Rest:
    return Rest("um")


@pytest.fixture(scope="module")
def coin() -> Rest:
    return Rest("cm")


@pytest.mark.parametrize("period", ["5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d"])
@pytest.mark.parametrize("name", DATA)
def test_statistics_have_rows_at_multiples_of_the_period(
    shared: Rest, name: str, period: str
) -> None:
    step = {"m": MINUTE_US, "h": HOUR, "d": DAY_US}[period[-1]] * int(period[:-1]) // 1_000
    rows = shared.get(f"futures/data/{name}", symbol="BTCUSDT", period=period, limit=40)
    times = [row["timestamp"] for row in rows]
    assert times[-1] == NOW // 1_000 // step * step
    assert times == list(range(times[0], times[-1] + 1, step))
    assert len(rows) == (30 if period == "1d" else 40)


@pytest.mark.parametrize("name", DATA)
def test_statistics_serve_thirty_days(shared: Rest, name: str) -> None:
    path = f"futures/data/{name}"
    oldest = (NOW - 30 * DAY_US) // 1_000
    query = {"symbol": "BTCUSDT", "period": "1h"}
    assert len(shared.get(path, **query)) == 30
    assert shared.get(path, **query, startTime=oldest + 1, limit=2)[0]["timestamp"] - oldest < (
        3_600_000
    )
    wrong = (-1130, "parameter 'startTime' is invalid.")
    assert shared.error(path, **query, startTime=oldest - 1_000) == wrong
    assert shared.get(path, **query, endTime=oldest - 1_000) == []
    assert shared.error(path, symbol="BTCUSDT", period="1m") == (
        -1130, "parameter 'period' is invalid.",
    )  # fmt: skip
    assert shared.error(path, symbol="BTCUSDT")[0] == -1102
    assert shared.error(path, **query, limit=501)[0] == -1130
    assert shared.error(path, symbol="NOSUCHUSDT", period="1h")[0] == -1121


def test_open_interest_value_is_at_the_mark_price(shared: Rest) -> None:
    rows = shared.get("futures/data/openInterestHist", symbol="BTCUSDT", period="1h", limit=3)
    series = shared.market.derivatives("BTCUSDT")
    for row in rows:
        mark = Decimal(series.mark_price(row["timestamp"] * 1_000).mark).scaleb(-8)
        exact = Decimal(row["sumOpenInterest"]) * mark
        assert Decimal(row["sumOpenInterestValue"]) == exact.quantize(
            Decimal("1e-8"), rounding="ROUND_DOWN"
        )


def test_ratios_are_of_long_to_short(shared: Rest) -> None:
    for name in DATA[1:4]:
        for row in shared.get(f"futures/data/{name}", symbol="BTCUSDT", period="5m"):
            long, short = Decimal(row["longAccount"]), Decimal(row["shortAccount"])
            assert long + short == 1
            assert abs(Decimal(row["longShortRatio"]) - long / short) < Decimal("0.0001")


@pytest.mark.parametrize("period", ["5m", "1h"])
def test_taker_volumes_are_those_of_the_trades(shared: Rest, period: str) -> None:
    rows = shared.get("futures/data/takerlongshortRatio", symbol="BTCUSDT", period=period, limit=5)
    step_us = (5 if period == "5m" else 60) * MINUTE_US
    for row in rows:
        end_us = row["timestamp"] * 1_000
        klines = shared.klines("BTCUSDT", end_us - step_us, end_us)
        volume = sum(Decimal(str(kline[5])) for kline in klines)
        bought = sum(Decimal(str(kline[9])) for kline in klines)
        assert (Decimal(row["buyVol"]), Decimal(row["sellVol"])) == (bought, volume - bought)
        ratio = Decimal(row["buySellRatio"])
        assert abs(ratio - bought / (volume - bought)) < Decimal("0.0001")


def test_basis_is_the_price_less_the_index(shared: Rest) -> None:
    query = {"pair": "BTCUSDT", "contractType": "PERPETUAL", "period": "1h"}
    rows = shared.get("futures/data/basis", **query)
    assert len(rows) == 30
    for row in rows:
        price, index = Decimal(row["futuresPrice"]), Decimal(row["indexPrice"])
        assert Decimal(row["basis"]) == price - index
        assert abs(Decimal(row["basisRate"]) - (price - index) / index) < Decimal("0.0001")
        assert row["annualizedBasisRate"] == ""
    assert shared.error("futures/data/basis", **query | {"contractType": "X"})[0] == -1130
    assert shared.error("futures/data/basis", **query | {"pair": "X"})[0] == -4144


@pytest.mark.parametrize(
    ("kind", "symbols"),
    [
        ("CURRENT_QUARTER", ("BTCUSDT_260327", "BTCUSDT_260626")),
        ("NEXT_QUARTER", ("BTCUSDT_260626", "BTCUSDT_260925")),
    ],
)
def test_basis_of_a_dated_contract_continues_after_a_delivery(
    shared: Rest, kind: str, symbols: tuple[str, str]
) -> None:
    query = {"pair": "BTCUSDT", "contractType": kind, "period": "4h", "limit": 500}
    rows = shared.get("futures/data/basis", **query)
    step_ms = 4 * HOUR // 1_000
    times = [row["timestamp"] for row in rows]
    assert times == list(range(times[0], times[-1] + 1, step_ms))
    assert len(rows) == 180
    for row in rows:
        at_us = row["timestamp"] * 1_000
        symbol = symbols[at_us > DELIVERY]
        last = shared.klines(symbol, at_us - MINUTE_US, at_us)[-1]
        assert (row["pair"], row["contractType"]) == ("BTCUSDT", kind)
        assert row["futuresPrice"] == last[4]
        delivery_us = shared.market.history(symbol).delivery_us
        assert delivery_us is not None
        if at_us == delivery_us:
            continue
        rate = Decimal(row["basis"]) / Decimal(row["indexPrice"])
        yearly = rate * 365 * DAY_US / (delivery_us - at_us)
        assert abs(Decimal(row["annualizedBasisRate"]) - yearly) <= Decimal("0.0001")


# --- COIN-M


def test_coin_m_sums_open_interest_over_the_contracts_of_a_pair(coin: Rest) -> None:
    path, query = "futures/data/openInterestHist", {"pair": "BTCUSD", "period": "1h"}
    kinds = {
        kind: coin.get(path, **query, contractType=kind, limit=500)
        for kind in ("PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER", "ALL")
    }
    assert {kind: len(rows) for kind, rows in kinds.items()} == dict.fromkeys(kinds, 500)
    for parts in zip(*kinds.values(), strict=True):
        assert len({row["timestamp"] for row in parts}) == 1
        for name in ("sumOpenInterest", "sumOpenInterestValue"):
            *each, total = (Decimal(row[name]) for row in parts)
            assert sum(each) == total
    symbols = {"PERPETUAL": ("BTCUSD_PERP",) * 2, "CURRENT_QUARTER": ("BTCUSD_260327",
               "BTCUSD_260626"), "NEXT_QUARTER": ("BTCUSD_260626", "BTCUSD_260925")}  # fmt: skip
    for kind, (before, after) in symbols.items():
        for row in kinds[kind]:
            at_us = row["timestamp"] * 1_000
            series = coin.market.derivatives(after if at_us > DELIVERY else before)
            mark = Decimal(series.mark_price(at_us).mark).scaleb(-8)
            value = Decimal(row["sumOpenInterest"]) * 100 / mark
            assert Decimal(row["sumOpenInterestValue"]) == value.quantize(
                Decimal("1e-8"), rounding="ROUND_DOWN"
            )
            assert (row["pair"], row["contractType"]) == ("BTCUSD", kind)


def test_coin_m_has_taker_volumes_in_contracts_and_in_the_base_asset(coin: Rest) -> None:
    symbols = {"PERPETUAL": ["BTCUSD_PERP"], "NEXT_QUARTER": ["BTCUSD_260925"],
               "ALL": ["BTCUSD_PERP", "BTCUSD_260626", "BTCUSD_260925"]}  # fmt: skip
    for kind, names in symbols.items():
        query = {"pair": "BTCUSD", "contractType": kind, "period": "15m", "limit": 3}
        for row in coin.get("futures/data/takerBuySellVol", **query):
            end_us = row["timestamp"] * 1_000
            klines = [
                one for name in names for one in coin.klines(name, end_us - 15 * MINUTE_US, end_us)
            ]
            volume, bought = (sum(Decimal(one[cell]) for one in klines) for cell in (5, 9))
            assert (row["takerBuyVol"], row["takerSellVol"]) == (
                str(bought), str(volume - bought),
            )  # fmt: skip
            base, bought_base = (sum(Decimal(one[cell]) for one in klines) for cell in (7, 10))
            assert abs(Decimal(row["takerBuyVolValue"]) - bought_base) < Decimal("0.0002")
            assert abs(Decimal(row["takerSellVolValue"]) - (base - bought_base)) < Decimal("0.0002")


def test_coin_m_has_ratios_of_pairs(coin: Rest) -> None:
    for name in DATA[1:4]:
        path = f"futures/data/{name}"
        rows = coin.get(path, pair="BTCUSD", period="5m")
        part = "Position" if name == DATA[2] else "Account"
        assert {row["pair"] for row in rows} == {"BTCUSD"}
        for row in rows:
            long, short = Decimal(row[f"long{part}"]), Decimal(row[f"short{part}"])
            assert long + short == 1
        assert coin.get(path, symbol="BTCUSD", period="5m") == rows
        assert coin.get(path, symbol="BTCUSD_PERP", period="5m") == rows
        assert coin.error(path, pair="XUSD", period="5m") == (-4087, "Invalid pair.")
        assert coin.error(path, period="5m")[0] == -1102


def test_coin_m_needs_a_contract_type(coin: Rest) -> None:
    for name in ("openInterestHist", "takerBuySellVol", "basis"):
        query = {"pair": "BTCUSD", "period": "1h"}
        assert coin.error(f"futures/data/{name}", **query)[0] == -1102
        assert coin.error(f"futures/data/{name}", **query, contractType="X")[0] == -1130
    assert coin.error("futures/data/basis", **query, contractType="ALL")[0] == -1130
    only = {"pair": "ETHUSD", "contractType": "NEXT_QUARTER", "period": "1h"}
    assert coin.get("futures/data/basis", **only) == []
    assert coin.get("futures/data/openInterestHist", **only) == []


def test_delivery_prices_are_those_of_the_pair(coin: Rest) -> None:
    rows = coin.get("futures/data/delivery-price", pair="BTCUSD")
    assert [row["deliveryTime"] for row in rows] == [DELIVERY // 1_000]
    assert coin.get("futures/data/delivery-price", pair="ETHUSD") == []
    assert coin.error("futures/data/delivery-price", pair="XUSD")[0] == -4087
