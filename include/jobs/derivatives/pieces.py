"""Pieces of work for derivative series, and the plan that they make up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.domain.instruments import Market, exchange_symbol_of, market_of, symbol_from, symbol_of
from include.domain.series.kinds import Series
from include.domain.timeframes import DAY_US, from_us
from include.errors import WrongValueError
from include.jobs.klines.pieces import symbols_of

ALL_SERIES = tuple(Series)


@dataclass(frozen=True, slots=True)
class SeriesFilePiece:
    """A dump file of a symbol; ``metrics`` has two series, all others have one.

    Attributes:
        kind: of files, as the dump site names it.
        path: relative to the dump site's root.
        source: ``dump_daily`` or ``dump_monthly``.
        start_us, end_us: the part of the file that is loaded.
        why: reason for this source, shown to users.
        size_bytes: as listed; 0 if unknown.
    """

    symbol: str
    label: str
    kind: str
    path: str
    source: str
    start_us: int
    end_us: int
    why: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SeriesRestPiece:
    """A range of one series to request by REST; see ``SeriesFilePiece``."""

    symbol: str
    label: str
    series: str
    start_us: int
    end_us: int
    why: str = ""


SeriesPiece = SeriesFilePiece | SeriesRestPiece


@dataclass(frozen=True, slots=True)
class SeriesGroup:
    """Pieces that one task loads."""

    label: str
    pieces: tuple[SeriesPiece, ...]


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """The work of a load.

    Attributes:
        pieces: can be loaded in any order and concurrently.
        notes: remarks for the reader of the plan.
        unplanned: symbols that could not be planned, with the reason.
    """

    pieces: tuple[SeriesPiece, ...] = ()
    notes: tuple[str, ...] = ()
    unplanned: tuple[str, ...] = ()

    def __add__(self, other: SeriesPlan) -> SeriesPlan:
        return SeriesPlan(
            self.pieces + other.pieces,
            self.notes + other.notes,
            self.unplanned + other.unplanned,
        )


def series_from(names: str | Sequence[str]) -> list[Series]:
    """Return series by their names; all if none is given.

    Raises:
        WrongValueError: there is no such series.
    """
    wanted = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    found: dict[Series, None] = {}
    for name in wanted:
        try:
            found[Series(name.strip().lower())] = None
        except ValueError:
            known = ", ".join(ALL_SERIES)
            raise WrongValueError(f"unknown series {name!r}; it should be one of {known}") from None
    return list(found or ALL_SERIES)


def futures_of(symbols: str | Sequence[str], market: Market | str) -> list[str]:
    """Return platform symbols of futures, from names as users type them.

    Raises:
        WrongValueError: there are none, or one is not a future.
    """
    found = symbols_of(symbols, market)
    for symbol in found:
        if not market_of(symbol).is_futures:
            future = symbol_of(Market.UM, symbol_from(symbol))
            raise WrongValueError(
                f"{symbol} is a spot symbol, and derivative series exist for futures only: write "
                f"{future} or --market um"
            )
    return found


def has_funding(symbol: str) -> bool:
    """Whether a future is perpetual: dated contracts pay no funding."""
    name = exchange_symbol_of(symbol)
    return name.endswith("_PERP") if market_of(symbol) is Market.CM else "_" not in name


def label_of_span(symbol: str, what: str, start_us: int, end_us: int) -> str:
    """Format a piece: ``BTCUSDT.P mark 2026-11-01..2026-11-08``."""
    start, end = from_us(start_us), from_us(end_us)
    is_of_days = start_us % DAY_US == end_us % DAY_US == 0
    form = "%Y-%m-%d" if is_of_days else "%Y-%m-%dT%H:%M"
    return f"{symbol} {what} {start:{form}}..{end:{form}}"
