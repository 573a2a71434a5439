"""Active fault rules of a server: added and removed while it runs, counted when they hit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

_MAX_WAIT_S = 600.0


class LimitedRule(Protocol):
    """What every rule tells: after how many hits it ends by itself; None: never."""

    @property
    def times(self) -> int | None: ...


Rule = TypeVar("Rule", bound=LimitedRule)


@dataclass(frozen=True, slots=True)
class ActiveRule(Generic[Rule]):
    """One rule, with how often it has hit so far."""

    rule_id: int
    rule: Rule
    hits: int

    @property
    def is_spent(self) -> bool:
        """Whether it has hit as often as it may."""
        return self.rule.times is not None and self.hits >= self.rule.times


class FaultRules(Generic[Rule]):
    """Rules by id; safe between threads. Without rules a look-up is one attribute.

    Attributes:
        is_idle: no rule is active.
    """

    def __init__(self) -> None:
        self._active: dict[int, ActiveRule[Rule]] = {}
        self._last_id = 0
        self._lock = threading.Lock()
        self.is_idle = True

    def add(self, rule: Rule) -> int:
        """Activates a rule at once and returns its id."""
        with self._lock:
            self._last_id += 1
            self._active[self._last_id] = ActiveRule(self._last_id, rule, 0)
            self.is_idle = False
            return self._last_id

    def remove(self, rule_id: int) -> int:
        """Ends a rule and returns how often it hit; raises KeyError for an unknown id."""
        with self._lock:
            ended = self._active.pop(rule_id)
            self.is_idle = not self._active
            return ended.hits

    def clear(self) -> None:
        """Ends all rules."""
        with self._lock:
            self._active.clear()
            self.is_idle = True

    def active(self) -> list[ActiveRule[Rule]]:
        """All rules that were not removed, oldest first; spent ones too."""
        with self._lock:
            return list(self._active.values())

    def matching(self, fits: Callable[[Rule], bool], *, counts: bool = True) -> list[Rule]:
        """The rules that fit, oldest first; each counts as a hit unless `counts` is false."""
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
    """Refuses whole numbers below a bound."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")


def check_range(lowest: float, highest: float, **values: float) -> None:
    """Refuses numbers beyond bounds, which are allowed themselves."""
    for name, value in values.items():
        if not lowest <= value <= highest:
            raise ValueError(f"{name} is {value}; it must lie in {lowest} to {highest}")


def check_keep_percent(keep_percent: int) -> None:
    """Refuses what is no part of a body."""
    check_range(0, 99, keep_percent=keep_percent)


def check_error_status(status: int) -> None:
    """Refuses what is no error status of HTTP."""
    check_range(400, 599, status=status)


def check_wait(seconds: float) -> None:
    """Refuses waits that are longer than a client waits."""
    check_range(0, _MAX_WAIT_S, seconds=seconds)
