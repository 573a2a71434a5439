"""Text of columns, compared with rows printed by Python."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.clock import DAY_US, MINUTE_US, SECOND_US
from simulator.market.instruments import MarketName, decimal_formatter, select_instruments
from simulator.market.intervals import parse_interval
from simulator.market.market import SimulatedMarket
from simulator.wire.columns import (
    ChoiceColumn,
    NumberColumn,
    agg_trade_lines,
    kline_array,
    kline_lines,
    render,
    trade_lines,
)
from simulator.wire.payloads import agg_trade_rows, kline_row, trade_rows

START_US = 20_000 * DAY_US
LISTED: list[tuple[MarketName, str]] = [
    ("spot", "ETHBTC"), ("spot", "PEPEUSDT"), ("spot", "BIFIUSDT"), ("spot", "COSUSDT"),
    ("um", "KEEPUSDT"), ("um", "1000PEPEUSDT"),
]  # fmt: skip


def _market(name: MarketName, symbol: str) -> SimulatedMarket:
    return SimulatedMarket(select_instruments(name, (symbol,), seed=3), seed=3, start_us=START_US)


@given(
    values=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20),
    decimals=st.integers(0, 9),
    more=st.integers(0, 8),
)
def test_numbers_are_printed_as_python_prints_them(
    values: list[int], decimals: int, more: int
) -> None:
    shown = decimals + more
    column = NumberColumn(np.array(values, dtype=np.int64), decimals, shown)
    text = render(len(values), [column, b"\n"]).decode()
    printed = decimal_formatter(decimals, shown)
    assert text == "".join(f"{printed(value)}\n" for value in values)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        NumberColumn(np.array([3, -1]))


def test_words_may_differ_in_length() -> None:
    column = ChoiceColumn(np.array([True, False, True]), b"True", b"False")
    assert render(3, [b"<", column, b">"]) == b"<True><False><True>"


def test_many_rows_are_rendered_in_seamless_parts() -> None:
    values = np.arange(20_000, dtype=np.int64) * 37
    assert render(len(values), [NumberColumn(values), b","]) == b"".join(
        b"%d," % value for value in values.tolist()
    )


@pytest.mark.parametrize(("name", "symbol"), LISTED)
@pytest.mark.parametrize(("interval", "step_us"), [("1m", MINUTE_US), ("1s", SECOND_US)])
def test_klines_equal_their_rows(
    name: MarketName, symbol: str, interval: str, step_us: int
) -> None:
    market = _market(name, symbol)
    instrument = market.instrument(symbol)
    span = (START_US, START_US + 90 * MINUTE_US)
    view_us = START_US + DAY_US
    klines = market.kline_columns(symbol, parse_interval(interval), *span, view_us=view_us)
    assert klines is not None
    rows = [
        kline_row(instrument, bar, unit_us=1_000)
        for bar in market.klines(symbol, interval, *span, view_us=view_us)
    ]
    made = kline_array(instrument, klines, step_us=step_us, unit_us=1_000)
    assert made == msgspec.json.encode(rows)
    lines = kline_lines(instrument, klines, step_us=step_us, unit_us=1_000).decode()
    assert lines == "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize(("name", "symbol"), LISTED)
def test_trades_equal_their_rows(name: MarketName, symbol: str) -> None:
    market = _market(name, symbol)
    is_busy = market.instrument(symbol).orders_per_day >= 5_000
    first = START_US // MINUTE_US
    trades = market.history(symbol).trades(first, first + (60 if is_busy else 1_440))

    def line(row: dict[str, int | str | bool]) -> str:
        texts = [str(value) for value in row.values()]
        return ",".join(texts if name == "spot" else [text.lower() for text in texts]) + "\n"

    aggregates = agg_trade_rows(trades, unit_us=1)
    assert agg_trade_lines(trades, unit_us=1).decode() == "".join(map(line, aggregates))
    assert trade_lines(trades, unit_us=1).decode() == "".join(
        map(line, trade_rows(trades, unit_us=1))
    )
    assert len(aggregates) > 3
