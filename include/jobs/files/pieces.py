"""A file of the inbox as a piece of work, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class InboxFile:
    """A file that can be loaded.

    Attributes:
        name: its path below the inbox, such as ``futures/um/ABC-1m-2025-01.zip``.
        size: in bytes.
    """

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class InboxResult:
    """Result of loading a file from the inbox.

    Attributes:
        state: ``loaded``, or ``gone`` if another run claimed it first.
        place: its present path, relative to the inbox.
    """

    file: str
    state: str
    place: str = ""
    symbol: str = ""
    rows: int = 0
    rejected: int = 0
    inserted: int = 0
    changed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """Counts of a run; the DAG attaches them to the asset event."""

    files: int = 0
    rows: int = 0
    rejected: int = 0
    inserted: int = 0
    changed: int = 0
    symbols: list[str] = field(default_factory=list)
