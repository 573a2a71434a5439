"""Pieces of work and their results.

They are small frozen dataclasses of plain values; ``jobs.task_json`` passes them between tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime
from typing import Self

import structlog

from include.domain.candles import Source
from include.domain.instruments import (
    Market,
    market_of,
    symbol_from,
    symbol_of,
)
from include.domain.ranges import Ranges as Ranges
from include.domain.ranges import gaps_in as gaps_in
from include.domain.ranges import minutes_in as minutes_in
from include.domain.ranges import ranges_of as ranges_of
from include.domain.timeframes import DAY_US, MINUTE_US, from_us, minute_of, to_us
from include.errors import WrongValueError
from include.store.candles.minutes import MergeCounts

log = structlog.get_logger(__name__)

Moment = datetime | date | str | int
"""A time: aware datetime, date (its 00:00 UTC), ISO text, or µs since the epoch."""


@dataclass(frozen=True, slots=True)
class DumpPiece:
    """Minutes of a symbol to load from one dump file.

    Attributes:
        path: of the file, relative to the dump site's root.
        source: ``dump_daily`` or ``dump_monthly``.
        start_us, end_us: the requested part of the file.
        minutes: missing minutes in that part.
        why: reason for this source, shown to users.
        size_bytes: of the file, as listed; 0 if unknown.
    """

    symbol: str
    label: str
    path: str
    source: str
    start_us: int
    end_us: int
    minutes: int = 0
    why: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RestPiece:
    """Minutes of a symbol to fetch by REST; see ``DumpPiece``."""

    symbol: str
    label: str
    start_us: int
    end_us: int
    minutes: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class DayPiece:
    """A day of a symbol to reconcile.

    Attributes:
        day_us: its start, µs.
        path: of its daily file.
    """

    symbol: str
    label: str
    day_us: int
    path: str

    @property
    def dump(self) -> DumpPiece:
        """Return the daily file as a piece for ``load_piece``."""
        return DumpPiece(
            symbol=self.symbol,
            label=self.label,
            path=self.path,
            source=Source.DUMP_DAILY.value,
            start_us=self.day_us,
            end_us=self.day_us + DAY_US,
        )


@dataclass(frozen=True, slots=True)
class DayGroup:
    """Days that one task reconciles."""

    label: str
    pieces: tuple[DayPiece, ...]


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """The work of a backfill.

    Attributes:
        dumps, rest: the pieces; they can be loaded in any order and concurrently.
        missing_minutes: minutes without a verified row that the pieces cover.
        notes: remarks for the reader of the plan.
        unplanned: symbols whose range the exchange did not return, with the reason; repeating the
            backfill plans them.
    """

    dumps: tuple[DumpPiece, ...] = ()
    rest: tuple[RestPiece, ...] = ()
    missing_minutes: int = 0
    notes: tuple[str, ...] = ()
    unplanned: tuple[str, ...] = ()

    @property
    def pieces(self) -> tuple[DumpPiece | RestPiece, ...]:
        """All pieces, dumps first."""
        return (*self.dumps, *self.rest)

    def __add__(self, other: BackfillPlan) -> BackfillPlan:
        return BackfillPlan(
            self.dumps + other.dumps,
            self.rest + other.rest,
            self.missing_minutes + other.missing_minutes,
            self.notes + other.notes,
            self.unplanned + other.unplanned,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCounts:
    """Counts of a load; they can be added.

    Attributes:
        offered … discrepancies: as in ``MergeCounts``.
        rejected: unusable rows of files.
        dumps: dump files loaded.
        replaced_dumps: unusable dump files that REST replaced.
        rest_pages: pages of klines.
        outage_minutes: minutes for which the exchange itself has no row.
        unlisted_minutes: minutes before the symbol's first row at the exchange.
        pending_minutes: minutes whose row may still come.
    """

    offered: int = 0
    inserted: int = 0
    changed: int = 0
    confirmed: int = 0
    unchanged: int = 0
    discrepancies: int = 0
    rejected: int = 0
    dumps: int = 0
    replaced_dumps: int = 0
    rest_pages: int = 0
    outage_minutes: int = 0
    unlisted_minutes: int = 0
    pending_minutes: int = 0

    @classmethod
    def of(cls, merged: MergeCounts, **others: int) -> Self:
        """Return the counts of a merge combined with further counts."""
        return cls(**asdict(merged), **others)

    def __add__(self, other: LoadCounts) -> LoadCounts:
        return LoadCounts(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Result of reconciling.

    Attributes:
        days: number of symbol days by verdict.
        counts: counts of the merges.
    """

    days: dict[str, int] = field(default_factory=dict)
    counts: LoadCounts = field(default_factory=LoadCounts)


def summarise(*, counts: Iterable[LoadCounts]) -> LoadCounts:
    """Add up the results of pieces and log the sum."""
    total = sum(counts, LoadCounts())
    log.info("loads_summed", **{name: count for name, count in asdict(total).items() if count})
    return total


def moment_us(value: Moment, *, name: str) -> int:
    """Convert a time to µs since the epoch.

    Raises:
        WrongValueError: it cannot be parsed, or a datetime has no zone.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise WrongValueError(
                f"{name} {value!r} is no time: write a date or a time of UTC, such as 2026-11-01 "
                "or 2026-11-01T12:00"
            ) from None
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise WrongValueError(f"{name} {value} has no time zone; give UTC explicitly")
        return to_us(value)
    if isinstance(value, date):
        return to_us(datetime(value.year, value.month, value.day, tzinfo=UTC))
    return value


def first_minute(value: Moment, *, name: str) -> int:
    """Return the open time of the first minute that begins at or after a time."""
    return minute_of(moment_us(value, name=name) + MINUTE_US - 1)


def symbols_of(symbols: str | Sequence[str], market: Market | str) -> list[str]:
    """Return platform symbols, in order and without duplicates, from names as users type them.

    Args:
        symbols: ``"BTCUSDT, ETHUSDT"`` or a sequence; the exchange's names or ours (``.P``),
            or pairs such as ``BTC/USDT``.
        market: of names that do not show it: without ``.P`` and ``_``.

    Raises:
        WrongValueError: there are none, one is a pattern or no contract of COIN-M, or the market
            is unknown.
    """
    names = symbols.replace(",", " ").split() if isinstance(symbols, str) else list(symbols)
    place = market_from(market)
    found: dict[str, None] = {}
    for name in names:
        clean = symbol_from(name)
        if any(character in clean for character in "*?["):
            raise WrongValueError(
                f"{name!r} is a pattern, which only `candelabra stream` and `up` accept: list the "
                "symbols, such as BTCUSDT"
            )
        if not clean:
            continue
        symbol = symbol_of(place, clean) if market_of(clean) is Market.SPOT else clean
        if place is Market.CM and market_of(symbol) is Market.SPOT:
            raise WrongValueError(
                f"{name!r} is no contract of COIN-M; should be one such as {clean}_PERP or "
                f"{clean}_260327"
            )
        found[symbol] = None
    if not found:
        raise WrongValueError("no symbols: name at least one, such as BTCUSDT")
    return list(found)


def market_from(market: Market | str) -> Market:
    """Return a market by its name.

    Raises:
        PermanentError: there is no such market.
    """
    try:
        return Market(market)
    except ValueError:
        known = " or ".join(one.value for one in Market)
        raise WrongValueError(f"unknown market {market!r}; it should be {known}") from None


def label_of(symbol: str, start_us: int, end_us: int) -> str:
    """Format a range of minutes: ``BTCUSDT 2024-02-03 10:00..11:30``."""
    start, end = from_us(start_us), from_us(end_us)
    if start.date() == end.date():
        return f"{symbol} {start:%Y-%m-%d %H:%M}..{end:%H:%M}"
    return f"{symbol} {start:%Y-%m-%d %H:%M}..{end:%Y-%m-%d %H:%M}"
