"""Plan trade loads: the dump files that a range needs, and the days to fetch by REST."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from include.binance.files.dump_paths import KINDS, dump_path, dump_prefix
from include.binance.files.dumps import DumpEntry, DumpSite
from include.binance.streams.messages import microseconds
from include.config import Settings
from include.domain.candles import Source
from include.domain.instruments import Market, exchange_symbol_of, market_of
from include.domain.sourcing import MIN_DAYS_FOR_A_MONTH
from include.domain.timeframes import DAY_US, TIMEFRAMES, Timeframe, from_us
from include.errors import (
    PermanentError,
    RateLimitedError,
    TransientError,
    UnknownSymbolError,
    WrongValueError,
)
from include.jobs.exchange import APPLICATION_NAME, open_dump_site, open_shared_rest
from include.jobs.klines.dump_files import REPLACED_BY
from include.jobs.klines.pieces import Moment, market_from, moment_us, symbols_of
from include.jobs.klines.planning import FAULTS, MAX_PIECES_LOGGED
from include.jobs.trades.dumps import day_of
from include.jobs.trades.file_candles import KEEPS_RAW
from include.jobs.trades.file_edges import EDGES_CHECKED
from include.jobs.trades.pieces import TradeDumpPiece
from include.jobs.trades.rest import FINAL_AFTER_US, FUTURES_SERVED_US, served_kind
from include.store.candles.merging import Connection
from include.store.ledgers.files import DumpFile, find_dump_file
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

_DAY, _MONTH = TIMEFRAMES["1d"], TIMEFRAMES["1M"]


@dataclass(frozen=True, slots=True)
class TradeDumpPlan:
    """Files to load and days to fetch by REST, in order of symbol and time.

    Attributes:
        loaded: files of the range that are loaded already.
        unpublished: days of the range without a daily or monthly file, which REST does not serve
            either.
    """

    pieces: tuple[TradeDumpPiece, ...] = ()
    loaded: int = 0
    unpublished: tuple[str, ...] = ()


def plan_trade_dumps(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: Market | str,
    kind: str,
    start: Moment,
    end: Moment,
    keep_raw: bool = False,
) -> TradeDumpPlan:
    """Plan the files for the days of a range, without files already loaded.

    Files are loaded completely. A month within the range is loaded from one file if it is published
    and at least eight of its days are missing. A file is loaded again if it was re-issued, or if
    its rows are wanted but were not stored. Days without a file are fetched by REST if they are
    over and REST serves them.

    Args:
        symbols: names as users type them; see ``symbols_of``.
        kind: ``agg_trades`` or ``trades``.
        start, end: half-open; all days it overlaps count.

    Raises:
        WrongValueError: an unknown kind or market, or a malformed time.
        TransientError: the dump site or the database is away.
    """
    if kind not in KINDS:
        raise WrongValueError(f"unknown kind {kind!r}; it should be {' or '.join(KINDS)}")
    names = symbols_of(symbols, market_from(market))
    start_us, end_us = moment_us(start, name="start"), moment_us(end, name="end")
    if start_us >= end_us:
        raise WrongValueError(f"start {start} should be before end {end}")
    pieces: list[TradeDumpPiece] = []
    unpublished: list[str] = []
    loaded = 0
    with (
        connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        planner = _TradePlanner(settings, connection, site, kind, keep_raw=keep_raw)
        for symbol in names:
            for month_us in _opens(_MONTH, start_us, end_us):
                found = planner.plan_month(symbol, month_us, start_us, end_us)
                pieces += found.pieces
                unpublished += found.unpublished
                loaded += found.loaded
    for piece in pieces[:MAX_PIECES_LOGGED]:
        log.info("piece_planned", piece=piece.label, source=piece.source, why=piece.why)
    log.info("trade_dumps_planned", kind=kind, files=len(pieces), loaded=loaded)
    return TradeDumpPlan(tuple(pieces), loaded, tuple(unpublished))


class _TradePlanner:
    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        site: DumpSite,
        kind: str,
        *,
        keep_raw: bool,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._site = site
        self._kind = kind
        self._keep_raw = keep_raw
        self._at_rest: dict[str, tuple[int, int]] = {}

    def plan_month(self, symbol: str, month_us: int, start_us: int, end_us: int) -> TradeDumpPlan:
        """Plan the days of a month that a range touches."""
        next_us = _MONTH.next_open_us(month_us)
        listed = self._listed(symbol, month_us)
        monthly = self._path(symbol, "monthly", month_us)
        known = self._known(monthly)
        if monthly in listed and self._is_done(known, listed[monthly]):
            return TradeDumpPlan(loaded=1)
        loaded = 0
        pieces: list[TradeDumpPiece] = []
        nowhere: list[int] = []
        for day_us in _opens(_DAY, max(start_us, month_us), min(end_us, next_us)):
            path = self._path(symbol, "daily", day_us)
            if self._is_done(self._known(path), listed.get(path)):
                loaded += 1
            elif path in listed:
                pieces.append(self._day(symbol, day_us, why="the day's file is published"))
            else:
                nowhere.append(day_us)
        is_inside = start_us <= month_us and next_us <= end_us
        is_cheaper = len(pieces) + len(nowhere) >= MIN_DAYS_FOR_A_MONTH or nowhere
        is_sound = monthly in listed and not _is_faulty(known, listed[monthly])
        if is_sound and is_inside and is_cheaper:
            return TradeDumpPlan((self._month(symbol, month_us),), loaded)
        unpublished = []
        for day_us in nowhere:
            if self._is_at_rest(symbol, day_us):
                why = "no file of the day is published"
                pieces.append(self._day(symbol, day_us, source=Source.REST, why=why))
            else:
                unpublished.append(f"{symbol} {from_us(day_us):%Y-%m-%d}")
        return TradeDumpPlan(
            tuple(sorted(pieces, key=lambda one: one.path)), loaded, tuple(unpublished)
        )

    def _listed(self, symbol: str, month_us: int) -> dict[str, DumpEntry]:
        """Return the published files of a month, by path."""
        month = f"{from_us(month_us):%Y-%m}"
        found: dict[str, DumpEntry] = {}
        for period in ("daily", "monthly"):
            folder = dump_prefix(symbol, KINDS[self._kind], period)
            first = self._path(symbol, period, month_us).removesuffix(".zip")
            prefix = folder + first.removeprefix(folder).partition(month)[0] + month
            found |= {one.path: one for one in self._site.list(prefix)}
        return found

    def _known(self, path: str) -> DumpFile | None:
        return find_dump_file(self._connection, path)

    def _is_done(self, known: DumpFile | None, entry: DumpEntry | None) -> bool:
        """Whether a file's rows are stored, from it or from its replacement.

        Args:
            entry: as listed now; None if it is not listed.
        """
        if known is None or not (known.verdict == "loaded" or REPLACED_BY in known.detail):
            return False
        if known.detail.get(EDGES_CHECKED) is False:
            return False
        if self._keep_raw and not known.detail.get(KEEPS_RAW):
            return False
        return entry is None or not _is_newer(entry, known)

    def _is_at_rest(self, symbol: str, day_us: int) -> bool:
        """Whether REST serves all trades of a day."""
        try:
            served_kind(self._settings, symbol, self._kind, keep_raw=self._keep_raw)
        except PermanentError:
            return False
        if symbol not in self._at_rest:
            self._at_rest[symbol] = self._span_at_rest(symbol)
        first_us, until_us = self._at_rest[symbol]
        return first_us < day_us + DAY_US <= until_us

    def _span_at_rest(self, symbol: str) -> tuple[int, int]:
        """Return the range from REST's first trade to the end of its last complete day."""
        name = exchange_symbol_of(symbol)
        market = market_of(symbol)
        try:
            with open_shared_rest(self._settings, market, self._settings.url_for("jobs")) as rest:
                now_us = rest.server_time_us()
                newest = rest.agg_trades(name, limit=1)
                if not newest:
                    return now_us, now_us
                if market.is_futures:
                    # The exchange must still serve the day's start when the request is made.
                    first_us = now_us - FUTURES_SERVED_US + DAY_US
                else:
                    oldest = rest.agg_trades(name, from_id=0, limit=1)
                    first_us = microseconds(oldest[0].trade_time) if oldest else now_us
        except RateLimitedError:
            raise  # the limit applies to all symbols
        except UnknownSymbolError:
            return 0, 0
        except TransientError as error:
            log.warning("rest_does_not_answer", symbol=symbol, error=str(error))
            return 0, 0
        last_day_us = _DAY.open_time_us(microseconds(newest[0].trade_time))
        return first_us, min(now_us - FINAL_AFTER_US, last_day_us + DAY_US)

    def _path(self, symbol: str, period: str, moment_us: int) -> str:
        return dump_path(symbol, KINDS[self._kind], period, from_us(moment_us))

    def _day(
        self, symbol: str, day_us: int, *, source: Source = Source.DUMP_DAILY, why: str
    ) -> TradeDumpPiece:
        return day_of(symbol, self._kind, day_us, keep_raw=self._keep_raw, source=source, why=why)

    def _month(self, symbol: str, month_us: int) -> TradeDumpPiece:
        return TradeDumpPiece(
            symbol=symbol,
            label=f"{symbol} {self._kind} {from_us(month_us):%Y-%m}",
            path=self._path(symbol, "monthly", month_us),
            kind=self._kind,
            keep_raw=self._keep_raw,
            source=Source.DUMP_MONTHLY.value,
            why="one file is cheaper than those of its days",
        )


def _is_newer(entry: DumpEntry, known: DumpFile) -> bool:
    """Whether a listed file is newer than the ledger's."""
    if known.published_at_us is None:  # the earlier download failed
        return known.verdict != "loaded" and entry.published_at_us > known.fetched_at_us
    # HTTP dates have whole seconds.
    return entry.published_at_us // 10**6 > known.published_at_us // 10**6


def _is_faulty(known: DumpFile | None, entry: DumpEntry) -> bool:
    """Whether a monthly file is known to be unusable; its daily files are loaded instead."""
    return known is not None and known.verdict in FAULTS and not _is_newer(entry, known)


def _opens(frame: Timeframe, start_us: int, end_us: int) -> Iterator[int]:
    """Yield the open times of the days or months that a range touches."""
    open_us = frame.open_time_us(start_us)
    while open_us < end_us:
        yield open_us
        open_us = frame.next_open_us(open_us)
