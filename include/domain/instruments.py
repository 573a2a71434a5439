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
CM_MARK = "_"

REUSED_AFTER_US = MINUTE_US
"""Trades of one instrument have ascending ids and, except for clock corrections, ascending times. A
smaller id whose trade is this much newer belongs to another instrument that reuses the ticker."""


class Market(StrEnum):
    """The markets of Binance that Candelabra covers."""

    SPOT = "spot"
    UM = "um"
    """USD-margined futures, perpetual and dated."""
    CM = "cm"
    """Coin-margined futures, perpetual and dated."""

    @property
    def is_futures(self) -> bool:
        """Whether its instruments are contracts: fills of the insurance fund and ADL exist, ids of
        single trades skip, and a halt shows as empty klines."""
        return self is not Market.SPOT

    @property
    def is_inverse(self) -> bool:
        """Whether volumes count contracts, and quote volumes are amounts of the base asset."""
        return self is Market.CM


FUTURES = tuple(market for market in Market if market.is_futures)


def symbol_of(market: Market, exchange_symbol: str) -> str:
    """Return the platform's unique symbol: spot ``BTCUSDT``, USD-M ``BTCUSDT.P``, COIN-M
    ``BTCUSD_PERP``."""
    return exchange_symbol + UM_SUFFIX if market is Market.UM else exchange_symbol


def market_of(symbol: str) -> Market:
    """Return the market of a platform symbol, or of a pattern of symbols.

    Of names without the suffix of USD-M, only those of COIN-M contain ``_``. The SQL function
    ``market.market_of`` is the same.
    """
    if symbol.endswith(UM_SUFFIX):
        return Market.UM
    return Market.CM if CM_MARK in symbol else Market.SPOT


def exchange_symbol_of(symbol: str) -> str:
    """Return the exchange's name: ``BTCUSDT.P`` becomes ``BTCUSDT``."""
    return symbol.removesuffix(UM_SUFFIX)


def pair_of(symbol: str) -> str:
    """Return the exchange's pair of a future, which its index belongs to.

    ``BTCUSDT.P`` and ``BTCUSDT_260327.P`` are contracts of ``BTCUSDT``, ``BTCUSD_PERP`` of
    ``BTCUSD``.
    """
    return exchange_symbol_of(symbol).partition(CM_MARK)[0]


_DATE = r"\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_COIN_M = re.compile(rf"[^_*?\[]+USD_(PERP|{_DATE})")
_DATED = re.compile(rf"[^_*?\[]+_{_DATE}")
_PAIR = re.compile(
    r"(?P<base>[^\W_]+)[-/_](?!(PERP|\d{6})\b)(?P<quote>[^\W_]+)"
    r"(:(?P<settled>[^\W_]+)(-(?P<date>\d{6}))?)?(?P<suffix>\.P)?"
)


def symbol_from(text: str) -> str:
    """Return the symbol that a user writes, in our spelling; patterns become upper case only.

    ``btc/usdt``, ``BTC-USDT`` and ``BTC_USDT`` are ``BTCUSDT``; ``BTC/USDT:USDT``, settled in its
    quote asset, is the perpetual ``BTCUSDT.P``, and ``BTC/USD:BTC`` the perpetual ``BTCUSD_PERP``.
    ``BTCUSDT_260327``, the exchange's name of a dated USD-M contract, is ``BTCUSDT_260327.P``.
    """
    clean = text.strip().upper()
    pair = _PAIR.fullmatch(clean)
    if pair is None or any(sign in clean for sign in "*?["):
        is_um = _DATED.fullmatch(clean) and not _COIN_M.fullmatch(clean)
        return clean + UM_SUFFIX if is_um else clean
    symbol = pair["base"] + pair["quote"]
    if pair["settled"] is None:
        return symbol + (pair["suffix"] or "")
    term = pair["date"] or "PERP"
    if pair["settled"] != pair["quote"]:
        return f"{symbol}_{term}"  # COIN-M
    return f"{symbol}_{term}{UM_SUFFIX}" if pair["date"] else symbol + UM_SUFFIX


def is_contract(symbol: str) -> bool:
    """Whether a name has the form of a COIN-M contract, or the suffix of USD-M."""
    return symbol.endswith(UM_SUFFIX) or _COIN_M.fullmatch(symbol) is not None


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


CONTRACT = "contract"
"""Unit of COIN-M volumes."""
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
        listed_at_us: start of trading where the exchange publishes it (futures), else None.
        filters: the exchange's order filters by type, verbatim; empty if not requested.
        contract_type: of futures, by the exchange: ``PERPETUAL``, ``CURRENT_QUARTER`` …
        contract_size: quote value of one contract, where amounts count contracts (COIN-M); None
            where the exchange publishes none.
        margin_asset, pair: of futures, by the exchange.
        delivers_at_us: delivery of a dated contract, or announced end of a perpetual one.
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
    contract_type: str | None = None
    contract_size: Decimal | None = None
    margin_asset: str | None = None
    pair: str | None = None
    delivers_at_us: int | None = None

    @property
    def exchange_symbol(self) -> str:
        """The exchange's name of the symbol."""
        return exchange_symbol_of(self.symbol)

    @property
    def is_trading(self) -> bool:
        """Whether the exchange accepts orders."""
        return self.status == "TRADING"

    def is_delivered(self, now_us: int) -> bool:
        """Whether its delivery has passed and it no longer trades: it never trades again."""
        return (
            self.delivers_at_us is not None
            and self.delivers_at_us <= now_us
            and not self.is_trading
        )

    @property
    def quote_volume_is_exact(self) -> bool:
        """Whether the exchange's quote volume is the sum of price × quantity.

        Never on COIN-M: its quote volumes are contracts × contract size / price, rounded for each
        fill. Elsewhere, if tick × step has more than eight decimals (ETHBTC, BNBBTC …), the
        exchange rounds each fill's quote amount down. An aggTrade merges fills, so quote volumes
        cannot be recovered from it.
        """
        decimals = decimals_of(self.tick_size) + decimals_of(self.step_size)
        return not self.market.is_inverse and decimals <= QUOTE_DECIMALS

    @property
    def volume_unit(self) -> str:
        """Unit of volumes: the base asset, or ``contract``."""
        return CONTRACT if self.market.is_inverse else self.base_asset

    @property
    def quote_volume_unit(self) -> str:
        """Unit of quote volumes: the quote asset; on COIN-M the base asset."""
        return self.base_asset if self.market.is_inverse else self.quote_asset
