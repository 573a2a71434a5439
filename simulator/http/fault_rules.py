"""Active fault rules of a server: added and removed while it runs, counted when they hit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar


class Limited(Protocol):
    """What every rule tells: after how many hits it ends by itself; None: never."""

    @property
    def times(self) -> int | None: ...


Rule = TypeVar("Rule", bound=Limited)


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


class Switchboard(Generic[Rule]):
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
