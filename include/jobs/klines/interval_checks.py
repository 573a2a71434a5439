"""Check stored minutes against klines of other intervals; only the result is stored.

A dump file of 5m, 1h, 1d … is downloaded, and each of its bars is compared with the bar aggregated
from the stored minutes. The result of each file is stored in ``ops.dump_files`` with a separate
kind (``klines_1h``), together with the differing bars.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import polars as pl
import structlog

from include.binance.files.columns import Rejection
from include.binance.files.dump_paths import dump_path, dump_prefix
from include.binance.files.dumps import DumpSite, FetchedDump, NotPublishedError, read_klines
from include.config import Settings
from include.domain.candles import VALUE_NAMES, Candle
from include.domain.columns.candles import CANDLE_SCHEMA, from_candles, roll_up, to_candles
from include.domain.instruments import Market
from include.domain.rollup import differing_bar_values
from include.domain.timeframes import DAY_US, MINUTE_US, TIMEFRAMES, Timeframe, from_us
from include.errors import RejectedInputError, WrongValueError
from include.jobs.exchange import APPLICATION_NAME, open_dump_site
from include.jobs.klines.dump_files import download_folder, record_unusable
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import Moment, market_from, moment_us, symbols_of
from include.store.candles.merging import Connection
from include.store.candles.minutes import missing_minutes, read_candles
from include.store.ledgers.files import (
    DumpFile,
    RejectedRow,
    record_dump_file,
    record_rejected_rows,
)
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

MAX_DIFFERENCES_KEPT = 1_000
"""Maximum differing bars stored for one file; their count is always stored."""

MINUTES_AT_ONCE_US = DAY_US
"""Stored rows are read by the day, or by the bar if that is longer."""

_DAY, _MONTH = TIMEFRAMES["1d"], TIMEFRAMES["1M"]


@dataclass(frozen=True, slots=True)
class BarDifference:
    """A bar that differs from the bar aggregated from the stored minutes.

    Attributes:
        values: name of each differing value, with our text and the exchange's; empty if only one
            side has the bar.
        only: ``stored`` or ``published`` if only one side has it.
    """

    open_time_us: int
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    only: str | None = None


@dataclass(frozen=True, slots=True)
class IntervalCheck:
    """Result of comparing a file.

    Attributes:
        verdict: ``agrees``; ``differs``; ``incomplete`` if minutes are missing and nothing differs;
            or the verdict of ``ops.dump_files`` for an unusable file.
        agreeing: bars equal in all nine values.
        incomplete: differing bars with minutes that are not stored or not published yet.
        differences: the other differing bars.
    """

    path: str
    verdict: str
    agreeing: int = 0
    incomplete: int = 0
    differences: tuple[BarDifference, ...] = ()

    @property
    def bars(self) -> int:
        """Number of bars that either side has."""
        return self.agreeing + self.incomplete + len(self.differences)


def compare_interval(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: Market | str,
    interval: str,
    start: Moment,
    end: Moment,
    on_check: Callable[[IntervalCheck], None] = lambda _check: None,
) -> list[IntervalCheck]:
    """Compare the published files of an interval with the stored minutes.

    A published monthly file within the range is used; other days use daily files.

    Args:
        symbols: names as users type them; see ``symbols_of``.
        interval: 3m to 1M.
        start, end: half-open; files of the days it overlaps are compared.
        on_check: called after each file.

    Raises:
        WrongValueError: an unknown interval or market, or a malformed time.
        TransientError: the dump site or the database is away.
    """
    frame = TIMEFRAMES.get(interval)
    if frame is None or frame.width_us == MINUTE_US:
        known = ", ".join(name for name in TIMEFRAMES if name != "1m")
        raise WrongValueError(f"no interval {interval!r} to compare; there are {known}")
    start_us, end_us = moment_us(start, name="start"), moment_us(end, name="end")
    if start_us >= end_us:
        raise WrongValueError(f"start {start} should be before end {end}")
    checks = []
    with (
        connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        for symbol in symbols_of(symbols, market_from(market)):
            for path in published_files(site, symbol, frame, start_us, end_us):
                check = _check_file(settings, connection, site, symbol, frame, path)
                on_check(check)
                checks.append(check)
    return checks


def published_files(
    site: DumpSite, symbol: str, frame: Timeframe, start_us: int, end_us: int
) -> list[str]:
    """Return the paths of the files of a range: monthly files where they exist, else daily ones."""
    paths: list[str] = []
    month_us = _MONTH.open_time_us(start_us)
    while month_us < end_us:
        next_us = _MONTH.next_open_us(month_us)
        name = f"{from_us(month_us):%Y-%m}"
        monthly = dump_path(symbol, "klines", "monthly", from_us(month_us), interval=frame.name)
        is_inside = start_us <= month_us and next_us <= end_us
        if is_inside and any(one.path == monthly for one in site.list(monthly)):
            paths.append(monthly)
        else:
            stem = dump_path(symbol, "klines", "daily", from_us(month_us), interval=frame.name)
            folder = dump_prefix(symbol, "klines", "daily", interval=frame.name)
            prefix = folder + stem.removeprefix(folder).partition(name)[0] + name
            for one in site.list(prefix):
                begin_us, until_us = window_of(one.path)
                if until_us > start_us and begin_us < end_us:
                    paths.append(one.path)
        month_us = next_us
    return paths


def _check_file(
    settings: Settings,
    connection: Connection,
    site: DumpSite,
    symbol: str,
    frame: Timeframe,
    path: str,
) -> IntervalCheck:
    kind = f"klines_{frame.name}"
    fetched_at_us = time.time_ns() // 1000
    fetched: FetchedDump | None = None
    window = window_of(path)
    try:
        with download_folder(settings, path) as folder:
            fetched = site.fetch(path, folder)
            blocks = list(read_klines(fetched.file, symbol, window=window, interval=frame))
    except (NotPublishedError, RejectedInputError) as error:
        record_unusable(
            connection, path=path, symbol=symbol, kind=kind, fetched_at_us=fetched_at_us,
            fetched=fetched, error=error, replaced_by=None,
        )  # fmt: skip
        return IntervalCheck(path, "unusable")
    theirs = pl.concat([CANDLE_SCHEMA.to_frame(), *(block.candles for block in blocks)])
    rejections: list[Rejection] = [one for block in blocks for one in block.rejections]
    check = replace(compare_bars(connection, symbol, frame, theirs, window), path=path)
    record_rejected_rows(
        connection, (RejectedRow(path, one.line, one.reason, one.raw) for one in rejections)
    )
    record_dump_file(
        connection,
        DumpFile(
            path=path,
            checksum=fetched.checksum,
            kind=kind,
            symbol=symbol,
            fetched_at_us=fetched_at_us,
            published_at_us=fetched.published_at_us,
            rows=theirs.height,
            rejected=len(rejections),
            time_unit=blocks[-1].time_unit if blocks else None,
            verdict=check.verdict,
            detail=_detail(check, window),
        ),
    )
    log.info(
        "interval_compared", path=path, verdict=check.verdict, agreeing=check.agreeing,
        incomplete=check.incomplete, differing=len(check.differences),
    )  # fmt: skip
    return check


def compare_bars(
    connection: Connection,
    symbol: str,
    frame: Timeframe,
    theirs: pl.DataFrame,
    window: tuple[int, int],
) -> IntervalCheck:
    """Compare bars (``CANDLE_SCHEMA``) that open within a window with the stored minutes."""
    published = {one.open_time_us: one for one in to_candles(theirs)}
    agreeing = incomplete = 0
    differences: list[BarDifference] = []
    for start_us, end_us in _stretches(frame, window):
        minutes = from_candles(read_candles(connection, symbol, start_us, end_us))
        stored = {one.open_time_us: one for one in to_candles(roll_up(minutes, frame))}
        gaps = missing_minutes(connection, symbol, start_us, end_us)
        opens = {moment for moment in published if start_us <= moment < end_us}
        for open_us in sorted(opens | stored.keys()):
            found = _difference(frame, open_us, stored.get(open_us), published.get(open_us))
            bar_end_us = frame.next_open_us(open_us)
            if found is None:
                agreeing += 1
            elif bar_end_us > window[1] or any(
                gap_us < bar_end_us and until_us > open_us for gap_us, until_us in gaps
            ):
                incomplete += 1
            else:
                differences.append(found)
    verdict = "differs" if differences else "incomplete" if incomplete else "agrees"
    return IntervalCheck("", verdict, agreeing, incomplete, tuple(differences))


def _difference(
    frame: Timeframe, open_us: int, ours: Candle | None, theirs: Candle | None
) -> BarDifference | None:
    if ours is None or theirs is None:
        return BarDifference(open_us, only="published" if ours is None else "stored")
    names = differing_bar_values(ours.symbol, frame, open_us, ours.values, theirs.values)
    if not names:
        return None
    places = {name: VALUE_NAMES.index(name) for name in names}
    values = {name: (str(ours.values[at]), str(theirs.values[at])) for name, at in places.items()}
    return BarDifference(open_us, values)


def _stretches(frame: Timeframe, window: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Split a window at bar boundaries; the last part ends with the last bar of the window."""
    at_us = frame.open_time_us(window[0])
    if at_us < window[0]:
        at_us = frame.next_open_us(at_us)  # the bar belongs to the previous file
    while at_us < window[1]:
        end_us = frame.next_open_us(at_us)
        while end_us < min(at_us + MINUTES_AT_ONCE_US, window[1]):
            end_us = frame.next_open_us(end_us)
        yield at_us, end_us
        at_us = end_us


def _detail(check: IntervalCheck, window: tuple[int, int]) -> dict[str, object]:
    return {
        "from": from_us(window[0]).isoformat(),
        "to": from_us(window[1]).isoformat(),
        "agreeing": check.agreeing,
        "incomplete": check.incomplete,
        "differing": len(check.differences),
        "differences": [
            {
                "open_time": from_us(one.open_time_us).isoformat(),
                "only": one.only,
                "values": {
                    name: {"stored": ours, "published": theirs}
                    for name, (ours, theirs) in one.values.items()
                },
            }
            for one in check.differences[:MAX_DIFFERENCES_KEPT]
        ],
    }
