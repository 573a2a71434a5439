"""Plan a load of derivative series: what no source was asked for, and the source of each part.

A part is missing if no source was asked for it (``ops.series_coverage``). Price klines come from
the cheapest source. Funding and statistics always come from files where these exist, because files
have more: the funding interval, and more digits of open interest and ratios.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from include.binance.files.dump_paths import Kind, dump_path, dump_prefix
from include.binance.files.dumps import DumpEntry, DumpSite
from include.binance.rest.series import STATISTICS_DAYS, SeriesRest, oldest_us
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import Market, market_of
from include.domain.ranges import Ranges, common, united, without
from include.domain.series.kinds import STATISTICS_STEP_US, Series
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, TIMEFRAMES, from_us, to_us
from include.errors import RateLimitedError, TransientError
from include.jobs.derivatives.pieces import (
    SeriesFilePiece,
    SeriesPiece,
    SeriesPlan,
    SeriesRestPiece,
    futures_of,
    has_funding,
    label_of_span,
    series_from,
)
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_series_rest
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import Moment, moment_us
from include.jobs.klines.planning import FAULTS
from include.store.candles.history import FileState, file_states, listed_span
from include.store.candles.merging import Connection
from include.store.postgres.pools import connect
from include.store.series.coverage import read_series_coverage

log = structlog.get_logger(__name__)

FILE_KINDS: dict[Kind, tuple[Series, ...]] = {
    "fundingRate": (Series.FUNDING,),
    "markPriceKlines": (Series.MARK,),
    "indexPriceKlines": (Series.INDEX,),
    "premiumIndexKlines": (Series.PREMIUM,),
    "metrics": (Series.OPEN_INTEREST, Series.RATIOS),
}
"""Kinds of dump files, and the series in them."""

PERIODS: dict[Kind, tuple[str, ...]] = {
    "fundingRate": ("monthly",),
    "metrics": ("daily",),
    "markPriceKlines": ("monthly", "daily"),
    "indexPriceKlines": ("monthly", "daily"),
    "premiumIndexKlines": ("monthly", "daily"),
}
_FRAMES = {"daily": TIMEFRAMES["1d"], "monthly": TIMEFRAMES["1M"]}
_SOURCES = {"daily": Source.DUMP_DAILY, "monthly": Source.DUMP_MONTHLY}

BETTER_IN_FILES = frozenset({"fundingRate", "metrics"})
"""Kinds whose files have what REST lacks."""

DUMPS = (Source.DUMP_DAILY.value, Source.DUMP_MONTHLY.value)

MIN_US_FOR_A_MONTH = 2 * DAY_US
MIN_US_FOR_A_DAY = 6 * HOUR_US
"""Missing time from which a file is cheaper than pages of REST."""
REST_PIECE_US = 7 * DAY_US
"""Longest piece of REST: 21 pages of price klines."""
FUNDING_PIECE_US = 2_000 * DAY_US
"""The same for funding: at most 50 pages, mostly 6."""
FIRST_US = to_us(datetime(2019, 9, 1, tzinfo=UTC))
"""Before the first future of the exchange."""


@dataclass(frozen=True, slots=True)
class _File:
    """A published file with its period and state."""

    entry: DumpEntry
    period: str
    start_us: int
    end_us: int
    state: FileState | None

    @property
    def is_unusable(self) -> bool:
        """Whether this version was fetched and is damaged."""
        return (
            self.state is not None
            and self.state.verdict in FAULTS
            and self.entry.published_at_us <= self.state.fetched_at_us
        )

    @property
    def is_new_version(self) -> bool:
        """Whether it was published again since it was loaded, or asked for in vain."""
        if self.state is None:
            return False
        if self.state.published_at_us is not None:
            return self.entry.published_at_us > self.state.published_at_us
        return self.state.verdict == "missing"


def plan_series(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: Market | str = Market.UM,
    series: str | Sequence[str] = (),
    start: Moment | None,
    end: Moment | None = None,
) -> SeriesPlan:
    """Plan what is missing of series; nothing is written.

    Args:
        symbols: of futures, as users type them.
        series: names; empty for all.
        start: None for the beginning of each series in the files.
        end: exclusive; None for the exchange's present time.

    Raises:
        PermanentError: a wrong symbol, series or time.
        RateLimitedError, TransientError: the exchange or the database is away.
    """
    names, wanted = futures_of(symbols, market), set(series_from(series))
    start_us = None if start is None else moment_us(start, name="start")
    end_us = None if end is None else moment_us(end, name="end")
    url = settings.url_for("jobs")
    plan = SeriesPlan()
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        for place in Market:
            of_market = [name for name in names if market_of(name) is place]
            if not of_market:
                continue
            with open_series_rest(settings, place, url) as rest:
                planner = _Planner(connection, rest, site)
                for symbol in of_market:
                    plan += _planned(planner, symbol, wanted, start_us, end_us)
    log.info("series_planned", symbols=len(names), pieces=len(plan.pieces), notes=len(plan.notes))
    return plan


def _planned(
    planner: _Planner, symbol: str, wanted: set[Series], start_us: int | None, end_us: int | None
) -> SeriesPlan:
    """Plan a symbol; one whose files or REST do not answer is unplanned."""
    plan = SeriesPlan()
    for kind, held in FILE_KINDS.items():
        if not wanted & set(held) or (kind == "fundingRate" and not has_funding(symbol)):
            continue
        try:
            series = [one for one in held if one in wanted]
            plan += planner.plan(symbol, kind, series, start_us, end_us)
        except RateLimitedError:
            raise  # the limit applies to all symbols
        except TransientError as error:
            log.warning("series_not_planned", symbol=symbol, kind=kind, error=str(error))
            plan += SeriesPlan(unplanned=(f"{symbol} {kind}: {error}",))
    return plan


class _Planner:
    """Plans symbols of one market."""

    def __init__(self, connection: Connection, rest: SeriesRest, site: DumpSite) -> None:
        self._connection = connection
        self._rest = rest
        self._site = site
        self._now_us = rest.server_time_us()

    def plan(
        self,
        symbol: str,
        kind: Kind,
        series: Sequence[Series],
        start_us: int | None,
        end_us: int | None,
    ) -> SeriesPlan:
        """Plan the series of one kind of files."""
        until_us = min(end_us or self._now_us, self._now_us)
        files = self._files(symbol, kind, start_us or FIRST_US, until_us)
        listed_us, ended_us = listed_span(self._connection, symbol)
        begins = [one.start_us for one in files] + ([] if listed_us is None else [listed_us])
        # If neither files nor the registry say where a series begins: what REST has of all series.
        unknown_us = self._now_us - STATISTICS_DAYS * DAY_US
        first_us = max(FIRST_US, min(begins, default=start_us or unknown_us))
        span = (max(start_us or first_us, first_us), min(until_us, ended_us or until_us))
        step_us = STATISTICS_STEP_US if kind == "metrics" else MINUTE_US
        span = (span[0] // step_us * step_us, span[1] // step_us * step_us)
        if span[0] >= span[1]:
            return SeriesPlan()
        pieces, asked = self._file_pieces(symbol, kind, series, span, files)
        notes: list[str] = []
        for one in series:
            is_funding = one is Series.FUNDING  # the files lack the mark price, REST the interval
            sources = (Source.REST.value,) if is_funding else None
            covered = read_series_coverage(self._connection, one, symbol, *span, sources=sources)
            left = without([span], united(covered if is_funding else [*covered, *asked]))
            rest_pieces, lost = self._rest_pieces(symbol, one, left)
            pieces += rest_pieces
            for lost_us, lost_until_us in lost:
                label = label_of_span(symbol, one.value, lost_us, lost_until_us)
                notes.append(f"{label}: neither in REST nor in a file")
        return SeriesPlan(tuple(pieces), tuple(notes))

    # --- files

    def _files(self, symbol: str, kind: Kind, start_us: int, end_us: int) -> list[_File]:
        """Return the published files that touch a range, with their state in the ledgers."""
        states = file_states(self._connection, symbol, kind)
        files = []
        for period in PERIODS[kind]:
            frame = _FRAMES[period]
            before = from_us(frame.open_time_us(frame.open_time_us(start_us) - 1))
            after = from_us(frame.next_open_us(frame.open_time_us(end_us - 1)))
            for entry in self._site.list(
                dump_prefix(symbol, kind, period),
                after=dump_path(symbol, kind, period, before),
                until=dump_path(symbol, kind, period, after),
            ):
                if entry.path.endswith(".zip"):
                    window = window_of(entry.path)
                    files.append(_File(entry, period, *window, states.get(entry.path)))
        return files

    def _file_pieces(
        self,
        symbol: str,
        kind: Kind,
        series: Sequence[Series],
        span: tuple[int, int],
        files: Sequence[_File],
    ) -> tuple[list[SeriesPiece], Ranges]:
        """Return pieces of files, months first, and the time that they cover."""
        sources = DUMPS if kind in BETTER_IN_FILES else None
        missing = united(
            part
            for one in series
            for part in without(
                [span],
                read_series_coverage(self._connection, one, symbol, *span, sources=sources),
            )
        )
        pieces: list[SeriesPiece] = []
        asked: Ranges = []
        for file in sorted(files, key=lambda one: (one.period != "monthly", one.start_us)):
            period = (file.start_us, file.end_us)
            lacks = _length(common(missing, [period]))
            least = MIN_US_FOR_A_MONTH if file.period == "monthly" else MIN_US_FOR_A_DAY
            if kind in BETTER_IN_FILES or not self._is_served(series, file):
                least = 1
            # The whole period of a new version: what of it was read before is not known.
            first_us, until_us = max(period[0], span[0]), min(period[1], span[1])
            part = period if file.is_new_version else (first_us, until_us)
            is_needed = file.is_new_version or lacks >= least
            if file.is_unusable or not is_needed or first_us >= until_us:
                continue
            why = "published again" if file.is_new_version else "no source was asked for it"
            pieces.append(_file_piece(symbol, kind, file, part, why))
            asked = united([*asked, part])
            missing = without(missing, [part])
        if kind == "metrics":
            absent = list(_absent_days(missing, files))
            for day_us in absent:
                pieces.append(_absent_piece(symbol, kind, day_us))
            if not any(self._rest.serves(one) for one in series):
                asked = united([*asked, *((day, day + DAY_US) for day in absent)])
            else:
                served_us = oldest_us(Series.OPEN_INTEREST, self._now_us)
                days = ((day, min(day + DAY_US, max(day, served_us))) for day in absent)
                asked = united([*asked, *(one for one in days if one[0] < one[1])])
        return pieces, asked

    def _is_served(self, series: Sequence[Series], file: _File) -> bool:
        """Whether REST serves the period of a file."""
        return all(
            self._rest.serves(one) and oldest_us(one, self._now_us) <= file.start_us
            for one in series
        )

    # --- REST

    def _rest_pieces(
        self, symbol: str, series: Series, missing: Ranges
    ) -> tuple[list[SeriesPiece], Ranges]:
        """Return pieces of REST, and the time that neither REST nor a file has."""
        if not self._rest.serves(series):
            return [], missing
        longest_us = FUNDING_PIECE_US if series is Series.FUNDING else REST_PIECE_US
        served = common(missing, [(oldest_us(series, self._now_us), self._now_us)])
        why = "REST has the mark prices" if series is Series.FUNDING else "no file has it yet"
        spans = (
            (first_us, min(end_us, first_us + longest_us))
            for start_us, end_us in served
            for first_us in range(start_us, end_us, longest_us)
        )
        pieces: list[SeriesPiece] = [
            SeriesRestPiece(
                symbol, label_of_span(symbol, series.value, *span), series.value, *span, why
            )
            for span in spans
        ]
        return pieces, without(missing, served)


def _file_piece(
    symbol: str, kind: Kind, file: _File, part: tuple[int, int], why: str
) -> SeriesFilePiece:
    return SeriesFilePiece(
        symbol,
        label_of_span(symbol, kind, *part),
        kind,
        file.entry.path,
        _SOURCES[file.period].value,
        *part,
        why,
        file.entry.size_bytes,
    )


def _absent_days(missing: Ranges, files: Sequence[_File]) -> Iterator[int]:
    """Yield missing days without a file between days that have one: the exchange may lack them."""
    if not files:
        return
    first_us = min(one.start_us for one in files)
    last_us = max(one.start_us for one in files)
    listed = {one.start_us for one in files if not one.is_unusable}
    for start_us, end_us in common(missing, [(first_us, last_us)]):
        for day_us in range(start_us - start_us % DAY_US, end_us, DAY_US):
            if day_us not in listed:
                yield day_us


def _absent_piece(symbol: str, kind: Kind, day_us: int) -> SeriesFilePiece:
    return SeriesFilePiece(
        symbol,
        label_of_span(symbol, kind, day_us, day_us + DAY_US),
        kind,
        dump_path(symbol, kind, "daily", from_us(day_us)),
        Source.DUMP_DAILY.value,
        day_us,
        day_us + DAY_US,
        "not listed, though later days are",
    )


def _length(ranges: Ranges) -> int:
    return sum(end - start for start, end in ranges)
