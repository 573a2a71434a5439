"""Time, disk and request weight of a full history of N symbols, from measured rates."""

from __future__ import annotations

from include.binance.rest.weights import BEST_KLINES, WEIGHT_LIMITS, klines_weight
from include.domain.instruments import Market
from include.jobs.klines.estimates import REQUESTS_A_FILE, WEIGHT_SHARE, Rates, wait_for_weight_s

SYMBOLS = (1, 10, 100, 500, 1_500)
YEARS = 4
"""Assumed mean age of a listing; the oldest listings are from 2017."""

DAYS = YEARS * 365
MONTHS = YEARS * 12
TAIL_DAYS = 15
"""Average number of days of the current month; they are loaded from daily files."""

TAIL_MINUTES = 2_160
"""Minutes without a file yet: a day's file is published during the next day."""

ROW_BYTES = 255
"""Bytes of a stored row with its index, as ``python -m benchmarks disk`` measures them on rows that
came minute by minute. A history that is loaded in order takes a little less."""


def costs_table(rates: Rates, zip_bytes: float) -> str:
    """Return the table of docs/history.md in Markdown.

    Args:
        zip_bytes: bytes of a row in a dump file.
    """
    measured = (
        f"Measured: {rates.dump_rows_s:,.0f} rows/s from dumps, {rates.rest_rows_s:,.0f} rows/s "
        f"from REST, {ROW_BYTES} bytes a row on disk, {zip_bytes:.0f} in a file. "
        f"Assumed: {YEARS} years a symbol, {rates.download_bytes_s / 1e6:.0f} MB/s from the site."
    )
    head = "| symbols | rows | files | download | disk | weight | time | by REST alone |"
    lines = [measured, "", head, "|---|---|---|---|---|---|---|---|"]
    lines += [_row(count, rates, zip_bytes) for count in SYMBOLS]
    return "\n".join(lines)


def _row(count: int, rates: Rates, zip_bytes: float) -> str:
    rows = count * DAYS * 1_440
    files = count * (MONTHS + TAIL_DAYS)
    from_files = rows - count * TAIL_MINUTES
    page, weight = BEST_KLINES[Market.SPOT], klines_weight(Market.SPOT, 1_000)
    tail_weight = count * (-(-TAIL_MINUTES // page) * weight + 1)
    all_weight = rows // page * weight
    download = from_files * zip_bytes
    seconds = max(
        from_files / rates.dump_rows_s + count * TAIL_MINUTES / rates.rest_rows_s,
        download / rates.download_bytes_s,
        wait_for_weight_s(tail_weight, Market.SPOT, weight_share=WEIGHT_SHARE),
    )
    by_rest = max(
        rows / rates.rest_rows_s,
        wait_for_weight_s(all_weight, Market.SPOT, weight_share=WEIGHT_SHARE),
    )
    return (
        f"| {count:,} | {rows / 1e6:,.1f} M | {files:,} ({files * REQUESTS_A_FILE:,} requests) | "
        f"{download / 1e9:,.1f} GB | {rows * ROW_BYTES / 1e9:,.1f} GB | {tail_weight:,} of "
        f"{WEIGHT_LIMITS[Market.SPOT]:,} a minute | {_time(seconds)} | {_time(by_rest)}, "
        f"weight {all_weight:,} |"
    )


def _time(seconds: float) -> str:
    if seconds < 5_400:
        return f"{max(1.0, seconds / 60):.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 48 * 3_600 else f"{seconds / 86_400:.1f} days"
