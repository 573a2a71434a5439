"""``candelabra backfill --series``: derivative series of futures."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from include.counts import counted

if TYPE_CHECKING:
    from rich.console import Console

    from include.config import Settings
    from include.jobs.derivatives.backfill import SeriesSummary
    from include.jobs.derivatives.pieces import SeriesPlan

MAX_PIECES_SHOWN = 60


def backfill_series(
    settings: Settings,
    *,
    symbols: str,
    market: str,
    series: str,
    start_us: int | None,
    end_us: int | None,
    workers: int,
    only_plan: bool,
) -> None:
    """Plan and load series, or show the plan; exits with 1 if a part could not be loaded."""
    from cli.terminal.console import console
    from cli.terminal.interrupts import promptly_stopped
    from include.jobs.derivatives.planning import plan_series

    errors = console(stderr=True)
    with promptly_stopped("loaded rows stay; run it again for the rest"):
        with errors.status("reading what the exchange has"):
            todo = plan_series(
                settings=settings,
                symbols=symbols,
                market=market,
                series=() if series == "all" else series,
                start=start_us,
                end=end_us,
            )
        for note in todo.notes:
            errors.print(note, style="yellow", highlight=False, markup=False)
        failures = todo.unplanned
        if only_plan:
            show_series_plan(todo)
        elif todo.pieces:
            summary = _load(settings, todo, workers, errors)
            failures = summary.failed
            _show_summary(summary, pieces=len(todo.pieces))
        if not todo.pieces and not failures:
            typer.echo("nothing is missing")
    for failure in failures:
        typer.secho(f"candelabra: {failure}", err=True, fg=typer.colors.RED)
    if failures:
        typer.secho("run it again: only what is missing will be loaded", err=True)
        sys.exit(1)


def show_series_plan(plan: SeriesPlan) -> None:
    """Print a row for each piece."""
    from rich.table import Table

    from cli.terminal.console import console
    from cli.terminal.tables import fitted
    from include.jobs.derivatives.pieces import SeriesFilePiece

    table = Table(title=counted(len(plan.pieces), "piece"))
    for name in ("piece", "source", "why"):
        table.add_column(name)
    for piece in plan.pieces[:MAX_PIECES_SHOWN]:
        source = "REST"
        if isinstance(piece, SeriesFilePiece):
            source = piece.path.rsplit("/", 1)[1]
        table.add_row(piece.label, source, piece.why)
    console().print(fitted(table, console()))
    if len(plan.pieces) > MAX_PIECES_SHOWN:
        more = counted(len(plan.pieces) - MAX_PIECES_SHOWN, "more piece")
        console().print(f"… and {more}", highlight=False)


def _load(settings: Settings, todo: SeriesPlan, workers: int, errors: Console) -> SeriesSummary:
    from cli.terminal.progress import pieces_progress
    from include.jobs.derivatives.backfill import load_series_pieces

    with pieces_progress(errors) as on_progress:
        return load_series_pieces(
            settings=settings, plan=todo, workers=workers, on_progress=on_progress
        )


def _show_summary(summary: SeriesSummary, *, pieces: int) -> None:
    from rich.table import Table

    from cli.terminal.console import console

    table = Table(title="backfill", show_header=False)
    for name, value in asdict(summary.counts).items():
        if value or name in ("offered", "inserted"):
            table.add_row(name.replace("_", " "), f"{value:,}")
    table.add_row("pieces", f"{pieces:,}")
    table.add_row("failed pieces", f"{len(summary.failed):,}")
    console().print(table)
