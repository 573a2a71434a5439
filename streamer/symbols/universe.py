"""Choose the symbols to stream: by name, by pattern, by rank of volume, or all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase

from include.domain.instruments import (
    CM_MARK,
    UM_SUFFIX,
    Instrument,
    Market,
    market_of,
    unknown_symbol,
)
from include.errors import UnknownSymbolError, WrongValueError

ALL = ("*", f"*{UM_SUFFIX}", f"*{CM_MARK}*")
"""A pattern of all symbols of each market."""


def is_pattern(wanted: str) -> bool:
    """Whether a name contains wildcards."""
    return any(character in wanted for character in "*?[")


def markets_of(wanted: Sequence[str]) -> tuple[Market, ...]:
    """Return the markets of names and patterns."""
    markets = {market_of(name) for name in wanted}
    return tuple(market for market in Market if market in markets)


def choose(
    wanted: Sequence[str],
    instruments: Sequence[Instrument],
    *,
    top: int | None = None,
    quote_volume_24h: Mapping[str, Decimal] | None = None,
    streamed: Collection[str] = (),
    place_of: Callable[[str], str] = lambda _name: "",
) -> list[Instrument]:
    """Select the instruments to stream, in a stable order.

    Args:
        wanted: symbols (``BTCUSDT``, ``BTCUSDT.P``, ``BTCUSD_PERP``) and patterns (``*USDT``,
            ``*USDT.P``, ``*_PERP``). A pattern matches trading symbols of one market: with ``.P``
            USD-M, otherwise with ``_`` COIN-M, otherwise spot.
        top: keep this many, by quote volume of the last 24 hours.
        quote_volume_24h: by platform symbol; needed with ``top``.
        streamed: symbols streamed recently. Patterns match them even if they do not trade, since
            their last minutes may be missing.
        place_of: where a name was written, as the prefix of an error.

    Raises:
        PermanentError: no names, an unknown name (the error lists similar ones), or a pattern
            without matches.
    """
    if not wanted:
        raise WrongValueError(
            "no symbols: give --symbols BTCUSDT,ETHUSDT (or SYMBOLS), a pattern like "
            "'*USDT' --top 100, --symbols-file FILE, or --all"
        )
    for name in wanted:
        if not matching([name], instruments, streamed=streamed):
            place = place_of(name)
            if is_pattern(name):
                raise WrongValueError(f"{place}no trading symbol matches the pattern {name!r}")
            known = [instrument.symbol for instrument in instruments]
            raise UnknownSymbolError(place + unknown_symbol(name, known))
    chosen = matching(wanted, instruments, streamed=streamed)
    if top is None or top >= len(chosen):
        return chosen
    volumes = quote_volume_24h or {}
    return sorted(chosen, key=lambda one: (-volumes.get(one.symbol, Decimal(0)), one.symbol))[:top]


def matching(
    wanted: Sequence[str], instruments: Sequence[Instrument], *, streamed: Collection[str] = ()
) -> list[Instrument]:
    """Return the instruments that match names and patterns, in their order.

    Args:
        streamed: symbols that patterns match even if they do not trade.
    """
    by_symbol = {instrument.symbol: instrument for instrument in instruments}
    found: dict[str, Instrument] = {}
    for name in wanted:
        if is_pattern(name):
            found.update(
                (one.symbol, one)
                for one in instruments
                if (one.is_trading or one.symbol in streamed) and _matches(one, name)
            )
        elif name in by_symbol:
            found[name] = by_symbol[name]
    return list(found.values())


def is_wanted(symbol: str, wanted: Sequence[str]) -> bool:
    """Whether names and patterns of its market match a symbol, trading or not."""
    return any(fnmatchcase(symbol, name) if is_pattern(name) else symbol == name for name in wanted)


def not_trading(wanted: Sequence[str], instruments: Sequence[Instrument]) -> list[str]:
    """Return the symbols that patterns would match if they traded."""
    patterns = [name for name in wanted if is_pattern(name)]
    return [
        one.symbol
        for one in instruments
        if not one.is_trading and any(_matches(one, pattern) for pattern in patterns)
    ]


def _matches(instrument: Instrument, pattern: str) -> bool:
    return instrument.market is market_of(pattern) and fnmatchcase(instrument.symbol, pattern)
