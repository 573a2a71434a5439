"""Plan a backfill: find missing minutes, and the cheapest reliable source of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from include.binance.files.dumps import DumpEntry, DumpSite, daily_path, klines_prefix, monthly_path
from include.binance.rest.client import BinanceRest
from include.binance.rest.klines import final_until
from include.config import Settings
from include.counts import counted
from include.domain.candles import Source
from include.domain.instruments import Market, exchange_symbol_of, market_of, unknown_symbol
from include.domain.ranges import Ranges, common, minutes_in, united, without
from include.domain.sourcing import (
    DAY,
    MONTH,
    FillMode,
    PublishedFile,
    SourcedPart,
    minutes_to_fill,
    obtainable,
    sourced,
)
from include.domain.timeframes import DAY_US, MINUTE_US, from_us, minute_of, to_us
from include.errors import (
    RateLimitedError,
    TransientError,
    UnknownSymbolError,
    WrongValueError,
)
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.klines.dump_loading import KIND, window_of
from include.jobs.klines.estimates import estimate
from include.jobs.klines.pieces import (
    BackfillPlan,
    DumpPiece,
    Moment,
    RestPiece,
    first_minute,
    label_of,
    market_from,
    symbols_of,
)
from include.store.candles.history import FileState, file_states, listed_span, stored_span
from include.store.candles.merging import Connection
from include.store.candles.minutes import missing_minutes
from include.store.ledgers.files import read_coverage
from include.store.ledgers.health import server_time
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

MAX_PIECES_LOGGED = 200
"""Maximum pieces logged per plan."""

FAULTS = frozenset({"wrong_checksum", "corrupt"})
"""Verdicts that exclude a file as a source until it is published again; REST is used instead."""


def plan_backfill(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: Market | str,
    start: Moment | None,
    end: Moment | None = None,
    mode: FillMode | str = FillMode.ALL,
    verify: bool = False,
    in_part: bool = False,
    log_pieces: bool = False,
) -> BackfillPlan:
    """Find missing minutes and plan their sources; nothing is written.

    A minute is missing if it lies between the symbol's first and last row at the exchange and has
    neither an outage nor a verified row. Months that are mostly missing are planned from monthly
    dumps, days from daily ones, the rest from REST (``include.domain.sourcing``). Dump files that
    were re-issued since they were loaded are planned again.

    Args:
        symbols: names as users type them; see ``symbols_of``.
        start, end: half-open; ``start`` None is the start of the symbol's history, in REST or in
            the files; ``end`` None is the last minute that REST has completed.
        mode: ``all``; ``forward``, after the newest stored minute; ``backward``, before the oldest;
            ``gaps``, between the two.
        verify: plan the dumps of the whole range, even if nothing is missing, to compare them with
            the stored rows.
        in_part: if REST does not answer for a symbol, plan its dump files and the other symbols,
            and list it in ``unplanned`` instead of raising.
        log_pieces: log each piece.

    Raises:
        PermanentError: an unknown symbol or mode, a malformed time, or nothing to plan.
        TransientError, RateLimitedError: the exchange or the database is away.
    """
    place = market_from(market)
    names = symbols_of(symbols, place)
    fill = fill_from(mode)
    start_us = None if start is None else first_minute(start, name="start")
    end_us = None if end is None else first_minute(end, name="end")
    url = settings.url_for("jobs")
    plan = BackfillPlan()
    with (
        connect(url, application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        for each in Market:
            of_market = [name for name in names if market_of(name) is each]
            if not of_market:
                continue
            with open_shared_rest(settings, each, url) as rest:
                planner = _Planner(connection, rest, site, fill=fill, verify=verify)
                for symbol in of_market:
                    try:
                        plan += planner.plan(symbol, start_us, end_us, in_part=in_part)
                    except UnknownSymbolError as error:
                        listed = [one.symbol for one in rest.exchange_info()]
                        raise UnknownSymbolError(unknown_symbol(symbol, listed)) from error
    _log_plan(plan, symbols=len(names), with_pieces=log_pieces)
    return plan


def fill_from(mode: FillMode | str) -> FillMode:
    """Return a mode by its name.

    Raises:
        PermanentError: there is no such mode.
    """
    try:
        return FillMode(mode)
    except ValueError:
        known = ", ".join(one.value for one in FillMode)
        raise WrongValueError(f"unknown mode {mode!r}; it should be one of {known}") from None


def _log_plan(plan: BackfillPlan, *, symbols: int, with_pieces: bool) -> None:
    """Log the plan."""
    if with_pieces:
        for note in plan.notes:
            log.info("plan_note", note=note)
        for piece in plan.pieces[:MAX_PIECES_LOGGED]:
            source = piece.source if isinstance(piece, DumpPiece) else Source.REST.value
            log.info(
                "piece_planned",
                piece=piece.label,
                source=source,
                minutes=piece.minutes,
                why=piece.why,
            )
    cost = estimate(plan)
    log.info(
        "backfill_planned",
        symbols=symbols,
        missing_minutes=plan.missing_minutes,
        dumps=len(plan.dumps),
        rest=len(plan.rest),
        requests=cost.requests,
        weight=cost.weight,
        megabytes=round(cost.size_bytes / 1e6, 1),
        estimated_s=round(cost.seconds),
    )


class _Planner:
    """Plans symbols of one market."""

    def __init__(
        self,
        connection: Connection,
        rest: BinanceRest,
        site: DumpSite,
        *,
        fill: FillMode = FillMode.ALL,
        verify: bool = False,
    ) -> None:
        self._connection = connection
        self._rest = rest
        self._site = site
        self._fill = fill
        self._verify = verify

    def plan(
        self, symbol: str, start_us: int | None, end_us: int | None, *, in_part: bool = False
    ) -> BackfillPlan:
        """Plan one symbol; with ``in_part``, only its dump files if REST does not answer."""
        try:
            first_us, last_us = self._span_at_rest(symbol, start_us or 0, end_us)
        except RateLimitedError:
            raise  # the limit applies to all symbols
        except UnknownSymbolError as error:
            return self._plan_of_files(symbol, start_us, end_us, error)
        except TransientError as error:
            if not in_part:
                raise
            log.warning("rest_does_not_answer", symbol=symbol, error=str(error))
            return self._plan_of_files(symbol, start_us, end_us, error)
        notes: tuple[str, ...] = ()
        entries: list[DumpEntry] = []
        try:
            entries = self._listed(symbol, start_us or 0, last_us)
        except TransientError as error:
            notes = (f"{symbol}: no dumps, since their site does not answer: {error}",)
            log.warning("dumps_not_listed", symbol=symbol, error=str(error))
        # Files that end before REST's first row extend the range: REST no longer serves their time.
        begins = [begin for begin, end in map(_period, entries) if end <= first_us]
        span = (max(start_us or 0, min([first_us, *begins])), last_us)
        if span[0] >= span[1]:
            return BackfillPlan(notes=(f"{symbol}: the exchange has no rows in this range",))
        if start_us is None:
            notes += (f"{symbol}: its history begins at {from_us(span[0]):%Y-%m-%d %H:%M}",)
        return self._plan_of(symbol, span, (first_us, last_us), entries, notes)

    def _plan_of_files(
        self,
        symbol: str,
        start_us: int | None,
        end_us: int | None,
        reason: TransientError | UnknownSymbolError,
    ) -> BackfillPlan:
        """Return the range of the published files, for symbols that REST does not know."""
        is_unknown = isinstance(reason, UnknownSymbolError)
        listed_us, ended_us = listed_span(self._connection, symbol)
        if end_us is None:
            end_us = minute_of(to_us(server_time(self._connection)))
        try:
            entries = self._listed(symbol, start_us or 0, end_us)
        except TransientError as error:
            if is_unknown:
                raise reason from error
            return BackfillPlan(unplanned=(f"{symbol}: {reason}",))
        if is_unknown and not entries:
            raise reason
        note = f"{symbol}: only its dump files are planned, since {reason}"
        notes, unplanned = ((note,), ()) if is_unknown else ((), (note,))
        periods = [_period(entry) for entry in entries]
        span = (
            max(start_us or 0, listed_us or 0, min((one[0] for one in periods), default=end_us)),
            min(end_us, ended_us or end_us, max((one[1] for one in periods), default=end_us)),
        )
        if span[0] >= span[1]:
            return BackfillPlan(notes=notes, unplanned=unplanned)
        return self._plan_of(symbol, span, None, entries, notes, unplanned)

    def _plan_of(
        self,
        symbol: str,
        span: tuple[int, int],
        rest_span: tuple[int, int] | None,
        entries: Sequence[DumpEntry],
        notes: tuple[str, ...] = (),
        unplanned: tuple[str, ...] = (),
    ) -> BackfillPlan:
        """Plan the pieces of a range for which the exchange has rows."""
        meant = [span]
        if self._fill is not FillMode.ALL:
            stored = stored_span(self._connection, symbol, span[1])
            meant = minutes_to_fill(self._fill, *span, stored)
            if stored is None:
                notes += (f"{symbol}: nothing is stored, so mode {self._fill} has no place",)
        missing = [
            gap
            for start_us, end_us in meant
            for gap in missing_minutes(self._connection, symbol, start_us, end_us, unsure=True)
        ]
        files = self._files(symbol, entries, missing)
        parts = [
            part
            for window in meant
            for part in sourced(
                common(missing, [window]),
                files,
                span=window,
                rest_span=rest_span,
                verify=self._verify,
            )
        ]
        nowhere = minutes_in(missing) - minutes_in(obtainable(missing, files, rest_span))
        if nowhere:
            lost = counted(nowhere, "minute is", "minutes are")
            notes += (f"{symbol}: {lost} neither in REST nor in a file",)
        return BackfillPlan(
            tuple(_dump_piece(symbol, part, part.file) for part in parts if part.file is not None),
            tuple(_rest_piece(symbol, part) for part in parts if part.file is None),
            sum(part.minutes for part in parts),
            notes,
            unplanned,
        )

    def _span_at_rest(self, symbol: str, start_us: int, end_us: int | None) -> tuple[int, int]:
        """Clip the range to the symbol's first and last complete row at REST; may be empty."""
        name = exchange_symbol_of(symbol)
        oldest = self._rest.klines(name, "1m", start_us, None, limit=1).candles
        newest = self._rest.klines(name, "1m", None, None, limit=1)
        last_us = minute_of(final_until(newest.server_time_us))
        if newest.candles and last_us - newest.candles[0].open_time_us > DAY_US:
            last_us = newest.candles[0].open_time_us + MINUTE_US  # the symbol stopped trading
        if end_us is not None:
            last_us = min(last_us, end_us)
        if not oldest:
            return last_us, last_us
        first_us = oldest[0].open_time_us
        if (
            first_us > start_us > 0
            and self._rest.klines(name, "1m", None, start_us, limit=1).candles
        ):
            first_us = start_us  # the range begins inside an outage, not before the listing
        return first_us, last_us

    def _listed(self, symbol: str, start_us: int, end_us: int) -> list[DumpEntry]:
        """Return the published months and days that touch the range."""
        entries: list[DumpEntry] = []
        for period, make, frame in (("monthly", monthly_path, MONTH), ("daily", daily_path, DAY)):
            before = make(symbol, from_us(frame.open_time_us(start_us) - 1))
            until = make(symbol, from_us(frame.next_open_us(frame.open_time_us(end_us - 1))))
            found = self._site.list(klines_prefix(symbol, period), after=before, until=until)
            entries += [entry for entry in found if entry.path.endswith(".zip")]
        return entries

    def _files(
        self, symbol: str, entries: Sequence[DumpEntry], missing: Ranges
    ) -> list[PublishedFile]:
        """Return the published files with their state in the ledgers."""
        states = file_states(self._connection, symbol, KIND)
        loaded: dict[Source, Ranges] = {}
        for entry in entries:
            state = states.get(entry.path)
            if state is not None and state.loaded_us is not None:
                loaded.setdefault(_source(entry), []).append(state.loaded_us)
        lacks: dict[Source, Ranges] = {}
        for source, windows in loaded.items():
            wanted = common(missing, united(windows))
            if wanted:
                covered = read_coverage(
                    self._connection, symbol, source, wanted[0][0], wanted[-1][1]
                )
                lacks[source] = without(wanted, covered)
        return [
            _file(entry, states.get(entry.path), lacks.get(_source(entry), [])) for entry in entries
        ]


def _file(entry: DumpEntry, state: FileState | None, lacking: Ranges) -> PublishedFile:
    start_us, end_us = _period(entry)
    file = PublishedFile(entry.path, _source(entry), start_us, end_us, entry.size_bytes)
    if state is None:
        return file
    is_known = entry.published_at_us <= state.fetched_at_us
    # HTTP dates have whole seconds.
    published_s = entry.published_at_us // 1_000_000
    if state.published_at_us is not None and published_s > state.published_at_us // 1_000_000:
        # The checksum of a re-issued file may be published after the file, and the site may be
        # away: retry until the file is loaded. A damaged file that fits its checksum stays damaged.
        if state.verdict == "corrupt" and is_known:
            return replace(file, fault=state.verdict)
        return replace(file, is_reissued=True)
    if state.loaded_us is not None:
        file = replace(file, lacks=tuple(common(lacking, [state.loaded_us])))
    return replace(file, fault=state.verdict if state.verdict in FAULTS and is_known else "")


def _period(entry: DumpEntry) -> tuple[int, int]:
    return window_of(entry.path)


def _source(entry: DumpEntry) -> Source:
    return Source.DUMP_MONTHLY if "/monthly/" in entry.path else Source.DUMP_DAILY


def _dump_piece(symbol: str, part: SourcedPart, file: PublishedFile) -> DumpPiece:
    period = file.path.removesuffix(".zip").rsplit("-1m-", 1)[1]
    return DumpPiece(
        symbol=symbol,
        label=f"{symbol} {period}",
        path=file.path,
        source=part.source.value,
        start_us=part.start_us,
        end_us=part.end_us,
        minutes=part.minutes,
        why=part.why,
        size_bytes=file.size_bytes,
    )


def _rest_piece(symbol: str, part: SourcedPart) -> RestPiece:
    label = label_of(symbol, part.start_us, part.end_us)
    return RestPiece(symbol, label, part.start_us, part.end_us, part.minutes, part.why)
