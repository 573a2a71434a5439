"""Text of whole columns: rows of JSON or CSV without a Python object per value.

A year of minutes or a month of trades is millions of numbers. Digits are written column by column
into a matrix of bytes, one text row per matrix row; leading zeros are masked out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.market.instruments import SPOT_DECIMALS, Instrument
from simulator.market.klines import KlineColumns
from simulator.market.noise import IntArray
from simulator.market.trades.columns import BoolArray, TradeColumns

_ZERO, _POINT = ord("0"), ord(".")
_ROWS_AT_ONCE = 8_192  # the matrix stays within the processor's cache


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column of integers of 10^-`decimals`, printed with `shown` decimals.

    Raises:
        ValueError: a value is negative.
    """

    values: IntArray
    decimals: int = 0
    shown: int = 0

    def __post_init__(self) -> None:
        if len(self.values) and int(self.values.min()) < 0:
            raise ValueError("a column must not have negative numbers")

    def write(self, rows: slice) -> tuple[npt.NDArray[np.uint8], BoolArray]:
        """Return the rows' bytes at full width, and which of them belong to the text."""
        values = self.values[rows]
        digits = max(len(str(int(values.max()))), self.decimals + 1)
        whole = digits - self.decimals
        width = whole + (1 + self.shown if self.shown else 0)
        text = np.full((len(values), width), _ZERO, dtype=np.uint8)
        keep = np.ones((len(values), width), dtype=np.bool_)
        rest = values
        for number in range(digits):
            rest, digit = np.divmod(rest, 10)
            place = whole - 1 - (number - self.decimals)
            if number < self.decimals:
                place = whole + self.decimals - number
            text[:, place] += digit.astype(np.uint8)
            if number > self.decimals:  # a leading zero unless a digit here or before is not 0
                keep[:, place] = (rest > 0) | (digit > 0)
        if self.shown:
            text[:, whole] = _POINT
        return text, keep


@dataclass(frozen=True, slots=True)
class ChoiceColumn:
    """A column of one of two words."""

    values: BoolArray
    true: bytes
    false: bytes

    def write(self, rows: slice) -> tuple[npt.NDArray[np.uint8], BoolArray]:
        """Return the rows' bytes at full width, and which of them belong to the text."""
        values = self.values[rows]
        width = max(len(self.true), len(self.false))
        words = np.array(
            [list(word.ljust(width)) for word in (self.false, self.true)], dtype=np.uint8
        )
        sizes = np.array([len(self.false), len(self.true)])
        chosen = values.astype(np.int64)
        keep: BoolArray = np.arange(width)[None, :] < sizes[chosen][:, None]
        return words[chosen], keep


Column = NumberColumn | ChoiceColumn


def render(count: int, parts: Sequence[Column | bytes]) -> bytes:
    """Return the text of `count` rows, each the concatenation of its parts; bytes are constants."""
    pieces = []
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, count))
        size = rows.stop - rows.start
        texts, keeps = [], []
        for part in parts:
            if isinstance(part, bytes):
                constant = np.frombuffer(part, dtype=np.uint8)
                texts.append(np.broadcast_to(constant, (size, len(part))))
                keeps.append(np.ones((size, len(part)), dtype=np.bool_))
            else:
                text, keep = part.write(rows)
                texts.append(text)
                keeps.append(keep)
        pieces.append(np.hstack(texts)[np.hstack(keeps)].tobytes())
    return b"".join(pieces)


def _numbers(instrument: Instrument) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return (decimals, shown) of prices, quantities and quote amounts."""
    quote = SPOT_DECIMALS if instrument.is_inverse else instrument.quote_decimals
    units = (instrument.price_decimals, instrument.quantity_decimals, quote)
    if instrument.market == "spot":
        return tuple((unit, SPOT_DECIMALS) for unit in units)  # type: ignore[return-value]
    return tuple((unit, unit) for unit in units)  # type: ignore[return-value]


def _shown_amounts(instrument: Instrument, amounts: IntArray) -> IntArray:
    """Return quote amounts in the units that are printed; see `Instrument.format_quote`."""
    if not instrument.is_inverse:
        return amounts
    divisor = 10 ** (instrument.quote_decimals - SPOT_DECIMALS)
    rounded: IntArray = (amounts + divisor // 2) // divisor
    return rounded


def _kline_columns(
    instrument: Instrument, klines: KlineColumns, *, step_us: int, unit_us: int
) -> list[Column]:
    """Return the first eleven of a kline's twelve elements; the last one is a constant."""
    price, quantity, quote = _numbers(instrument)
    return [
        NumberColumn(klines.open_time_us // unit_us),
        NumberColumn(klines.open, *price),
        NumberColumn(klines.high, *price),
        NumberColumn(klines.low, *price),
        NumberColumn(klines.close, *price),
        NumberColumn(klines.volume, *quantity),
        NumberColumn((klines.open_time_us + (step_us - 1)) // unit_us),
        NumberColumn(_shown_amounts(instrument, klines.quote_volume), *quote),
        NumberColumn(klines.trade_count),
        NumberColumn(klines.taker_buy_volume, *quantity),
        NumberColumn(_shown_amounts(instrument, klines.taker_buy_quote_volume), *quote),
    ]


def kline_array(
    instrument: Instrument, klines: KlineColumns, *, step_us: int, unit_us: int
) -> bytes:
    """Return REST klines as a JSON array of `payloads.kline_row`."""
    columns = _kline_columns(instrument, klines, step_us=step_us, unit_us=unit_us)
    parts: list[Column | bytes] = [b"["]
    for number, column in enumerate(columns):
        quotes = b"" if number in (0, 6, 8) else b'"'
        parts += [quotes, column, quotes + b","]
    text = render(len(klines), [*parts, b'"0"],'])
    return b"[" + text[:-1] + b"]"


def kline_lines(
    instrument: Instrument, klines: KlineColumns, *, step_us: int, unit_us: int
) -> bytes:
    """Return the CSV lines of a kline dump."""
    columns = _kline_columns(instrument, klines, step_us=step_us, unit_us=unit_us)
    return render(len(klines), [*_separated(columns), b",0\n"])


def agg_trade_lines(trades: TradeColumns, *, unit_us: int) -> bytes:
    """Return the CSV lines of an aggTrades dump."""
    price, quantity, _ = _numbers(trades.instrument)
    columns = [
        NumberColumn(trades.agg_id),
        NumberColumn(trades.price, *price),
        NumberColumn(trades.quantity, *quantity),
        NumberColumn(trades.first_id),
        NumberColumn(trades.first_id + trades.fills - 1),
        NumberColumn(trades.time_us // unit_us),
    ]
    return render(
        len(trades), [*_separated(columns), b",", *_flags(trades.instrument, trades.buyer_is_maker)]
    )


def trade_lines(trades: TradeColumns, *, unit_us: int) -> bytes:
    """Return the CSV lines of a trades dump: one line per market fill."""
    price, quantity, quote = _numbers(trades.instrument)
    row = np.repeat(np.arange(len(trades), dtype=np.int64), trades.fills)
    number = np.arange(len(row), dtype=np.int64) - (np.cumsum(trades.fills) - trades.fills)[row]
    slot = trades.slot_start[row] + number
    columns = [
        NumberColumn(trades.first_id[row] + number),
        NumberColumn(trades.price[row], *price),
        NumberColumn(trades.slot_quantity[slot], *quantity),
        NumberColumn(_shown_amounts(trades.instrument, trades.slot_quote[slot]), *quote),
        NumberColumn(trades.time_us[row] // unit_us),
    ]
    return render(
        len(row),
        [*_separated(columns), b",", *_flags(trades.instrument, trades.buyer_is_maker[row])],
    )


def _separated(columns: Sequence[Column]) -> list[Column | bytes]:
    parts: list[Column | bytes] = [columns[0]]
    for column in columns[1:]:
        parts += [b",", column]
    return parts


def _flags(instrument: Instrument, buyer_is_maker: BoolArray) -> list[Column | bytes]:
    """Return the end of a trade's line. Spot adds `isBestMatch`, which is always true."""
    if instrument.market == "spot":
        return [ChoiceColumn(buyer_is_maker, b"True", b"False"), b",True\n"]
    return [ChoiceColumn(buyer_is_maker, b"true", b"false"), b"\n"]
