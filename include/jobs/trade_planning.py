"""Which dump files of trades a range needs, and which of them are loaded already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from include.binance.dump_paths import Kind, dump_path, dump_prefix
from include.binance.dumps import DumpEntry, DumpSite
from include.config import Settings
from include.domain.instruments import Market
from include.domain.sourcing import LEAST_DAYS_FOR_A_MONTH
from include.domain.timeframes import TIMEFRAMES, Timeframe, from_us
from include.errors import PermanentError
from include.jobs.exchange import APPLICATION_NAME, open_dump_site
from include.jobs.file_edges import IS_SETTLED
from include.jobs.pieces import Moment, market_from, moment_us, symbols_of
from include.jobs.trade_dumps import TradeDumpPiece
from include.store.ledgers import find_dump_file
from include.store.merging import Connection
from include.store.pools import connect

log = structlog.get_logger(__name__)

KINDS: dict[str, Kind] = {"agg_trades": "aggTrades", "trades": "trades"}
"""Names of the kinds in paths, by ours."""

_DAY, _MONTH = TIMEFRAMES["1d"], TIMEFRAMES["1M"]


@dataclass(frozen=True, slots=True)
class TradeDumpPlan:
    """Files to load, in order of symbol and time.

    Attributes:
        loaded: files of the range that are loaded already.
        unpublished: days of the range that have no file, neither of the day nor of the month.
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
    """Find the files that hold the days of a range, and leave out those that are loaded.

    Files are loaded whole. A month that lies in the range comes as one file where at least eight
    of its days are to be loaded and the file is published. A file that was re-issued since, or
    whose rows are wanted and were not kept, is loaded again.

    Args:
        symbols: names as people type them; see ``symbols_of``.
        kind: ``agg_trades`` or ``trades``.
        start, end: half-open; days that they touch are meant.

    Raises:
        PermanentError: an unknown kind or market, or a time that cannot be read.
        TransientError: the dump site or the database are away.
    """
    if kind not in KINDS:
        raise PermanentError(f"unknown kind {kind!r}; it should be {' or '.join(KINDS)}")
    names = symbols_of(symbols, market_from(market))
    start_us, end_us = moment_us(start, name="start"), moment_us(end, name="end")
    if start_us >= end_us:
        raise PermanentError(f"start {start} should be before end {end}")
    pieces: list[TradeDumpPiece] = []
    unpublished: list[str] = []
    loaded = 0
    with (
        connect(settings.url_for("jobs"), application_name=APPLICATION_NAME) as connection,
        open_dump_site(settings) as site,
    ):
        planner = _Planner(connection, site, kind, keep_raw=keep_raw)
        for symbol in names:
            for month_us in _opens(_MONTH, start_us, end_us):
                found = planner.plan_month(symbol, month_us, start_us, end_us)
                pieces += found.pieces
                unpublished += found.unpublished
                loaded += found.loaded
    log.info("trade_dumps_planned", kind=kind, files=len(pieces), loaded=loaded)
    return TradeDumpPlan(tuple(pieces), loaded, tuple(unpublished))


class _Planner:
    def __init__(
        self, connection: Connection, site: DumpSite, kind: str, *, keep_raw: bool
    ) -> None:
        self._connection = connection
        self._site = site
        self._kind = kind
        self._keep_raw = keep_raw

    def plan_month(self, symbol: str, month_us: int, start_us: int, end_us: int) -> TradeDumpPlan:
        """Files of the days of a month that a range touches."""
        next_us = _MONTH.next_open_us(month_us)
        listed = self._listed(symbol, month_us)
        monthly = self._path(symbol, "monthly", month_us)
        if monthly in listed and self._is_loaded(listed[monthly]):
            return TradeDumpPlan(loaded=1)
        loaded, unpublished = 0, []
        pieces = []
        for day_us in _opens(_DAY, max(start_us, month_us), min(end_us, next_us)):
            path = self._path(symbol, "daily", day_us)
            if path not in listed:
                unpublished.append(f"{symbol} {from_us(day_us):%Y-%m-%d}")
            elif self._is_loaded(listed[path]):
                loaded += 1
            else:
                pieces.append(self._piece(symbol, path, f"{from_us(day_us):%Y-%m-%d}"))
        is_inside = start_us <= month_us and next_us <= end_us
        wanted = len(pieces) + len(unpublished)
        is_cheaper = wanted >= LEAST_DAYS_FOR_A_MONTH or (unpublished and is_inside)
        if monthly in listed and is_inside and is_cheaper:
            month = self._piece(symbol, monthly, f"{from_us(month_us):%Y-%m}")
            return TradeDumpPlan((month,), loaded)
        return TradeDumpPlan(tuple(pieces), loaded, tuple(unpublished))

    def _listed(self, symbol: str, month_us: int) -> dict[str, DumpEntry]:
        """Published files of a month, by path."""
        month = f"{from_us(month_us):%Y-%m}"
        found: dict[str, DumpEntry] = {}
        for period in ("daily", "monthly"):
            folder = dump_prefix(symbol, KINDS[self._kind], period)
            first = self._path(symbol, period, month_us).removesuffix(".zip")
            prefix = folder + first.removeprefix(folder).partition(month)[0] + month
            found |= {one.path: one for one in self._site.list(prefix)}
        return found

    def _is_loaded(self, entry: DumpEntry) -> bool:
        known = find_dump_file(self._connection, entry.path)
        if known is None or known.verdict != "loaded":
            return False
        if known.detail.get(IS_SETTLED) is False:
            return False
        if self._keep_raw and not known.detail.get("keeps_raw"):
            return False
        published_us = known.published_at_us
        # HTTP dates have whole seconds
        return published_us is None or entry.published_at_us // 10**6 <= published_us // 10**6

    def _path(self, symbol: str, period: str, moment_us: int) -> str:
        return dump_path(symbol, KINDS[self._kind], period, from_us(moment_us))

    def _piece(self, symbol: str, path: str, period: str) -> TradeDumpPiece:
        return TradeDumpPiece(
            symbol=symbol,
            label=f"{symbol} {self._kind} {period}",
            path=path,
            kind=self._kind,
            keep_raw=self._keep_raw,
        )


def _opens(frame: Timeframe, start_us: int, end_us: int) -> Iterator[int]:
    """Open times of the days or months that a range touches."""
    open_us = frame.open_time_us(start_us)
    while open_us < end_us:
        yield open_us
        open_us = frame.next_open_us(open_us)
