"""Faults of the dump site: which files go wrong, and how.

`DumpFaults` is a switchboard: rules are added and removed while the site is served, by a fault
plan or by a test. Each rule names the paths that it concerns by a glob and one effect. What is
altered follows from the path alone, so it is the same each time.
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
    """Some rows tell another volume (and count) than the truth; the checksum fits.

    `DumpSite.altered_rows` says which. On monthly files this is a month that differs from its
    days.
    """

    rows: int = 3

    def __post_init__(self) -> None:
        check_minimum(1, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRows:
    """The last rows are missing, as in a truncated day; the checksum fits."""

    rows: int = 60

    def __post_init__(self) -> None:
        check_minimum(1, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReissueFile:
    """The file is published again at a moment of the exchange's time, with other contents.

    Attributes:
        at_us: from when on the second issue is served; it is that one's LastModified.
        change: how the wrong issue differs from the truth.
        is_repair: the first issue is the wrong one; else the second.
    """

    at_us: int
    change: AlterRows | DropRows = AlterRows()
    is_repair: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptZip:
    """Bytes within the zip are flipped; the checksum is that of the good file unless it fits."""

    flips: int = 16
    checksum_fits: bool = False

    def __post_init__(self) -> None:
        check_minimum(1, flips=self.flips)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateZip:
    """The zip ends early; the checksum is that of the whole file unless it fits."""

    keep_percent: int = 60
    checksum_fits: bool = False

    def __post_init__(self) -> None:
        check_keep_percent(self.keep_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleChecksum:
    """The CHECKSUM file is of an earlier issue; the zip is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingChecksum:
    """The CHECKSUM file is missing: not listed, 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFile:
    """The file was never published: neither it nor its CHECKSUM is listed, both are 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePublication:
    """Published so much later than it would have been, in the exchange's time."""

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
    """The connection breaks within the zip."""

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
    """Listings answer with an error status; the glob is held against the prefix asked for."""

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
    """What goes wrong with which files.

    Attributes:
        path: glob over the whole path of the zip, e.g.
            `data/spot/daily/klines/BTCUSDT/1m/*-2025-01-05.zip` or `*/monthly/*`; `*` also
            stands for slashes.
        times: the rule ends by itself after so many hits (downloads).
    """

    effect: DumpEffect
    path: str
    times: int | None = None

    def __post_init__(self) -> None:
        if self.times is not None:
            check_minimum(1, times=self.times)


class DumpFaults(FaultRules[DumpRule]):
    """All active rules of the dump site."""

    def contents(self, path: str, *, counts: bool = True) -> tuple[ContentEffect, ...]:
        """What happens to the bytes of a zip, oldest rule first."""
        rules = self.matching(
            lambda rule: isinstance(rule.effect, _CONTENT) and fnmatchcase(path, rule.path),
            counts=counts,
        )
        return tuple(rule.effect for rule in rules if isinstance(rule.effect, _CONTENT))

    def of(self, effect: type[Effect], path: str, *, counts: bool = True) -> list[Effect]:
        """The effects of one kind on a path, oldest first."""
        rules = self.matching(
            lambda rule: isinstance(rule.effect, effect) and fnmatchcase(path, rule.path),
            counts=counts,
        )
        return [rule.effect for rule in rules if isinstance(rule.effect, effect)]
