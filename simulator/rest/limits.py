"""Request weights from the exchange's documentation, and their limits per address.

Some endpoints of futures share a further limit, on the number of requests in five minutes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simulator.clock import MINUTE_US, SECOND_US, SimulatedClock
from simulator.market.instruments import MarketName
from simulator.rest.parameters import INTEGER

_REFUSALS_BEFORE_BAN = 20
_FIRST_BAN_US = 120 * SECOND_US
_MAX_BAN_US = 3 * 86_400 * SECOND_US


@dataclass(frozen=True, slots=True)
class WeightCharge:
    """The limiter's answer to one request.

    Attributes:
        status: 200, 429 (too much weight) or 418 (banned after further requests).
        used: weight of this period, by minute as in `X-MBX-USED-WEIGHT-1M`.
        retry_after_s: real seconds until a retry makes sense.
        banned_until_us: simulated time at which a ban ends.
    """

    status: int
    used: int
    retry_after_s: int = 0
    banned_until_us: int = 0


@dataclass(slots=True)
class _Account:
    period: int = -1
    used: int = 0
    refusals: int = 0
    bans: int = 0
    banned_until_us: int = 0


class WeightLimiter:
    """Weight of all requests of one market, per client address.

    Args:
        limit: weight allowed per period.
        period_us: length of the periods, which are aligned with the clock.
    """

    def __init__(self, limit: int, clock: SimulatedClock, *, period_us: int = MINUTE_US) -> None:
        self.limit = limit
        self.period_us = period_us
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def charge(self, address: str, weight: int) -> WeightCharge:
        """Count one request; refused requests cost their weight too."""
        now_us = self._clock.now_us()
        account = self._accounts.setdefault(address, _Account())
        if now_us < account.banned_until_us:
            return WeightCharge(
                418,
                account.used,
                self._real_seconds(account.banned_until_us - now_us),
                account.banned_until_us,
            )
        if account.period != now_us // self.period_us:
            account.period = now_us // self.period_us
            account.used = 0
            account.refusals = 0
        account.used += weight
        if account.used <= self.limit:
            return WeightCharge(200, account.used)
        account.refusals += 1
        if account.refusals > _REFUSALS_BEFORE_BAN:
            span_us = min(_MAX_BAN_US, _FIRST_BAN_US << min(account.bans, 20))
            account.bans += 1
            account.banned_until_us = now_us + span_us
            return WeightCharge(418, account.used, self._real_seconds(span_us), now_us + span_us)
        left_us = (account.period + 1) * self.period_us - now_us
        return WeightCharge(429, account.used, self._real_seconds(left_us))

    def _real_seconds(self, span_us: int) -> int:
        seconds = self._clock.real_seconds(span_us)
        return 60 if math.isinf(seconds) else max(1, math.ceil(seconds))


# --- weights; refused requests cost the same

Weigh = Callable[[Mapping[str, str]], int]


def fixed(weight: int) -> Weigh:
    """Return the same weight for every request."""
    return lambda _query: weight


def by_limit(default: int, *steps: tuple[int, int], above: int) -> Weigh:
    """Weigh by the parameter `limit`: the weight of the first step that includes it.

    Args:
        default: limit if none was sent, or if it is not a number.
        steps: (maximum limit, weight), ascending.
        above: weight beyond the last step.
    """

    def weigh(query: Mapping[str, str]) -> int:
        text = query.get("limit", "")
        limit = int(text) if INTEGER.match(text) else default
        return next((weight for bound, weight in steps if limit <= bound), above)

    return weigh


def by_symbols(one: int, everything: int) -> Weigh:
    """Return one weight for requests with `symbol`, another for those without."""
    return lambda query: one if "symbol" in query else everything


def _windows(query: Mapping[str, str]) -> int:
    """Weigh `ticker`: 4 per symbol, at most 200."""
    return min(200, 4 * (query.get("symbols", "").count(",") + 1))


def _spot_statistics(query: Mapping[str, str]) -> int:
    """Weigh `ticker/24hr` on spot by the number of symbols."""
    if "symbol" in query:
        return 2
    if "symbols" not in query:
        return 80
    named = query["symbols"].count(",") + 1
    return 2 if named <= 20 else 40 if named <= 100 else 80


@dataclass(frozen=True, slots=True)
class RequestPool:
    """Endpoints that share a limit on the number of requests per address.

    Attributes:
        endpoints: prefixes of their names.
    """

    endpoints: tuple[str, ...]
    limit: int
    period_us: int = 5 * MINUTE_US

    def has(self, endpoint: str) -> bool:
        """Whether requests to the endpoint count."""
        return endpoint.startswith(self.endpoints)


POOLS: tuple[RequestPool, ...] = (
    RequestPool(("fundingRate", "fundingInfo"), 500),
    RequestPool(("futures/data/",), 1_000),
)


_FUTURES_KLINES = by_limit(500, (100, 1), (500, 2), (1_000, 5), above=10)

_FUTURES: dict[str, Weigh] = {
    "ping": fixed(1),
    "time": fixed(1),
    "exchangeInfo": fixed(1),
    "depth": by_limit(500, (50, 2), (100, 5), (500, 10), above=20),
    "trades": fixed(5),
    "historicalTrades": fixed(20),
    "aggTrades": fixed(20),
    "klines": _FUTURES_KLINES,
    "continuousKlines": _FUTURES_KLINES,
    "ticker/24hr": by_symbols(1, 40),
    "ticker/price": by_symbols(1, 2),
    "ticker/bookTicker": by_symbols(2, 5),
    "markPriceKlines": _FUTURES_KLINES,
    "indexPriceKlines": _FUTURES_KLINES,
    "premiumIndexKlines": _FUTURES_KLINES,
    "fundingRate": fixed(0),
    "fundingInfo": fixed(0),
    "openInterest": fixed(1),
    "futures/data/openInterestHist": fixed(0),
    "futures/data/topLongShortAccountRatio": fixed(0),
    "futures/data/topLongShortPositionRatio": fixed(0),
    "futures/data/globalLongShortAccountRatio": fixed(0),
    "futures/data/basis": fixed(0),
    "futures/data/delivery-price": fixed(0),
}

WEIGHTS: dict[MarketName, dict[str, Weigh]] = {
    "spot": {
        "ping": fixed(1),
        "time": fixed(1),
        "exchangeInfo": fixed(20),
        "depth": by_limit(100, (100, 5), (500, 25), (1_000, 50), above=250),
        "trades": fixed(25),
        "historicalTrades": fixed(25),
        "aggTrades": fixed(4),
        "klines": fixed(2),
        "uiKlines": fixed(2),
        "avgPrice": fixed(2),
        "ticker": _windows,
        "ticker/24hr": _spot_statistics,
        "ticker/price": by_symbols(2, 4),
        "ticker/bookTicker": by_symbols(2, 4),
    },
    "um": {
        **_FUTURES,
        "premiumIndex": by_symbols(1, 10),
        "futures/data/takerlongshortRatio": fixed(0),
    },
    "cm": {
        **_FUTURES,
        "premiumIndex": fixed(10),
        "futures/data/takerBuySellVol": fixed(0),
    },
}
