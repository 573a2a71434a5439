"""A backfill plan as tables: a row for each piece, and the total cost."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table

from cli.terminal.console import console as console_of
from cli.terminal.tables import fitted
from include.config import Settings
from include.counts import counted
from include.domain.candles import Source
from include.jobs.klines.estimates import estimate
from include.jobs.klines.pieces import BackfillPlan, DumpPiece, RestPiece

MAX_PIECES_SHOWN = 60
"""Rows of a table, one for each symbol."""

_SOURCES = {
    Source.DUMP_MONTHLY.value: "monthly dump",
    Source.DUMP_DAILY.value: "daily dump",
}


def show_plan(plan: BackfillPlan, settings: Settings) -> None:
    """Print a table for each symbol and the totals."""
    console = console_of()
    console.print(
        f"{counted(plan.missing_minutes, 'minute is', 'minutes are')} missing", highlight=False
    )
    by_symbol = sorted(plan.pieces, key=lambda one: (one.symbol, one.start_us))
    for symbol, pieces in groupby(by_symbol, key=lambda one: one.symbol):
        _show_symbol(console, symbol, list(pieces))
    console.print(totals(plan, settings), highlight=False)


def totals(plan: BackfillPlan, settings: Settings) -> str:
    """Describe a plan's cost in a sentence."""
    cost = estimate(plan, weight_share=settings.rest_weight_share)
    # A dump site may list files without their sizes, as the simulator does.
    is_listed = cost.size_bytes > 0 or not plan.dumps
    size = f"{cost.size_bytes / 1e6:,.1f} MB of dumps" if is_listed else "dumps of unknown size"
    return (
        f"{counted(len(plan.pieces), 'piece')}: {counted(cost.requests, 'request')}, "
        f"weight {cost.weight:,}, "
        f"{size}; about {_duration(cost.seconds)}"
    )


def _show_symbol(console: Console, symbol: str, pieces: list[DumpPiece | RestPiece]) -> None:
    table = Table(title=f"{symbol}: {counted(sum(one.minutes for one in pieces), 'minute')}")
    for name in ("piece", "source", "minutes", "why"):
        table.add_column(name, justify="right" if name == "minutes" else "left")
    for piece in pieces[:MAX_PIECES_SHOWN]:
        label = piece.label.removeprefix(f"{symbol} ")
        table.add_row(label, _source(piece), f"{piece.minutes:,}", piece.why)
    console.print(fitted(table, console))
    if len(pieces) > MAX_PIECES_SHOWN:
        more = pieces[MAX_PIECES_SHOWN:]
        console.print(
            f"… and {counted(len(more), 'more piece')} of "
            f"{counted(sum(one.minutes for one in more), 'minute')}",
            highlight=False,
        )


def _source(piece: DumpPiece | RestPiece) -> str:
    if isinstance(piece, RestPiece):
        return "REST"
    return f"{_SOURCES[piece.source]} {piece.path.rsplit('/', 1)[1]}"


def _duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h"
