"""Markets, symbols, and the filters that decide whether quote volumes can be computed exactly."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from include.domain.timeframes import MINUTE_US

UM_SUFFIX = ".P"

REUSED_AFTER_US = MINUTE_US
"""Trades of one instrument have ascending ids and, except for clock corrections, ascending times. A
smaller id whose trade is this much newer belongs to another instrument that reuses the ticker."""


class Market(StrEnum):
    """The two markets of Binance that Candelabra covers."""

    SPOT = "spot"
    UM = "um"
    """USD-margined perpetual futures."""


def symbol_of(market: Market, exchange_symbol: str) -> str:
    """Return the platform's unique symbol: spot ``BTCUSDT``, USD-M ``BTCUSDT.P``."""
    return exchange_symbol + UM_SUFFIX if market is Market.UM else exchange_symbol


def market_of(symbol: str) -> Market:
    """Return the market of a platform symbol."""
    return Market.UM if symbol.endswith(UM_SUFFIX) else Market.SPOT


def exchange_symbol_of(symbol: str) -> str:
    """Return the exchange's name: ``BTCUSDT.P`` becomes ``BTCUSDT``."""
    return symbol.removesuffix(UM_SUFFIX)


_PAIR = re.compile(
    r"(?P<base>[^\W_]+)[-/_](?!(PERP|\d{6})\b)(?P<quote>[^\W_]+)"
    r"(:(?P<settled>[^\W_]+)(-(?P<date>\d{6}))?)?(?P<suffix>\.P)?"
)


def symbol_from(text: str) -> str:
    """Return the symbol that a user writes, in our spelling; patterns become upper case only.

    ``btc/usdt``, ``BTC-USDT`` and ``BTC_USDT`` are ``BTCUSDT``; ``BTC/USDT:USDT``, settled in its
    quote asset, is the perpetual ``BTCUSDT.P``.
    """
    clean = text.strip().upper()
    pair = _PAIR.fullmatch(clean)
    if pair is None or any(sign in clean for sign in "*?["):
        return clean
    symbol = pair["base"] + pair["quote"]
    if pair["settled"] is None:
        return symbol + (pair["suffix"] or "")
    term = pair["date"] or "PERP"
    if pair["settled"] != pair["quote"]:
        return f"{symbol}_{term}"  # COIN-M
    return f"{symbol}_{term}{UM_SUFFIX}" if pair["date"] else symbol + UM_SUFFIX


_DATE = r"\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_COIN_M = re.compile(rf"[^_]+USD_(PERP|{_DATE})")
_DATED = re.compile(rf"[^_]+_{_DATE}")


def uncovered_contract(exchange_symbol: str) -> str | None:
    """Return why Candelabra does not cover the contract of a name; None if nothing says so.

    Args:
        exchange_symbol: in upper case, such as ``BTCUSD_PERP`` or ``BTCUSDT_240628``.
    """
    if _COIN_M.fullmatch(exchange_symbol):
        return (
            f"{exchange_symbol} is a COIN-M future, whose volumes count contracts: Candelabra "
            "covers spot (--market spot) and USD-M perpetual futures (--market um)"
        )
    if _DATED.fullmatch(exchange_symbol):
        return (
            f"{exchange_symbol} is a dated future: Candelabra covers spot (--market spot) and "
            "USD-M perpetual futures (--market um)"
        )
    return None


def unknown_symbol(name: str, known: Iterable[str]) -> str:
    """Return the message that the exchange does not list a symbol, with similar names."""
    near = difflib.get_close_matches(name.upper(), list(known), n=3, cutoff=0.6)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return f"the exchange has no symbol {name!r}{hint}"


def decimals_of(step: Decimal) -> int:
    """Return the decimals of a tick or step: ``0.01000000`` has two."""
    exponent = step.normalize().as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"step {step} is not a finite number")  # noqa: TRY004 - NaN is a Decimal
    return max(0, -exponent)


QUOTE_DECIMALS = 8
"""Decimals to which the exchange rounds the quote amount of each fill."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One listing of the exchange.

    Attributes:
        symbol: platform symbol.
        status: the exchange's status (``TRADING``, ``BREAK``, ``SETTLING`` …).
        tick_size: smallest price step.
        step_size: smallest quantity step.
        listed_at_us: start of trading where the exchange publishes it (USD-M), else None.
        filters: the exchange's order filters by type, verbatim; empty if not requested.
    """

    symbol: str
    market: Market
    base_asset: str
    quote_asset: str
    status: str
    tick_size: Decimal
    step_size: Decimal
    listed_at_us: int | None = None
    filters: Mapping[str, Mapping[str, object]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def exchange_symbol(self) -> str:
        """The exchange's name of the symbol."""
        return exchange_symbol_of(self.symbol)

    @property
    def is_trading(self) -> bool:
        """Whether the exchange accepts orders."""
        return self.status == "TRADING"

    @property
    def quote_volume_is_exact(self) -> bool:
        """Whether price × quantity of a fill needs no rounding by the exchange.

        If tick × step has more than eight decimals (ETHBTC, BNBBTC …), the exchange rounds each
        fill's quote amount down. An aggTrade merges fills, so quote volumes cannot be recovered
        from it.
        """
        return decimals_of(self.tick_size) + decimals_of(self.step_size) <= QUOTE_DECIMALS
