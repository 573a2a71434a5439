"""The kinds of dump files: their markets, cadences, folders and header lines."""

from dataclasses import dataclass

from simulator.market.instruments import MARKETS, PERPETUAL_SUFFIX, MarketName
from simulator.market.market import SimulatedMarket

_FUTURES: tuple[MarketName, ...] = ("um", "cm")
_BOTH = ("daily", "monthly")
_KLINE_HEADER = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    b"taker_buy_volume,taker_buy_quote_volume,ignore\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpKind:
    """One kind of files.

    Attributes:
        header: first line of the files of futures.
        has_intervals: each interval has a folder.
        is_series: a derivative series, which a halt does not interrupt.
        is_of_pair: folders have the names of pairs.
    """

    name: str
    header: bytes
    markets: tuple[MarketName, ...] = MARKETS
    cadences: tuple[str, ...] = _BOTH
    has_intervals: bool = False
    is_series: bool = False
    is_of_pair: bool = False


def _price_klines(name: str, *, is_of_pair: bool = False) -> DumpKind:
    return DumpKind(
        name=name,
        header=_KLINE_HEADER,
        markets=_FUTURES,
        has_intervals=True,
        is_series=True,
        is_of_pair=is_of_pair,
    )


_KINDS = (
    DumpKind(
        name="aggTrades",
        header=b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,"
        b"is_buyer_maker\n",
    ),
    DumpKind(
        name="fundingRate",
        header=b"calc_time,funding_interval_hours,last_funding_rate\n",
        markets=_FUTURES,
        cadences=("monthly",),
        is_series=True,
    ),
    _price_klines("indexPriceKlines", is_of_pair=True),
    DumpKind(name="klines", header=_KLINE_HEADER, has_intervals=True),
    _price_klines("markPriceKlines"),
    DumpKind(
        name="metrics",
        header=b"create_time,symbol,sum_open_interest,sum_open_interest_value,"
        b"count_toptrader_long_short_ratio,sum_toptrader_long_short_ratio,"
        b"count_long_short_ratio,sum_taker_long_short_vol_ratio\n",
        markets=_FUTURES,
        cadences=("daily",),
        is_series=True,
    ),
    _price_klines("premiumIndexKlines"),
    DumpKind(name="trades", header=b"id,price,qty,quote_qty,time,is_buyer_maker\n"),
)

KINDS = {kind.name: kind for kind in _KINDS}
"""All kinds by name, in the order of the listing."""


def kinds_of(market: MarketName, cadence: str) -> list[str]:
    """Return the kinds of a folder."""
    return [kind.name for kind in _KINDS if market in kind.markets and cadence in kind.cadences]


def folder_names(market: SimulatedMarket, kind: DumpKind, now_us: int) -> list[str]:
    """Return the names of symbols or pairs that have a folder."""
    listed = market.ever_listed(now_us)
    if kind.is_of_pair:
        return list(dict.fromkeys(one.pair for one in listed if not one.is_dated))
    if kind.name == "fundingRate":
        return [one.symbol for one in listed if one.has_funding]
    return [one.symbol for one in listed]


def symbol_of(market: SimulatedMarket, kind: DumpKind, name: str) -> str | None:
    """Return the symbol behind the name of a folder; None for an unknown name."""
    if kind.is_of_pair and f"{name}{PERPETUAL_SUFFIX}" in market:
        return f"{name}{PERPETUAL_SUFFIX}"
    if name not in market:
        return None
    instrument = market.instrument(name)
    if kind.is_of_pair and (instrument.is_dated or instrument.is_inverse):
        return None
    if kind.name == "fundingRate" and not instrument.has_funding:
        return None
    return name
