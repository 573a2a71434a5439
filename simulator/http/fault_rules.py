"""Fault rules of a server: added and removed while it runs, and counted when they apply."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

_MAX_WAIT_S = 600.0


class LimitedRule(Protocol):
    """A rule that may expire after a number of hits."""

    @property
    def times(self) -> int | None: ...


Rule = TypeVar("Rule", bound=LimitedRule)


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


# --- checks of a fault's values


def check_minimum(least: int, **values: int) -> None:
    """Raise ValueError for an integer below a minimum."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def check_range(lowest: float, highest: float, **values: float) -> None:
    """Raise ValueError for a number outside a range; both ends are allowed."""
    for name, value in values.items():
        if not lowest <= value <= highest:
            raise ValueError(f"{name} is {value}; it must be {lowest} to {highest}")


def check_keep_percent(keep_percent: int) -> None:
    """Raise ValueError unless the body would be shortened."""
    check_range(0, 99, keep_percent=keep_percent)


def check_error_status(status: int) -> None:
    """Raise ValueError unless the status is an HTTP error."""
    check_range(400, 599, status=status)


def check_wait(seconds: float) -> None:
    """Raise ValueError for a wait longer than any client waits."""
    check_range(0, _MAX_WAIT_S, seconds=seconds)
