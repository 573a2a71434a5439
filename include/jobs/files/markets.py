"""Tell the market of a file, and refuse files whose market is wrong or not stated.

Files of all markets have the same columns, so a COIN-M file could become spot candles in contracts,
and a USD-M file candles of spot. Names, headers and amounts show the market.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path

from include.binance.files.archives import member_name
from include.binance.files.columns import Layout
from include.binance.files.kline_files import KLINES
from include.binance.files.text_blocks import first_line_of, text_blocks
from include.binance.files.trade_files import CM_TRADES, FUTURES_AGG_TRADES, UM_TRADES
from include.domain.exact import ZERO
from include.domain.instruments import Market, is_contract, market_of, symbol_from
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
_CM_FOLDER = "/futures/cm/"
_FOLDERS = {_CM_FOLDER: Market.CM, "/futures/um/": Market.UM, "/data/spot/": Market.SPOT}

_CONTRACT_SIZES = (Decimal(100), Decimal(10))
"""Quote value of a COIN-M contract: 100 USD for BTC, 10 USD for the others."""
_TOLERANCE = Decimal("0.02")
"""Relative; small amounts are rounded."""
_SAMPLED_ROWS = 200
Amounts = tuple[Decimal, Decimal, Decimal, Decimal]
"""Lowest and highest price of a row, its amount and its quote amount."""
_SAMPLED_BYTES = 1 << 18
_COIN_M_REMEDY = (
    "give its contract, such as --symbol BTCUSD_PERP, or --market cm if the file is named after it"
)


def market_said(path: Path, stem: str, symbol: str, market: Market | str) -> Market | str:
    """Return the market of a file's rows; empty if nothing says it.

    Names of futures show their market. Otherwise the option decides, then the folder.

    Args:
        stem: the file's name without suffix.
        symbol: the option; empty for the name of the file.
    """
    shown = market_of(symbol_from(symbol) if symbol else _contract_in(stem))
    if shown.is_futures:
        return shown
    if market:
        return market
    place = f"/{path.as_posix()}"
    for folder, said in _FOLDERS.items():
        if folder in place:
            return said
    return ""


def check_names(path: Path, stem: str, said: Market | str) -> None:
    """Check that no name of a file, or of the file in a zip, belongs to another market of futures.

    Args:
        stem: the file's name without suffix.

    Raises:
        RejectedInputError: it does.
    """
    for name in (stem, member_name(path).removesuffix(".csv")):
        symbol = _contract_in(name)
        market = market_of(symbol)
        if market.is_inverse and said != market:
            raise RejectedInputError(
                f"{path.name}: {symbol} is a COIN-M future, whose volumes count contracts, but "
                f"its rows shall be of {said or Market.SPOT}; {_COIN_M_REMEDY}"
            )
    if _CM_FOLDER in f"/{path.as_posix()}" and said != Market.CM:
        raise RejectedInputError(
            f"{path.name} is in a folder of COIN-M files, but its rows shall be of {said}; "
            f"{_COIN_M_REMEDY}"
        )


def check_header(path: Path, said: Market | str) -> None:
    """Check that a file's header is not of COIN-M, nor of futures without a stated market.

    Raises:
        RejectedInputError: it is.
    """
    first = first_line_of(path)
    header = first.lower().replace("_", "").replace(" ", "").replace('"', "")
    names = ",".join(name for name in header.split(",") if name not in ("symbol", "ignore"))
    if names in CM_TRADES.headers and said != Market.CM:
        raise RejectedInputError(f"{path.name} has the header of COIN-M trades; {_COIN_M_REMEDY}")
    if not said and names in (_UM_KLINES, *UM_TRADES.headers, *FUTURES_AGG_TRADES.headers):
        raise _market_error(path, "header")


def check_rows(path: Path, layout: Layout, said: Market | str) -> None:
    """Check that a file's rows fit its market as far as amounts show it.

    AggTrades of COIN-M and USD-M differ only in names.

    Raises:
        RejectedInputError: they are of COIN-M and the market is another, or the other way round, or
            they are of futures and no market is stated.
    """
    if layout in (UM_TRADES, CM_TRADES, FUTURES_AGG_TRADES) and not said:
        raise _market_error(path, "columns")
    names = ("price", "price", "quantity", "quote_quantity")
    if layout is KLINES:
        names = ("low", "high", "volume", "quote_volume")
    elif "quote_quantity" not in layout.columns:
        return
    check_amounts(path, _sampled(path, layout, names), said)


def check_amounts(path: Path, rows: Iterable[Amounts], said: Market | str) -> None:
    """Check that amounts count contracts and quote amounts the base asset on COIN-M only.

    Args:
        rows: of the file, with trades.

    Raises:
        RejectedInputError: the amounts are of another market.
    """
    sample = list(rows)

    def are(fits: Callable[..., bool]) -> bool:
        return sum(fits(*row) for row in sample) * 10 > len(sample) * 9

    if said == Market.CM:
        if are(_is_linear):
            raise RejectedInputError(
                f"{path.name} holds no COIN-M rows: its quote amounts are price × amount; should "
                "be contracts × contract size / price. Give --market spot or --market um"
            )
        return
    if any(are(partial(_counts_contracts, size)) for size in _CONTRACT_SIZES):
        raise RejectedInputError(
            f"{path.name} holds COIN-M rows: its amounts count contracts of 10 or 100 USD; "
            f"{_COIN_M_REMEDY}"
        )


def _contract_in(name: str) -> str:
    """Return the contract after which a file is named; a name like ``my_file`` shows no market."""
    match = DUMP_NAME.fullmatch(name)
    symbol = symbol_from(match["symbol"] if match else name.partition("-")[0])
    return symbol if is_contract(symbol) else ""


def _market_error(path: Path, what: str) -> RejectedInputError:
    return RejectedInputError(
        f"{path.name} has the {what} of a USD-M file, and nothing says its market: give --market "
        "um, or --market spot if its rows are of spot; in the inbox, put it below futures/um or "
        "data/spot"
    )


def _is_linear(low: Decimal, high: Decimal, amount: Decimal, quote: Decimal) -> bool:
    return low * amount * (1 - _TOLERANCE) <= quote <= high * amount * (1 + _TOLERANCE)


def _counts_contracts(
    size: Decimal, low: Decimal, high: Decimal, amount: Decimal, quote: Decimal
) -> bool:
    return (
        not _is_linear(low, high, amount, quote)
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
