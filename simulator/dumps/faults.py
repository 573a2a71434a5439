"""Faults of the dump site: which files are wrong, and how.

A fault plan or a test adds and removes rules while the site is served. Each rule has a glob over
paths and one effect. Alterations depend only on the path, so they are the same each time.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar, get_args

from simulator.http.fault_rules import CheckedFields, FaultRules


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterRows(CheckedFields):
    """Some rows have another volume (and count) than the truth; the checksum matches.

    `SimulatedDumpSite.altered_rows` lists them. On monthly files, the month differs from its days.
    """

    rows: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DropRows(CheckedFields):
    """The last rows are missing, as in a truncated day; the checksum matches."""

    rows: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseRows(CheckedFields):
    """Some rows within the file are missing; the checksum matches."""

    rows: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatRows(CheckedFields):
    """Some rows are in the file twice; the checksum matches."""

    rows: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleRows(CheckedFields):
    """The rows are in no order; the checksum matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyCells(CheckedFields):
    """Some rows have empty cells: of `metrics` the ratios, else the last column."""

    rows: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReissueFile(CheckedFields):
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
class CorruptZip(CheckedFields):
    """Bytes within the zip are flipped; the checksum is the good file's unless `checksum_fits`."""

    flips: int = 16
    checksum_fits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateZip(CheckedFields):
    """The zip ends early; the checksum is the whole file's unless `checksum_fits`."""

    keep_percent: int = 60
    checksum_fits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleChecksum(CheckedFields):
    """The CHECKSUM file belongs to an earlier issue; the zip is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingChecksum(CheckedFields):
    """The CHECKSUM file is missing: not listed, 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingFile(CheckedFields):
    """The file was never published: neither it nor its CHECKSUM is listed, both are 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePublication(CheckedFields):
    """The file is published later than usual, in simulated time."""

    delay_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDownload(CheckedFields):
    """The zip takes real seconds, evenly over its bytes."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortDownload(CheckedFields):
    """The connection is reset within the zip."""

    keep_percent: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseFile(CheckedFields):
    """The zip and its CHECKSUM answer with an error status."""

    status: int = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseListing(CheckedFields):
    """Listings answer with an error status; the glob is matched against the requested prefix."""

    status: int = 503


RowEffect = AlterRows | DropRows | LoseRows | RepeatRows | ShuffleRows | EmptyCells
ContentEffect = RowEffect | ReissueFile | CorruptZip | TruncateZip
DumpEffect = (
    ContentEffect | StaleChecksum | MissingChecksum | MissingFile | LatePublication
    | SlowDownload | AbortDownload | RefuseFile | RefuseListing
)  # fmt: skip
Effect = TypeVar("Effect", bound=DumpEffect)


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpRule(CheckedFields):
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


class DumpFaults(FaultRules[DumpRule]):
    """Active rules of the dump site."""

    def contents(self, path: str, *, counts: bool = True) -> tuple[ContentEffect, ...]:
        """Return the effects on the bytes of a zip, oldest rule first."""
        return tuple(self._effects(get_args(ContentEffect), path, counts=counts))

    def of(self, effect: type[Effect], path: str, *, counts: bool = True) -> list[Effect]:
        """Return the effects of one kind on a path, oldest first."""
        return self._effects(effect, path, counts=counts)

    def _effects(
        self, kinds: type[Effect] | tuple[type[Effect], ...], path: str, *, counts: bool
    ) -> list[Effect]:
        return self.matching_effects(
            kinds, lambda rule: fnmatchcase(path, rule.path), counts=counts
        )
