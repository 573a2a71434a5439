"""Texts of open interest and the statistics under `/futures/data`, and of `metrics` files."""

from typing import Any, NamedTuple

from simulator.clock import DAY_US, from_us
from simulator.market.derivatives.open_interest import SHARE_ONE, TakerVolumes
from simulator.market.derivatives.prices import MARK_DECIMALS
from simulator.market.instruments import Instrument
from simulator.wire.derivatives import price_text, symbol_fields
from simulator.wire.payloads import US_PER_MS
from simulator.wire.tickers import signed

Row = dict[str, Any]

_STATISTICS_DECIMALS = 8
_FILE_DECIMALS = 16  # of open interest in `metrics` files, as recorded in 2025
_RATIO_DECIMALS = 4
_FILE_RATIO_DECIMALS = 8


def open_interest_row(
    instrument: Instrument, amount: int, time_ms: int, *, contract_type: str
) -> Row:
    """Return the answer of `openInterest`; on COIN-M in contracts, with their pair and type."""
    row = symbol_fields(instrument) | {"openInterest": _quantity(instrument, amount)}
    if instrument.market == "cm":
        row["contractType"] = contract_type
    return row | {"time": time_ms}


def open_interest_statistics_row(
    instrument: Instrument, amount: int, mark: int, time_us: int
) -> Row:
    """Return a row of `openInterestHist`."""
    shown = _STATISTICS_DECIMALS
    return {
        "symbol": instrument.symbol,
        "sumOpenInterest": _padded(amount, instrument.quantity_decimals, shown),
        "sumOpenInterestValue": _value(instrument, amount, mark, shown),
        "timestamp": time_us // US_PER_MS,
    }


def pair_open_interest_row(
    pair: str, contract_type: str, contracts: int, base_value: int, time_us: int
) -> Row:
    """Return a row of `openInterestHist` of COIN-M.

    Args:
        base_value: in 10^-8 of the base asset.
    """
    return {
        "pair": pair,
        "contractType": contract_type,
        "sumOpenInterest": str(contracts),
        "sumOpenInterestValue": _padded(base_value, _STATISTICS_DECIMALS, _STATISTICS_DECIMALS),
        "timestamp": time_us // US_PER_MS,
    }


def long_short_row(
    instrument: Instrument, long_share: int, time_us: int, *, is_position: bool = False
) -> Row:
    """Return a row of the three ratios of long to short accounts or positions.

    COIN-M has them by pair, and names the shares of positions so.
    """
    short = SHARE_ONE - long_share
    part = "Position" if is_position and instrument.is_inverse else "Account"
    name = {"pair": instrument.pair} if instrument.is_inverse else {"symbol": instrument.symbol}
    return name | {
        f"long{part}": signed(long_share, _RATIO_DECIMALS, _RATIO_DECIMALS),
        "longShortRatio": ratio_text(long_share, short, _RATIO_DECIMALS),
        f"short{part}": signed(short, _RATIO_DECIMALS, _RATIO_DECIMALS),
        "timestamp": time_us // US_PER_MS,
    }


def taker_ratio_row(instrument: Instrument, volumes: TakerVolumes, time_us: int) -> Row:
    """Return a row of `takerlongshortRatio`."""
    decimals = max(_RATIO_DECIMALS, instrument.quantity_decimals)
    return {
        "buySellRatio": ratio_text(volumes.buy, volumes.sell, _RATIO_DECIMALS),
        "sellVol": _padded(volumes.sell, instrument.quantity_decimals, decimals),
        "buyVol": _padded(volumes.buy, instrument.quantity_decimals, decimals),
        "timestamp": time_us // US_PER_MS,
    }


def taker_volumes_row(pair: str, contract_type: str, volumes: TakerVolumes, time_us: int) -> Row:
    """Return a row of `takerBuySellVol` of COIN-M.

    Args:
        volumes: contracts, and amounts in 10^-8 of the base asset; printed with the four decimals
            of the documented example.
    """

    def base(amount: int) -> str:
        cut = amount // 10 ** (_STATISTICS_DECIMALS - _RATIO_DECIMALS)
        return signed(cut, _RATIO_DECIMALS, _RATIO_DECIMALS)

    return {
        "pair": pair,
        "contractType": contract_type,
        "takerBuyVol": str(volumes.buy),
        "takerSellVol": str(volumes.sell),
        "takerBuyVolValue": base(volumes.quote_buy),
        "takerSellVolValue": base(volumes.quote_sell),
        "timestamp": time_us // US_PER_MS,
    }


def basis_row(instrument: Instrument, kind: str, price: int, index: int, time_us: int) -> Row:
    """Return a row of `basis`.

    The annualized rate is for the days that are left until the delivery, of 365 a year (an
    assumption); it is empty for a perpetual contract.
    """
    basis = price * 10 ** (MARK_DECIMALS - instrument.price_decimals) - index
    delivery_us = instrument.delivery_us
    left_us = 0 if delivery_us is None else delivery_us - time_us
    yearly = ratio_text(basis * 365 * DAY_US, index * left_us, _RATIO_DECIMALS)
    return {
        "indexPrice": price_text(index),
        "contractType": kind,
        "basisRate": ratio_text(basis, index, _RATIO_DECIMALS),
        "futuresPrice": instrument.format_price(price),
        "annualizedBasisRate": "" if delivery_us is None else yearly,
        "basis": price_text(basis),
        "pair": instrument.pair,
        "timestamp": time_us // US_PER_MS,
    }


class Metrics(NamedTuple):
    """One row of a `metrics` file; ratios as (long or bought, short or sold), None if empty."""

    time_us: int
    open_interest: int
    mark: int
    top_accounts: tuple[int, int] | None
    top_positions: tuple[int, int] | None
    all_accounts: tuple[int, int] | None
    taker: tuple[int, int] | None


def metrics_line(instrument: Instrument, row: Metrics) -> str:
    """Return a line of a `metrics` file."""
    cells = [
        from_us(row.time_us).strftime("%Y-%m-%d %H:%M:%S"),
        instrument.symbol,
        _padded(row.open_interest, instrument.quantity_decimals, _FILE_DECIMALS),
        _value(instrument, row.open_interest, row.mark, _FILE_DECIMALS),
        *(
            "" if ratio is None else ratio_text(*ratio, _FILE_RATIO_DECIMALS)
            for ratio in (row.top_accounts, row.top_positions, row.all_accounts, row.taker)
        ),
    ]
    return f"{','.join(cells)}\n"


def ratio_text(part: int, other: int, decimals: int) -> str:
    """Return a ratio, cut to its decimals; zero if the divisor is zero."""
    if other == 0:
        return signed(0, decimals, decimals)
    cut = abs(part) * 10**decimals // abs(other)
    return signed(cut if (part < 0) == (other < 0) else -cut, decimals, decimals)


def _quantity(instrument: Instrument, amount: int) -> str:
    return _padded(amount, instrument.quantity_decimals, instrument.quantity_decimals)


def base_value(instrument: Instrument, contracts: int, mark: int, decimals: int) -> int:
    """Return the value of COIN-M contracts in 10^-`decimals` of the base asset, cut."""
    units = abs(contracts) * (instrument.contract_size or 0)
    cut = units * int(10 ** (MARK_DECIMALS + decimals)) // mark
    return -cut if contracts < 0 else cut


def _value(instrument: Instrument, amount: int, mark: int, shown: int) -> str:
    if instrument.is_inverse:
        return signed(base_value(instrument, amount, mark, shown), shown, shown)
    decimals = instrument.quantity_decimals + MARK_DECIMALS
    value = amount * mark
    if decimals > shown:
        cut = abs(value) // 10 ** (decimals - shown)
        return signed(-cut if value < 0 else cut, shown, shown)
    return _padded(value, decimals, shown)


def _padded(value: int, decimals: int, shown: int) -> str:
    return signed(value, decimals, shown)
