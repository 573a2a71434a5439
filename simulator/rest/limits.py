"""Request weight per client address and clock minute."""

import math
from dataclasses import dataclass

from simulator.clock import MINUTE_US, SECOND_US, SimulatedClock

_REFUSALS_BEFORE_BAN = 20
_FIRST_BAN_US = 120 * SECOND_US
_MAX_BAN_US = 3 * 86_400 * SECOND_US


@dataclass(frozen=True, slots=True)
class WeightCharge:
    """The limiter's answer to one request.

    Attributes:
        status: 200, 429 (too much weight) or 418 (banned after further requests).
        used: weight of this minute, as in `X-MBX-USED-WEIGHT-1M`.
        retry_after_s: real seconds until a retry makes sense.
        banned_until_us: simulated time at which a ban ends.
    """

    status: int
    used: int
    retry_after_s: int = 0
    banned_until_us: int = 0


@dataclass(slots=True)
class _Account:
    minute: int = -1
    used: int = 0
    refusals: int = 0
    bans: int = 0
    banned_until_us: int = 0


class WeightLimiter:
    """Weight of all requests of one market, per client address.

    Args:
        limit: weight allowed per clock minute.
    """

    def __init__(self, limit: int, clock: SimulatedClock) -> None:
        self.limit = limit
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
        if account.minute != now_us // MINUTE_US:
            account.minute = now_us // MINUTE_US
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
        left_us = (account.minute + 1) * MINUTE_US - now_us
        return WeightCharge(429, account.used, self._real_seconds(left_us))

    def _real_seconds(self, span_us: int) -> int:
        seconds = self._clock.real_seconds(span_us)
        return 60 if math.isinf(seconds) else max(1, math.ceil(seconds))
