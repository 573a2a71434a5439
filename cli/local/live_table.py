"""The live candles as a table in the terminal, read from PostgreSQL as any reader does."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli.terminal.tables import natural_width
from include.errors import TransientError
from include.store.postgres.pools import connect

REFRESH_S = 0.5
MAX_ROWS = 30
LAYOUTS = (
    (("open", "high", "low", "close"), True),
    (("open", "high", "low", "close"), False),
    (("open", "close"), False),
    (("close",), False),
)
"""Prices, and whether there is a frame; the first one that fits the terminal is shown."""

_QUERY = """
    SELECT DISTINCT ON (symbol)
        symbol, open_time, open, high, low, close, volume, trade_count, status, updated_at
    FROM market.candles_1m_live
    WHERE open_time >= now() - interval '3 minutes'
    ORDER BY symbol, open_time DESC
    LIMIT %s
"""
_COUNTS = """
    SELECT status, count(*) FROM market.candles_1m
    WHERE open_time >= now() - interval '1 hour' GROUP BY status ORDER BY status
"""


def live_table(
    rows: list[tuple[Any, ...]], counts: list[tuple[str, int]], console: Console
) -> Table:
    """Return a table with one row a symbol, its newest candle, as wide as the terminal allows."""
    for prices, is_framed in LAYOUTS:
        table = _table(rows, counts, prices=prices, is_framed=is_framed)
        if natural_width(table, console) <= console.width:
            break
    return table


def _table(
    rows: list[tuple[Any, ...]],
    counts: list[tuple[str, int]],
    *,
    prices: tuple[str, ...],
    is_framed: bool,
) -> Table:
    known = ", ".join(f"{count} {status}" for status, count in counts) or "none yet"
    table = Table(
        title="market.candles_1m_live (UTC)",
        caption=f"minutes of the last hour: {known}",
        box=box.HEAVY_HEAD if is_framed else box.SIMPLE_HEAD,
        padding=(0, 1) if is_framed else 0,
        show_edge=is_framed,
        pad_edge=is_framed,
    )
    for name in ("symbol", "minute"):
        table.add_column(name, no_wrap=True)
    for name in (*prices, "volume", "trades"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    now = datetime.now(UTC)
    for symbol, open_time, opened, high, low, close, volume, trades, status, updated_at in rows:
        colour = "green" if close >= opened else "red"
        age_s = max(0.0, (now - updated_at).total_seconds())
        shown = {
            "open": _plain(opened),
            "high": _plain(high),
            "low": _plain(low),
            "close": f"[{colour}]{_plain(close)}[/]",
        }
        table.add_row(
            symbol,
            open_time.strftime("%H:%M"),
            *(shown[name] for name in prices),
            _plain(volume),
            str(trades),
            status,
            f"{age_s:.1f} s",
        )
    return table


def _plain(value: Decimal) -> str:
    """Format a number without trailing zeros and without an exponent."""
    return f"{value.normalize():f}"


def watch(database_url: str, console: Console, *, trouble: Callable[[], str]) -> None:
    """Show the table until interrupted.

    Args:
        trouble: called at each refresh; returns a message to show below the table, if any, or
            raises to end it.
    """
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            try:
                with connect(database_url, application_name="candelabra-demo") as connection:
                    while True:
                        message = Text(trouble(), style="yellow")
                        live.update(Group(_read(connection, console), message))
                        time.sleep(REFRESH_S)
            except (TransientError, psycopg.OperationalError):
                live.update(Text(trouble() or "waiting for PostgreSQL …", style="yellow"))
                time.sleep(REFRESH_S)


def _read(connection: psycopg.Connection[Any], console: Console) -> Table:
    rows = connection.execute(_QUERY, (MAX_ROWS,)).fetchall()
    return live_table(rows, connection.execute(_COUNTS).fetchall(), console)
