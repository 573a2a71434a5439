"""Group pieces of work, so that one Airflow task loads many and no plan is too long to map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

MAX_TASKS = 400
"""Maximum mapped tasks of a run. Airflow refuses more than ``max_map_length``, by default 1,024."""
KLINE_PIECES_A_TASK = 24
"""Usual pieces of one task, two years of monthly files: a task starts slower than it loads one."""
TRADE_FILES_A_TASK = 12


@dataclass(frozen=True, slots=True)
class HistorySpan:
    """A symbol and a half-open range of its minutes (µs)."""

    symbol: str
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class HistoryGroup:
    """History that one task loads.

    The task plans its ranges again. So the group stays small, and a retry loads only what is still
    missing.

    Attributes:
        kind: ``klines``, ``agg_trades`` or ``trades``.
        keep_raw: store the trades too.
    """

    label: str
    spans: tuple[HistorySpan, ...]
    kind: str
    keep_raw: bool = False


def split(items: Sequence[Item], *, usual: int) -> list[Sequence[Item]]:
    """Split into runs of the usual length, or of more if there would be over ``MAX_TASKS``."""
    length = max(usual, -(-len(items) // MAX_TASKS))
    return [items[first : first + length] for first in range(0, len(items), length)]


def label_of_group(labels: Sequence[str]) -> str:
    """Return the label of a group of pieces with these labels."""
    if len(labels) == 1:
        return labels[0]
    return f"{labels[0]} … {labels[-1]} ({len(labels)})"
