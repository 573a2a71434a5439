"""Fault rules of a server: added and removed while it runs, and counted when they apply."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

_BOUNDS = {
    "rows": (1, math.inf),
    "times": (1, math.inf),
    "flips": (1, math.inf),
    "delay_us": (1, math.inf),
    "lag_us": (0, math.inf),
    "keep_percent": (0, 99),  # the body is always shortened
    "status": (400, 599),
    "seconds": (0, 600.0),  # longer than any client waits
}
"""Inclusive bounds of the values of effects and rules, by the name of their field."""


class CheckedFields:
    """Base of effects and rules: raises ValueError for a value outside its bounds."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, (lowest, highest) in _BOUNDS.items():
            value = getattr(self, name, None)
            if value is not None and not lowest <= value <= highest:
                allowed = f"at least {lowest}" if highest == math.inf else f"{lowest} to {highest}"
                raise ValueError(f"{name} is {value}; it must be {allowed}")


class LimitedRule(Protocol):
    """A rule with an effect; it may expire after a number of hits."""

    @property
    def times(self) -> int | None: ...

    @property
    def effect(self) -> Any: ...


Rule = TypeVar("Rule", bound=LimitedRule)
Effect = TypeVar("Effect")


@dataclass(frozen=True, slots=True)
class ActiveRule(Generic[Rule]):
    """A rule and its number of hits so far."""

    rule_id: int
    rule: Rule
    hits: int

    @property
    def is_spent(self) -> bool:
        """Whether the rule has reached its maximum number of hits."""
        return self.rule.times is not None and self.hits >= self.rule.times


class FaultRules(Generic[Rule]):
    """Active rules by id. Safe between threads; a lookup without rules reads one attribute.

    Attributes:
        is_idle: no rule is active.
    """

    def __init__(self) -> None:
        self._active: dict[int, ActiveRule[Rule]] = {}
        self._last_id = 0
        self._lock = threading.Lock()
        self.is_idle = True

    def add(self, rule: Rule) -> int:
        """Activate a rule and return its id."""
        with self._lock:
            self._last_id += 1
            self._active[self._last_id] = ActiveRule(self._last_id, rule, 0)
            self.is_idle = False
            return self._last_id

    def remove(self, rule_id: int) -> int:
        """Remove a rule and return its hits. Raises KeyError for an unknown id."""
        with self._lock:
            ended = self._active.pop(rule_id)
            self.is_idle = not self._active
            return ended.hits

    def clear(self) -> None:
        """Remove all rules."""
        with self._lock:
            self._active.clear()
            self.is_idle = True

    def active(self) -> list[ActiveRule[Rule]]:
        """Return all rules that were not removed, oldest first, including spent ones."""
        with self._lock:
            return list(self._active.values())

    def matching(self, fits: Callable[[Rule], bool], *, counts: bool = True) -> list[Rule]:
        """Return the matching rules, oldest first, and count a hit for each if `counts`."""
        if self.is_idle:
            return []
        with self._lock:
            found = [
                entry for entry in self._active.values() if not entry.is_spent and fits(entry.rule)
            ]
            if counts:
                for entry in found:
                    self._active[entry.rule_id] = replace(entry, hits=entry.hits + 1)
            return [entry.rule for entry in found]

    def matching_effects(
        self,
        kinds: type[Effect] | tuple[type[Effect], ...],
        fits: Callable[[Rule], bool],
        *,
        counts: bool = True,
    ) -> list[Effect]:
        """Return the effects of these kinds whose rules match, oldest first."""
        rules = self.matching(
            lambda rule: isinstance(rule.effect, kinds) and fits(rule), counts=counts
        )
        return [rule.effect for rule in rules]
