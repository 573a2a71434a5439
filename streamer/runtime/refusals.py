"""Pause requests to markets that refuse this address.

A firewall releases an address after a pause. Thousands of missing ids and trailing trades may be
requested concurrently, so one refusal pauses all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from include.domain.instruments import Market

LASTING_AFTER = 10
"""Consecutive refusals, about ten minutes apart, after which a refusal counts as lasting: a
temporary block would have ended by then."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusal of this address by a market.

    Attributes:
        reason: its last message.
        until_s: end of the pause; monotonic.
        times: consecutive refusals.
    """

    reason: str
    until_s: float
    times: int

    @property
    def is_lasting(self) -> bool:
        """Whether the refusal has lasted so long that it may be permanent."""
        return self.times >= LASTING_AFTER


class Refusals:
    """Tracks which markets refuse this address, for all requests of the process."""

    def __init__(self) -> None:
        self._refusals: dict[Market, Refusal] = {}

    def note(self, market: Market, reason: str, *, now_s: float, wait_s: float) -> bool:
        """Record a refusal by a market; return whether it is the market's first.

        Args:
            now_s: monotonic clock.
            wait_s: seconds without requests to the market.
        """
        before = self._refusals.get(market)
        times = 1 if before is None else before.times
        if before is not None and now_s >= before.until_s:
            times += 1  # otherwise two requests ran at the same time
        self._refusals[market] = Refusal(reason, now_s + wait_s, times)
        return before is None

    def served(self, market: Market) -> None:
        """Record that a market serves this address."""
        self._refusals.pop(market, None)

    def at(self, market: Market, now_s: float) -> Refusal | None:
        """Return the refusal of a market during its pause; None if requests are allowed."""
        refusal = self._refusals.get(market)
        return None if refusal is None or now_s >= refusal.until_s else refusal
