"""Request weights, compared with the exchange's published tables, and their limit."""

from typing import Any

import pytest

from simulator.clock import MINUTE_US, SECOND_US, SimulatedClock
from simulator.rest.limits import POOLS, WEIGHTS, WeightLimiter


class _SetClock(SimulatedClock):
    def __init__(self, time_us: int) -> None:
        super().__init__(start_us=time_us, speed=1.0)
        self.time_us = time_us

    def now_us(self) -> int:
        return self.time_us


@pytest.fixture
def clock() -> _SetClock:
    return _SetClock(100 * MINUTE_US + 48 * SECOND_US)


def test_weight_adds_up_within_a_minute_and_resets_with_the_next(clock: _SetClock) -> None:
    limiter = WeightLimiter(100, clock)
    assert [limiter.charge("a", 40).used for _ in range(2)] == [40, 80]
    clock.time_us = 101 * MINUTE_US - 1
    assert limiter.charge("a", 20).status == 200
    clock.time_us = 101 * MINUTE_US
    assert limiter.charge("a", 5).used == 5


def test_addresses_are_counted_separately(clock: _SetClock) -> None:
    limiter = WeightLimiter(10, clock)
    assert limiter.charge("a", 10).status == 200
    assert limiter.charge("b", 10).status == 200
    assert limiter.charge("a", 1).status == 429


def test_too_much_weight_gets_a_retry_after(clock: _SetClock) -> None:
    limiter = WeightLimiter(10, clock)
    verdict = limiter.charge("a", 11)
    assert (verdict.status, verdict.used, verdict.retry_after_s) == (429, 11, 12)
    clock.time_us += 12 * SECOND_US
    assert limiter.charge("a", 2).status == 200


def test_a_longer_period_is_aligned_with_the_clock(clock: _SetClock) -> None:
    limiter = WeightLimiter(10, clock, period_us=5 * MINUTE_US)
    assert limiter.charge("a", 10).status == 200
    clock.time_us = 104 * MINUTE_US
    assert limiter.charge("a", 1).retry_after_s == 60
    clock.time_us = 105 * MINUTE_US
    assert limiter.charge("a", 10).status == 200


def test_endpoints_of_futures_share_numbers_of_requests() -> None:
    shared = {pool.limit: {name for name in WEIGHTS["um"] if pool.has(name)} for pool in POOLS}
    assert shared[500] == {"fundingRate", "fundingInfo"}
    assert shared[1_000] == {name for name in WEIGHTS["um"] if name.startswith("futures/data/")}
    assert all(pool.period_us == 5 * MINUTE_US for pool in POOLS)
    assert not any(pool.has(name) for pool in POOLS for name in WEIGHTS["spot"])


def test_further_requests_are_banned_until_the_ban_ends(clock: _SetClock) -> None:
    limiter = WeightLimiter(10, clock)
    statuses = [limiter.charge("a", 11).status for _ in range(22)]
    assert statuses == [429] * 20 + [418] * 2
    ban = limiter.charge("a", 1)
    assert ban.retry_after_s == 120
    clock.time_us = ban.banned_until_us - 1
    assert limiter.charge("a", 1).status == 418
    clock.time_us = ban.banned_until_us
    assert limiter.charge("a", 1).status == 200


def test_second_ban_lasts_longer(clock: _SetClock) -> None:
    limiter = WeightLimiter(10, clock)
    for _ in range(21):
        first = limiter.charge("a", 11)
    clock.time_us = first.banned_until_us
    for _ in range(21):
        second = limiter.charge("a", 11)
    assert (first.retry_after_s, second.retry_after_s) == (120, 240)


# --- weights

CASES: list[tuple[Any, str, dict[str, str], int]] = [
    ("spot", "depth", {}, 5),
    ("spot", "depth", {"limit": "100"}, 5),
    ("spot", "depth", {"limit": "101"}, 25),
    ("spot", "depth", {"limit": "500"}, 25),
    ("spot", "depth", {"limit": "501"}, 50),
    ("spot", "depth", {"limit": "1000"}, 50),
    ("spot", "depth", {"limit": "5000"}, 250),
    ("spot", "depth", {"limit": "many"}, 5),
    ("spot", "klines", {"limit": "1000"}, 2),
    ("spot", "uiKlines", {}, 2),
    ("spot", "trades", {}, 25),
    ("spot", "aggTrades", {}, 4),
    ("spot", "avgPrice", {}, 2),
    ("spot", "ticker", {"symbol": "A"}, 4),
    ("spot", "ticker", {"symbols": ",".join("A" * 5)}, 20),
    ("spot", "ticker", {"symbols": ",".join("A" * 80)}, 200),
    ("spot", "ticker/24hr", {"symbol": "A"}, 2),
    ("spot", "ticker/24hr", {"symbols": ",".join("A" * 20)}, 2),
    ("spot", "ticker/24hr", {"symbols": ",".join("A" * 21)}, 40),
    ("spot", "ticker/24hr", {"symbols": ",".join("A" * 101)}, 80),
    ("spot", "ticker/24hr", {}, 80),
    ("spot", "ticker/price", {"symbol": "A"}, 2),
    ("spot", "ticker/price", {}, 4),
    ("spot", "ticker/bookTicker", {"symbols": "[]"}, 4),
    ("um", "depth", {}, 10),
    ("um", "depth", {"limit": "50"}, 2),
    ("um", "depth", {"limit": "100"}, 5),
    ("um", "depth", {"limit": "1000"}, 20),
    ("um", "klines", {"limit": "100"}, 1),
    ("um", "klines", {"limit": "500"}, 2),
    ("um", "klines", {"limit": "1000"}, 5),
    ("um", "klines", {"limit": "1001"}, 10),
    ("um", "exchangeInfo", {}, 1),
    ("um", "trades", {}, 5),
    ("um", "historicalTrades", {}, 20),
    ("um", "ticker/price", {}, 2),
    ("um", "ticker/bookTicker", {"symbol": "A"}, 2),
    ("um", "ticker/bookTicker", {}, 5),
    ("um", "ticker/24hr", {}, 40),
]


@pytest.mark.parametrize(("market", "endpoint", "query", "weight"), CASES)
def test_request_has_its_published_weight(
    market: Any, endpoint: str, query: dict[str, str], weight: int
) -> None:
    assert WEIGHTS[market][endpoint](query) == weight
