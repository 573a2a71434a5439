"""Markets that refuse this address: left alone by all of raw capture that asks them by id.

A firewall lets an address go that has been quiet. Holes and tails are asked for side by side, and
each has up to thousands: one refusal is an answer to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from include.domain.instruments import Market

LASTING_AFTER = 10
"""Refusals in succession, with a wait of about ten minutes before each further one: a firewall
that lets an address go has done so by then."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a market refuses this address.

    Attributes:
        reason: what it said last.
        until_s: it is left alone until then; monotonic.
        times: how often it was asked and refused, in succession.
    """

    reason: str
    until_s: float
    times: int

    @property
    def is_lasting(self) -> bool:
        """Whether it has refused for so long that it may do so for good."""
        return self.times >= LASTING_AFTER


class Refusals:
    """Which markets refuse this address, for all who ask them."""

    def __init__(self) -> None:
        self._refusals: dict[Market, Refusal] = {}

    def note(self, market: Market, reason: str, *, now_s: float, wait_s: float) -> bool:
        """A market refused; whether that is news.

        Args:
            now_s: monotonic clock.
            wait_s: how long to leave it alone.
        """
        before = self._refusals.get(market)
        times = 1 if before is None else before.times
        if before is not None and now_s >= before.until_s:
            times += 1  # else two had asked at the same time
        self._refusals[market] = Refusal(reason, now_s + wait_s, times)
        return before is None

    def served(self, market: Market) -> None:
        """A market serves this address."""
        self._refusals.pop(market, None)

    def at(self, market: Market, now_s: float) -> Refusal | None:
        """How a market refuses while it is left alone; None where it may be asked."""
        refusal = self._refusals.get(market)
        return None if refusal is None or now_s >= refusal.until_s else refusal
