"""Choose the cheapest reliable source of missing minutes. Pure.

A month that is mostly missing comes from its monthly file, a day from its daily file, the rest from
REST. A file is no source for minutes it is known to lack, and no source at all while it is known to
be damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from include.counts import counted
from include.domain.candles import Source
from include.domain.ranges import Ranges, common, minutes_in, united, without
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, Timeframe

MONTH = TIMEFRAMES["1M"]
DAY = TIMEFRAMES["1d"]

MIN_DAYS_FOR_A_MONTH = 8
"""Days of a month that must be missing for the monthly file to be cheaper than daily ones."""

MIN_MINUTES_FOR_A_DAY = 720
"""Missing minutes of a day for which its file is cheaper than a page of REST."""

REST_PART_MINUTES = 10_000
"""Longest range of one part from REST: ten pages on spot."""

JOINED_GAPS_MINUTES = 500
"""Gaps closer than this are requested together: half a page of known rows costs nothing."""


class FillMode(StrEnum):
    """Which missing minutes to load, relative to the stored ones."""

    ALL = "all"
    FORWARD = "forward"
    BACKWARD = "backward"
    GAPS = "gaps"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A published dump file.

    Attributes:
        start_us, end_us: the day or month it covers.
        lacks: minutes that a load found to be absent from it.
        fault: why it is unusable, from the ledger; empty if no fault is known.
        is_reissued: it was published again after it was loaded.
    """

    path: str
    source: Source
    start_us: int
    end_us: int
    size_bytes: int = 0
    lacks: tuple[tuple[int, int], ...] = ()
    fault: str = ""
    is_reissued: bool = False


@dataclass(frozen=True, slots=True)
class SourcedPart:
    """Minutes that come from one source together.

    Attributes:
        start_us, end_us: from the first to the last missing minute (half-open). For a re-issued
            file its whole period; for a file to be verified, its period within the span.
        minutes: the missing minutes that only this part provides.
        file: None for REST.
        why: reason for this source, shown to users.
    """

    source: Source
    start_us: int
    end_us: int
    minutes: int
    why: str
    file: PublishedFile | None = None


def minutes_to_fill(
    mode: FillMode, start_us: int, end_us: int, stored: tuple[int, int] | None
) -> Ranges:
    """Return the part of a span that a mode covers.

    The modes forward, backward and gaps together cover the whole span.

    Args:
        stored: from the oldest stored minute to the end of the newest; None if there is none: then
            the mode must be ``all``.
    """
    if mode is FillMode.ALL:
        return [(start_us, end_us)] if start_us < end_us else []
    if stored is None:
        return []
    first_us, last_us = stored
    meant = {
        FillMode.BACKWARD: (start_us, min(end_us, first_us)),
        FillMode.GAPS: (max(start_us, first_us), min(end_us, last_us)),
        FillMode.FORWARD: (max(start_us, last_us), end_us),
    }[mode]
    return [meant] if meant[0] < meant[1] else []


def obtainable(
    missing: Ranges, files: Iterable[PublishedFile], rest_span: tuple[int, int] | None
) -> Ranges:
    """Return the missing minutes that REST or a usable file may have."""
    held = [] if rest_span is None else [rest_span]
    for file in files:
        if not file.fault:
            held += without([(file.start_us, file.end_us)], united(file.lacks))
    return common(missing, united(held))


def sourced(
    missing: Ranges,
    files: Sequence[PublishedFile],
    *,
    span: tuple[int, int],
    rest_span: tuple[int, int] | None,
    verify: bool = False,
) -> list[SourcedPart]:
    """Assign each available missing minute to exactly one part.

    Re-issued files, and files to be verified, become parts even if nothing is missing; they provide
    the missing minutes of their period.

    Args:
        missing: ascending, within ``span``.
        files: published files that overlap the span.
        span: the symbol's trading time, clipped to the request.
        rest_span: range that REST can serve; None if REST does not know the symbol.
        verify: read the daily files of the whole span.

    Returns:
        Parts from files in order of time, then parts from REST.
    """
    left = obtainable(missing, files, rest_span)
    parts: list[SourcedPart] = []
    for file in sorted(files, key=lambda one: (one.start_us, one.end_us)):
        is_daily = file.source is Source.DUMP_DAILY
        if file.fault or not (file.is_reissued or (verify and is_daily)):
            continue
        start_us, end_us = max(file.start_us, span[0]), min(file.end_us, span[1])
        if start_us >= end_us:
            continue
        if file.is_reissued:
            # The whole period: after the load, the ledger no longer shows which part was not read.
            start_us, end_us = file.start_us, file.end_us
        found = common(left, [(start_us, end_us)])
        why = "re-issued since it was loaded" if file.is_reissued else "to be compared"
        parts.append(SourcedPart(file.source, start_us, end_us, minutes_in(found), why, file))
        left = without(left, [(start_us, end_us)])
    chooser = _Chooser(files, rest_span)
    for month in _by_period(left, MONTH).values():
        chooser.choose(month)
    return [*sorted(parts + chooser.parts, key=lambda one: one.start_us), *chooser.rest_parts()]


@dataclass(slots=True)
class _Chooser:
    """Chooses files or REST for the missing minutes, month by month."""

    files: Sequence[PublishedFile]
    rest_span: tuple[int, int] | None
    parts: list[SourcedPart] = field(default_factory=list)
    deferred_to_rest: Ranges = field(default_factory=list)
    months: dict[int, PublishedFile] = field(init=False)
    days: dict[int, PublishedFile] = field(init=False)

    def __post_init__(self) -> None:
        self.months = {one.start_us: one for one in self.files if one.source is Source.DUMP_MONTHLY}
        self.days = {one.start_us: one for one in self.files if one.source is Source.DUMP_DAILY}

    def choose(self, missing: Ranges) -> None:
        """Assign the missing minutes of a month to sources."""
        days = _by_period(missing, DAY)
        monthly = self.months.get(MONTH.open_time_us(missing[0][0]))
        if monthly is not None and not monthly.fault:
            in_file = _by_period(_in(monthly, missing), DAY)
            whole = [day for day in in_file.values() if minutes_in(day) >= MIN_MINUTES_FOR_A_DAY]
            if len(whole) >= MIN_DAYS_FOR_A_MONTH:
                self._assign(
                    monthly, missing, f"{counted(len(whole), 'day')} of the month are missing"
                )
                return
            if any(self._only_in_months(us, day) for us, day in days.items()):
                self._assign(monthly, missing, "neither REST nor a daily file has it")
                return
        for day_us, day in days.items():
            file = self.days.get(day_us)
            if file is not None and not file.fault and self._is_for(file, day):
                self._assign(
                    file,
                    day,
                    counted(minutes_in(day), "minute of the day is", "minutes of the day are")
                    + " missing",
                )
            else:
                self.deferred_to_rest += day

    def rest_parts(self) -> list[SourcedPart]:
        """Return the parts from REST: near gaps joined, long ranges split."""
        joined: Ranges = []
        for start_us, end_us in self.deferred_to_rest:
            if joined and start_us - joined[-1][1] < JOINED_GAPS_MINUTES * MINUTE_US:
                joined[-1] = (joined[-1][0], end_us)
            else:
                joined.append((start_us, end_us))
        longest_us = REST_PART_MINUTES * MINUTE_US
        parts = []
        for start_us, end_us in joined:
            for cursor in range(start_us, end_us, longest_us):
                held = common(self.deferred_to_rest, [(cursor, min(end_us, cursor + longest_us))])
                if held:
                    first_us, last_us = held[0][0], held[-1][1]
                    why = self._why_rest(held)
                    parts.append(SourcedPart(Source.REST, first_us, last_us, minutes_in(held), why))
        return parts

    def _is_for(self, file: PublishedFile, missing: Ranges) -> bool:
        """Whether a daily file is cheaper than REST, or the only source."""
        if minutes_in(_in(file, missing)) >= MIN_MINUTES_FOR_A_DAY:
            return True
        return bool(self._unknown_to_rest(missing))

    def _only_in_months(self, day_us: int, missing: Ranges) -> bool:
        unknown = self._unknown_to_rest(missing)
        file = self.days.get(day_us)
        if file is None or file.fault:
            return bool(unknown)
        return bool(without(unknown, _in(file, unknown)))

    def _unknown_to_rest(self, missing: Ranges) -> Ranges:
        return missing if self.rest_span is None else without(missing, [self.rest_span])

    def _assign(self, file: PublishedFile, missing: Ranges, why: str) -> None:
        part = SourcedPart(
            file.source, missing[0][0], missing[-1][1], minutes_in(missing), why, file
        )
        self.parts.append(part)

    def _why_rest(self, missing: Ranges) -> str:
        day_us = DAY.open_time_us(missing[0][0])
        file = self.days.get(day_us) or self.months.get(MONTH.open_time_us(day_us))
        if file is None:
            return "no file is published for it"
        if file.fault:
            return f"its file cannot be used: {file.fault}"
        if minutes_in(_in(file, missing)) < minutes_in(missing):
            return "its file lacks it"
        count = minutes_in(missing)
        return f"a file is dearer for {counted(count, 'minute')}"


def _in(file: PublishedFile, missing: Ranges) -> Ranges:
    """Return the missing minutes of the file's period that the file may contain."""
    return without(common(missing, [(file.start_us, file.end_us)]), united(file.lacks))


def _by_period(ranges: Ranges, frame: Timeframe) -> dict[int, Ranges]:
    """Split ranges at day or month boundaries, by the open time of each period."""
    periods: dict[int, Ranges] = {}
    for start_us, end_us in ranges:
        cursor = start_us
        while cursor < end_us:
            open_us = frame.open_time_us(cursor)
            stop = min(end_us, frame.next_open_us(open_us))
            periods.setdefault(open_us, []).append((cursor, stop))
            cursor = stop
    return periods
