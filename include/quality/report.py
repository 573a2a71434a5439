"""The result of a quality run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from include.counts import counted
from include.errors import PermanentError
from include.quality.check import Severity
from include.quality.limits import ScopeKind
from include.quality.open_faults import Spans, united

SHOWN_ROWS = 5
"""Rows of each failed rule that an error message shows; the ledger has more."""


@dataclass(frozen=True, slots=True)
class FailingRow:
    """A row that fails a rule, or the place of a missing row.

    Attributes:
        symbol: None if the fault concerns no single symbol.
        minute: open time of the row, or first minute of the range, in UTC; for other rows the time
            that identifies them.
        detail: description of the fault, with figures.
        key: further identification: the id of a trade, the path of a file.
    """

    symbol: str | None
    minute: datetime | None
    detail: str
    key: str | None = None

    def __str__(self) -> str:
        minute = f"{self.minute:%Y-%m-%d %H:%M:%S}" if self.minute else "no time"
        return f"{' '.join(filter(None, (self.symbol, minute, self.key)))} ({self.detail})"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of one rule, over everything that a run checked.

    Attributes:
        failing_count: number of failing rows.
        failing_rows: some of them: the first of each symbol, then the second of each, and so on.
        open_spans: time spans of all failing rows.
    """

    suite: str
    name: str
    rule: str
    severity: Severity
    failing_count: int
    failing_rows: tuple[FailingRow, ...]
    open_spans: Spans = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether every row passed."""
        return self.failing_count == 0

    def __str__(self) -> str:
        shown = self.failing_rows[:SHOWN_ROWS]
        more = self.failing_count - len(shown)
        rows = "; ".join(map(str, shown)) + (f"; and {more} more" if more else "")
        return f"{self.name} ({self.rule}): {rows}"

    def with_more(self, other: CheckResult, *, max_rows: int) -> CheckResult:
        """Combine results of the same rule over this and another part of the rows.

        A row or gap at the boundary of both parts is counted once.
        """
        again = sum(row in self.failing_rows for row in other.failing_rows)
        rows = tuple(dict.fromkeys((*self.failing_rows, *other.failing_rows)))[:max_rows]
        count = self.failing_count + other.failing_count - again
        spans = united(self.open_spans, other.open_spans)
        return CheckResult(self.suite, self.name, self.rule, self.severity, count, rows, spans)


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Results of all rules, over everything that a run checked.

    Attributes:
        start: of the window; for changed rows the end of the last run; None: everything.
        end: exclusive.
        candles, trades: rows checked.
        symbols: symbols whose candles were checked.
    """

    run_id: str
    scope: ScopeKind
    start: datetime | None
    end: datetime
    results: tuple[CheckResult, ...]
    symbols: int = 0
    candles: int = 0
    trades: int = 0

    @property
    def success(self) -> bool:
        """Whether every rule passed, apart from warnings."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """Failed rules of severity error."""
        return self._broken(Severity.ERROR)

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """Failed rules of severity warning."""
        return self._broken(Severity.WARNING)

    def _broken(self, severity: Severity) -> tuple[CheckResult, ...]:
        return tuple(
            result for result in self.results if not result.success and result.severity is severity
        )

    @property
    def checked_period(self) -> str:
        """Describe what was checked."""
        end = f"{self.end:%Y-%m-%d %H:%M} UTC"
        if self.scope is ScopeKind.ALL or self.start is None:
            return f"everything up to {end}"
        start = f"{self.start:%Y-%m-%d %H:%M}"
        if self.scope is ScopeKind.CHANGED:
            return f"changes from {start} to {end}"
        return f"from {start} to {end}"

    @property
    def summary(self) -> dict[str, object]:
        """Return counts and names for JSON; the rows are in the database."""
        return {
            "run_id": self.run_id,
            "checked_period": self.checked_period,
            "symbols": self.symbols,
            "candles": self.candles,
            "trades": self.trades,
            "rules": len(self.results),
            "errors": {result.name: result.failing_count for result in self.failures},
            "warnings": {result.name: result.failing_count for result in self.warnings},
        }

    def raise_for_failures(self) -> None:
        """Raise if a rule of severity error failed.

        Raises:
            PermanentError: names each failed rule and its first failing rows.
        """
        if not self.success:
            broken = "\n  ".join(map(str, self.failures))
            raise PermanentError(
                f"{self.checked_period} {len(self.failures)} of "
                f"{counted(len(self.results), 'rule')} are broken; all rows are in "
                f"ops.quality_failures under run_id {self.run_id!r}:\n  {broken}"
            )
