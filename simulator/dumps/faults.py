"""Faults of the dump site: which files are wrong, and how.

A fault plan or a test adds and removes rules while the site is served. Each rule has a glob over
paths and one effect. Alterations depend only on the path, so they are the same each time.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from simulator.http.fault_rules import (
    FaultRules,
    check_error_status,
    check_keep_percent,
    check_minimum,
    check_wait,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterRows:
    """Some rows have another volume (and count) than the truth; the checksum matches.

    `SimulatedDumpSite.altered_rows` lists them. On monthly files, the month differs from its days.
    """

    rows: int = 3

    def __post_init__(self) -> None:
        check_minimum(1, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRows:
    """The last rows are missing, as in a truncated day; the checksum matches."""

    rows: int = 60

    def __post_init__(self) -> None:
        check_minimum(1, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReissueFile:
    """The file is published again at a simulated time, with other contents.

    Attributes:
        at_us: time of the second issue, and its LastModified.
        change: how the wrong issue differs from the truth.
        is_repair: the first issue is the wrong one; otherwise the second.
    """

    at_us: int
    change: AlterRows | DropRows = AlterRows()
    is_repair: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptZip:
    """Bytes within the zip are flipped; the checksum is the good file's unless `checksum_fits`."""

    flips: int = 16
    checksum_fits: bool = False

    def __post_init__(self) -> None:
        check_minimum(1, flips=self.flips)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateZip:
    """The zip ends early; the checksum is the whole file's unless `checksum_fits`."""

    keep_percent: int = 60
    checksum_fits: bool = False

    def __post_init__(self) -> None:
        check_keep_percent(self.keep_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleChecksum:
    """The CHECKSUM file belongs to an earlier issue; the zip is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingChecksum:
    """The CHECKSUM file is missing: not listed, 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFile:
    """The file was never published: neither it nor its CHECKSUM is listed, both are 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePublication:
    """The file is published later than usual, in simulated time."""

    delay_us: int

    def __post_init__(self) -> None:
        check_minimum(1, delay_us=self.delay_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDownload:
    """The zip takes real seconds, evenly over its bytes."""

    seconds: float

    def __post_init__(self) -> None:
        check_wait(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortDownload:
    """The connection is reset within the zip."""

    keep_percent: int = 50

    def __post_init__(self) -> None:
        check_keep_percent(self.keep_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseFile:
    """The zip and its CHECKSUM answer with an error status."""

    status: int = 503

    def __post_init__(self) -> None:
        check_error_status(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseListing:
    """Listings answer with an error status; the glob is matched against the requested prefix."""

    status: int = 503

    def __post_init__(self) -> None:
        check_error_status(self.status)


ContentEffect = AlterRows | DropRows | ReissueFile | CorruptZip | TruncateZip
DumpEffect = (
    ContentEffect | StaleChecksum | MissingChecksum | MissingFile | LatePublication
    | SlowDownload | AbortDownload | RefuseFile | RefuseListing
)  # fmt: skip
_CONTENT = (AlterRows, DropRows, ReissueFile, CorruptZip, TruncateZip)
Effect = TypeVar("Effect", bound=DumpEffect)


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpRule:
    """An effect and the files that it matches.

    Attributes:
        path: glob over the whole path of the zip, e.g.
            `data/spot/daily/klines/BTCUSDT/1m/*-2025-01-05.zip` or `*/monthly/*`; `*` also matches
            slashes.
        times: maximum number of hits (downloads).
    """

    effect: DumpEffect
    path: str
    times: int | None = None

    def __post_init__(self) -> None:
        if self.times is not None:
            check_minimum(1, times=self.times)


class DumpFaults(FaultRules[DumpRule]):
    """Active rules of the dump site."""

    def contents(self, path: str, *, counts: bool = True) -> tuple[ContentEffect, ...]:
        """Return the effects on the bytes of a zip, oldest rule first."""
        rules = self.matching(
            lambda rule: isinstance(rule.effect, _CONTENT) and fnmatchcase(path, rule.path),
            counts=counts,
        )
        return tuple(rule.effect for rule in rules if isinstance(rule.effect, _CONTENT))

    def of(self, effect: type[Effect], path: str, *, counts: bool = True) -> list[Effect]:
        """Return the effects of one kind on a path, oldest first."""
        rules = self.matching(
            lambda rule: isinstance(rule.effect, effect) and fnmatchcase(path, rule.path),
            counts=counts,
        )
        return [rule.effect for rule in rules if isinstance(rule.effect, effect)]
