"""Paths of files on the dump site, below its root."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from include.domain.instruments import Market, exchange_symbol_of, market_of, pair_of

Kind = Literal[
    "klines", "aggTrades", "trades",
    "fundingRate", "markPriceKlines", "indexPriceKlines", "premiumIndexKlines", "metrics",
]  # fmt: skip

KINDS: dict[str, Kind] = {"agg_trades": "aggTrades", "trades": "trades"}
"""Our names of the kinds of trades, and the names in paths."""

_FOLDERS = {
    Market.SPOT: "data/spot",
    Market.UM: "data/futures/um",
    Market.CM: "data/futures/cm",
}
_OF_PAIRS = frozenset({"indexPriceKlines"})
"""Kinds whose folders have names of pairs: all contracts of a pair have the same index."""
_WITH_INTERVALS = frozenset({"klines", "markPriceKlines", "indexPriceKlines", "premiumIndexKlines"})
_DATES = {"daily": "%Y-%m-%d", "monthly": "%Y-%m"}


def dump_prefix(symbol: str, kind: Kind, period: str, *, interval: str = "1m") -> str:
    """Return the folder of a symbol's files of a kind.

    Args:
        symbol: platform symbol.
        period: ``daily`` or ``monthly``.
        interval: of klines, as the API names it; a month is ``1mo`` in paths.
    """
    folder = f"{_FOLDERS[market_of(symbol)]}/{period}/{kind}/{_name(symbol, kind)}/"
    return f"{folder}{_in_paths(interval)}/" if kind in _WITH_INTERVALS else folder


def dump_path(
    symbol: str, kind: Kind, period: str, moment: datetime, *, interval: str = "1m"
) -> str:
    """Return the path of the file of a UTC day or month; see ``dump_prefix``."""
    label = _in_paths(interval) if kind in _WITH_INTERVALS else kind
    name = f"{_name(symbol, kind)}-{label}-{moment.strftime(_DATES[period])}.zip"
    return dump_prefix(symbol, kind, period, interval=interval) + name


def _name(symbol: str, kind: Kind) -> str:
    return pair_of(symbol) if kind in _OF_PAIRS else exchange_symbol_of(symbol)


def _in_paths(interval: str) -> str:
    """Return an interval's name in paths: ``1M`` would equal ``1m`` where case is ignored."""
    return "1mo" if interval == "1M" else interval


def klines_prefix(symbol: str, period: str) -> str:
    """Return the folder of a symbol's 1m kline dumps."""
    return dump_prefix(symbol, "klines", period)


def daily_path(symbol: str, day: datetime) -> str:
    """Return the path of the 1m klines of a UTC day."""
    return dump_path(symbol, "klines", "daily", day)


def monthly_path(symbol: str, month: datetime) -> str:
    """Return the path of the 1m klines of a UTC month."""
    return dump_path(symbol, "klines", "monthly", month)
