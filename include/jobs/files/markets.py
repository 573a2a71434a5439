"""Refuse files of uncovered markets, and USD-M files without a stated market.

Files of all markets have the same columns, so a COIN-M file would become candles in contracts, and
a USD-M file candles of spot. Names, headers and amounts show the market.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from decimal import Decimal, InvalidOperation
from pathlib import Path

from include.binance.files.archives import member_name
from include.binance.files.columns import Layout
from include.binance.files.kline_files import KLINES
from include.binance.files.text_blocks import first_line_of, text_blocks
from include.binance.files.trade_files import UM_AGG_TRADES, UM_TRADES
from include.domain.exact import ZERO
from include.domain.instruments import UM_SUFFIX, Market, symbol_from, uncovered_contract
from include.errors import RejectedInputError

DUMP_NAME = re.compile(
    r"(?P<symbol>[^-/\\]+(-[A-Za-z]+)?)-(?P<kind>[A-Za-z0-9]+)-\d{4}-\d{2}(-\d{2})?"
)
"""File names of the dump site, without the suffix; also with a symbol like ``BTC-USDT``."""

_UM_KLINES = (
    "opentime,open,high,low,close,volume,closetime,quotevolume,count,takerbuyvolume,"
    "takerbuyquotevolume"
)
"""Header of USD-M klines on the dump site, plain; spot klines have none there."""
_COIN_M_TRADES = "id,price,qty,baseqty,time,isbuyermaker"

_CONTRACT_SIZES = (Decimal(100), Decimal(10))
"""Quote value of a COIN-M contract: 100 USD for BTC, 10 USD for the others."""
_TOLERANCE = Decimal("0.02")
"""Relative; small amounts are rounded."""
_SAMPLED_ROWS = 200
Amounts = tuple[Decimal, Decimal, Decimal, Decimal]
"""Lowest and highest price of a row, its amount and its quote amount."""
_SAMPLED_BYTES = 1 << 18
_COIN_M_REMEDY = (
    "Candelabra covers spot (--market spot) and USD-M perpetual futures (--market um); "
    "COIN-M volumes count contracts"
)


def market_said(path: Path, symbol: str, market: Market | str) -> Market | str:
    """Return the market stated by the option, the symbol or the folder; empty if none does."""
    if market:
        return market
    if symbol_from(symbol).endswith(UM_SUFFIX):
        return Market.UM
    place = f"/{path.as_posix()}"
    if "/futures/um/" in place:
        return Market.UM
    return Market.SPOT if "/data/spot/" in place else ""


def check_names(path: Path, stem: str) -> None:
    """Check that neither folder nor name of a file, or of the file in a zip, is uncovered.

    Args:
        stem: the file's name without suffix.

    Raises:
        RejectedInputError: it holds COIN-M or dated futures.
    """
    if "/futures/cm/" in f"/{path.as_posix()}":
        raise RejectedInputError(f"{path.name} is in a folder of COIN-M files; {_COIN_M_REMEDY}")
    for name in (stem, member_name(path).removesuffix(".csv")):
        match = DUMP_NAME.fullmatch(name)
        reason = uncovered_contract(
            symbol_from(match["symbol"] if match else name.partition("-")[0])
        )
        if reason is not None:
            raise RejectedInputError(f"{path.name}: {reason}")


def check_header(path: Path, said: Market | str) -> None:
    """Check that a file's header is not of COIN-M, nor of USD-M without a stated market.

    Raises:
        RejectedInputError: it is.
    """
    first = first_line_of(path)
    header = first.lower().replace("_", "").replace(" ", "").replace('"', "")
    names = tuple(name for name in header.split(",") if name not in ("symbol", "ignore"))
    if names == tuple(_COIN_M_TRADES.split(",")):
        raise RejectedInputError(f"{path.name} has the header of COIN-M trades; {_COIN_M_REMEDY}")
    if not said and ",".join(names) in (_UM_KLINES, *UM_TRADES.headers, *UM_AGG_TRADES.headers):
        raise _market_error(path, "header")


def check_rows(path: Path, layout: Layout, said: Market | str) -> None:
    """Check that a file's rows are not of COIN-M, nor of USD-M without a stated market.

    AggTrades of COIN-M and USD-M differ only in names.

    Raises:
        RejectedInputError: they are.
    """
    if layout in (UM_TRADES, UM_AGG_TRADES) and not said:
        raise _market_error(path, "columns")
    if layout is KLINES:
        check_amounts(path, _sampled(path, layout, ("low", "high", "volume", "quote_volume")))
    elif "quote_quantity" in layout.columns:
        names = ("price", "price", "quantity", "quote_quantity")
        check_amounts(path, _sampled(path, layout, names))


def check_amounts(path: Path, rows: Iterable[Amounts]) -> None:
    """Check that amounts are not of COIN-M, which has contracts for amounts and base for quote.

    Args:
        rows: of the file, with trades.

    Raises:
        RejectedInputError: they are.
    """
    sample = list(rows)
    if any(
        sum(_counts_contracts(size, *row) for row in sample) * 10 > len(sample) * 9
        for size in _CONTRACT_SIZES
    ):
        raise RejectedInputError(
            f"{path.name} holds COIN-M rows: its amounts count contracts of 10 or 100 USD; "
            f"{_COIN_M_REMEDY}"
        )


def _market_error(path: Path, what: str) -> RejectedInputError:
    return RejectedInputError(
        f"{path.name} has the {what} of a USD-M file, and nothing says its market: give --market "
        "um, or --market spot if its rows are of spot; in the inbox, put it below futures/um or "
        "data/spot"
    )


def _counts_contracts(
    size: Decimal, low: Decimal, high: Decimal, amount: Decimal, quote: Decimal
) -> bool:
    is_linear = low * amount * (1 - _TOLERANCE) <= quote <= high * amount * (1 + _TOLERANCE)
    return (
        not is_linear
        and amount == amount.to_integral_value()
        and low * quote * (1 - _TOLERANCE) <= size * amount <= high * quote * (1 + _TOLERANCE)
    )


def _sampled(path: Path, layout: Layout, names: tuple[str, ...]) -> Iterator[Amounts]:
    """Yield values of a file's first rows with trades; rows that are no rows are left out."""
    places = [layout.columns.index(name) for name in names]
    left = _SAMPLED_ROWS
    with closing(text_blocks(path, (layout,), block_bytes=_SAMPLED_BYTES)) as blocks:
        for block in blocks:
            for line in block.lines()["raw"].head(_SAMPLED_ROWS):
                fields = line.split(",")
                if len(fields) != len(layout.columns):
                    continue
                try:
                    low, high, amount, quote = (Decimal(fields[at].strip(' "')) for at in places)
                except InvalidOperation:
                    continue
                if not all(one.is_finite() for one in (low, high, amount, quote)):
                    continue
                if amount > ZERO and quote > ZERO:
                    yield low, high, amount, quote
                    left -= 1
                    if not left:
                        return
