"""``candelabra backfill``: load history from dumps and REST."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from include.config import Settings
    from include.jobs.klines.backfill import BackfillPlan, BackfillSummary

_START, _NOW = "start", "now"


def backfill(
    symbols: Annotated[
        str, typer.Option(help="Comma-separated: BTCUSDT,ETHUSDT.P. [SYMBOLS]")
    ] = "",
    market: Annotated[
        str, typer.Option(help="Market of symbols without .P and _: spot or um.")
    ] = "spot",
    start: Annotated[
        str,
        typer.Option(
            "--from",
            help="First minute, UTC: 2026-11-01 or 2026-11-01T12:00; or start, for all history.",
        ),
    ] = "",
    end: Annotated[
        str, typer.Option("--to", help="End, exclusive; now: the last complete minute is included.")
    ] = _NOW,
    mode: Annotated[
        str,
        typer.Option(
            help="all: every missing minute; forward: after the newest stored one; "
            "backward: before the oldest; gaps: between the two."
        ),
    ] = "all",
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be loaded, its sources and its cost.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=32, help="Pieces loaded at the same time.")
    ] = 4,
    kind: Annotated[
        str,
        typer.Option(
            help="klines; or agg_trades or trades: dumps whose candles are compared with klines."
        ),
    ] = "klines",
    series: Annotated[
        str,
        typer.Option(
            help="Load derivative series of futures instead: funding, mark, index, premium, "
            "open_interest, ratios, comma-separated; or all."
        ),
    ] = "",
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw", help="Also store the rows of trade dumps.")
    ] = False,
) -> None:
    """Load the minutes that are missing: monthly dumps, daily dumps, then REST."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from cli.terminal.console import console
    from cli.terminal.interrupts import promptly_stopped
    from include.jobs.klines.backfill import plan_backfill

    settings = settings_here()
    configure_command_logs(settings.log_level, settings.log_format)
    wanted = symbols or ",".join(settings.symbols)
    now_us = time.time_ns() // 1000
    if kind != "klines":
        from cli.terminal.trade_dumps import backfill_trades

        first_us, last_us = bounded_span_of(start, end, now_us=now_us)
        backfill_trades(
            settings,
            symbols=wanted,
            market=market,
            kind=kind,
            start_us=first_us,
            end_us=last_us,
            keep_raw=keep_raw,
            only_plan=plan,
        )
        return
    start_us, end_us = span_of(start, end, now_us=now_us)
    if series:
        from cli.terminal.series_backfill import backfill_series

        backfill_series(
            settings,
            symbols=wanted,
            market=market,
            series=series,
            start_us=start_us,
            end_us=end_us,
            workers=workers,
            only_plan=plan,
        )
        return
    errors = console(stderr=True)
    with promptly_stopped("loaded rows stay; run it again for the rest"):
        with errors.status("reading what the exchange has"):
            todo = plan_backfill(
                settings=settings,
                symbols=wanted,
                market=market,
                start=start_us,
                end=end_us,
                mode=mode,
                in_part=True,
            )
        for note in todo.notes:
            errors.print(note, style="yellow", highlight=False, markup=False)
        if plan and todo.pieces:
            from cli.terminal.plan_table import show_plan

            show_plan(todo, settings)
        failures = list(todo.unplanned)
        if not todo.pieces and not failures:
            typer.echo("nothing is missing")
        if todo.pieces and not plan:
            summary = _load(settings, todo, workers, errors)
            failures += summary.failed
            _show_summary(summary)
    for failure in failures:
        typer.secho(f"candelabra: {failure}", err=True, fg=typer.colors.RED)
    if failures:
        typer.secho("run it again: only what is missing will be loaded", err=True)
        sys.exit(1)


def span_of(start: str, end: str, *, now_us: int) -> tuple[int | None, int | None]:
    """Parse ``--from`` and ``--to`` to µs; None for ``start`` and for ``now``.

    Raises:
        WrongValueError: it is malformed, empty, or begins in the future; the message names the
            option and what is accepted.
    """
    from include.domain.timeframes import from_us
    from include.errors import WrongValueError
    from include.jobs.klines.pieces import first_minute

    if not start:
        raise WrongValueError(
            "no start: give --from 2026-11-01 or 2026-11-01T12:00 (UTC), or --from start"
        )
    is_whole = start.strip().lower() == _START
    start_us = None if is_whole else first_minute(start, name="--from")
    end_us = None if end.strip().lower() == _NOW else first_minute(end, name="--to")
    if start_us is not None and start_us > now_us:
        raise WrongValueError(
            f"--from {start} lies in the future: it is {from_us(now_us):%Y-%m-%dT%H:%M}Z now"
        )
    if start_us is not None and end_us is not None and end_us <= start_us:
        raise WrongValueError(f"--from {start} should be before --to {end}")
    return start_us, end_us


def bounded_span_of(start: str, end: str, *, now_us: int) -> tuple[int, int]:
    """Parse ``--from`` and ``--to`` of a command that needs a first day to µs.

    Raises:
        WrongValueError: as ``span_of``, or ``--from`` names no day.
    """
    from include.errors import WrongValueError

    start_us, end_us = span_of(start, end, now_us=now_us) if start else (None, None)
    if start_us is None:
        raise WrongValueError(
            f"{'--from start works only for klines' if start else 'no start'}: "
            "give the first day, as --from 2026-11-01 (UTC)"
        )
    return start_us, now_us if end_us is None else end_us


def _load(settings: Settings, todo: BackfillPlan, workers: int, errors: Console) -> BackfillSummary:
    from cli.terminal.progress import pieces_progress
    from include.jobs.klines.backfill import load_pieces

    with pieces_progress(errors) as on_progress:
        return load_pieces(settings=settings, plan=todo, workers=workers, on_progress=on_progress)


def _show_summary(summary: BackfillSummary) -> None:
    from dataclasses import asdict

    from rich.table import Table

    from cli.terminal.console import console

    table = Table(title="backfill", show_header=False)
    for name, value in asdict(summary.counts).items():
        if value or name in ("offered", "inserted"):
            table.add_row(name.replace("_", " "), f"{value:,}")
    table.add_row("pieces", f"{len(summary.plan.pieces):,}")
    table.add_row("failed pieces", f"{len(summary.failed):,}")
    console().print(table)
