"""Find where the ids of a trade file restart because another instrument took over the ticker."""

from __future__ import annotations

import polars as pl

from include.binance.files.columns import (
    COUNT,
    Layout,
    reject,
    sniff_digits,
    split,
    time_checks,
    to_micros,
)
from include.binance.files.text_blocks import TextBlock
from include.domain.columns.trades import TradeAggregator
from include.domain.instruments import REUSED_AFTER_US
from include.domain.timeframes import MINUTE_US


def part(
    block: TextBlock, layout: Layout, aggregator: TradeAggregator
) -> tuple[TextBlock, TextBlock] | None:
    """Split a block at its first row of another instrument; None if there is none.

    A smaller id with a time well after all others belongs to another instrument, if the next row
    continues from it. Rows that were written twice, or in another order, have earlier times.

    Args:
        aggregator: of the rows before the block.
    """
    line = _restart_in(block, layout, aggregator)
    if line is None:
        return None
    lines = block.content.splitlines(keepends=True)
    at = line - block.first_line
    former = TextBlock(block.first_line, b"".join(lines[:at]))
    return former, TextBlock(line, b"".join(lines[at:]))


def _restart_in(block: TextBlock, layout: Layout, aggregator: TradeAggregator) -> int | None:
    table, _ = split(block.lines(), layout)
    digits = sniff_digits(table, "trade_time")
    table, _ = reject(table, time_checks(["trade_time"], digits=digits))
    rows = (
        table.filter(pl.col("id").str.contains(COUNT))
        .with_columns(pl.col("id").cast(pl.Int64), to_micros("trade_time", digits=digits))
        .sort("line")
        .select("line", "id", us="trade_time")
    )
    number, moment = pl.col("id"), pl.col("us")
    last_us = aggregator.last_minute_us + MINUTE_US
    before_id = (
        number.cum_max().shift(1).fill_null(aggregator.last_id).clip(lower_bound=aggregator.last_id)
    )
    before_us = moment.cum_max().shift(1).fill_null(last_us).clip(lower_bound=last_us)
    goes_on = (number.shift(-1) > number) & (moment.shift(-1) >= moment)
    begins = rows.filter(
        (before_id >= 0) & (number <= before_id) & (moment > before_us + REUSED_AFTER_US) & goes_on
    )
    return int(begins["line"][0]) if begins.height else None
