"""What a run of checks found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from include.errors import PermanentError

SHOWN_ROWS = 5
"""Rows of each broken rule that an error message names; the ledger holds more."""


@dataclass(frozen=True, slots=True)
class FailingRow:
    """A row, or a place where one should be, that breaks a rule.

    Attributes:
        minute: open time of the row, or first minute of the stretch, in UTC.
        detail: what is wrong with it, in words and figures.
    """

    symbol: str | None
    minute: datetime | None
    detail: str

    def __str__(self) -> str:
        minute = f"{self.minute:%Y-%m-%d %H:%M:%S}" if self.minute else "no time"
        return f"{self.symbol} {minute} ({self.detail})"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One rule over one window.

    Attributes:
        failing_count: all rows that break it.
        failing_rows: the first of them by symbol and minute.
    """

    name: str
    rule: str
    failing_count: int
    failing_rows: tuple[FailingRow, ...]

    @property
    def success(self) -> bool:
        """Whether every row keeps the rule."""
        return self.failing_count == 0

    def __str__(self) -> str:
        shown = self.failing_rows[:SHOWN_ROWS]
        more = self.failing_count - len(shown)
        rows = "; ".join(map(str, shown)) + (f"; and {more} more" if more else "")
        return f"{self.name} ({self.rule}): {rows}"


@dataclass(frozen=True, slots=True)
class QualityReport:
    """All rules over the minutes from ``start`` up to but without ``end``."""

    run_id: str
    start: datetime
    end: datetime
    results: tuple[CheckResult, ...]

    @property
    def success(self) -> bool:
        """Whether every rule is kept."""
        return all(result.success for result in self.results)

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The rules that are broken."""
        return tuple(result for result in self.results if not result.success)

    def raise_for_failures(self) -> None:
        """Do nothing if every rule is kept.

        Raises:
            PermanentError: names each broken rule and the first rows that break it.
        """
        if not self.success:
            broken = "\n  ".join(map(str, self.failures))
            raise PermanentError(
                f"market.candles_1m from {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} "
                f"UTC breaks {len(self.failures)} of {len(self.results)} rules; all rows are in "
                f"ops.quality_results under run_id {self.run_id!r}:\n  {broken}"
            )
