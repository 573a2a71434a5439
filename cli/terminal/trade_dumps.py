"""``candelabra backfill --kind agg_trades|trades``: dump files of trades, one after the other."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from include.counts import counted

if TYPE_CHECKING:
    from rich.console import Console

    from include.config import Settings
    from include.jobs.trades.planning import TradeDumpPlan

MAX_SHOWN = 40


def backfill_trades(
    settings: Settings,
    *,
    symbols: str,
    market: str,
    kind: str,
    start_us: int,
    end_us: int,
    keep_raw: bool,
    only_plan: bool,
) -> None:
    """Plan and load the files of a range; exit code 1 where some could not be loaded."""
    from cli.terminal.console import console
    from cli.terminal.interrupts import promptly_stopped
    from include.jobs.trades.planning import plan_trade_dumps

    errors = console(stderr=True)
    with promptly_stopped("loaded rows stay; run it again for the rest"):
        with errors.status("reading what the dump site has"):
            plan = plan_trade_dumps(
                settings=settings,
                symbols=symbols,
                market=market,
                kind=kind,
                start=start_us,
                end=end_us,
                keep_raw=keep_raw,
            )
        _show(plan, errors)
        failures = [] if only_plan else _load(settings, plan, errors)
    for failure in failures:
        typer.secho(f"candelabra: {failure}", err=True, fg=typer.colors.RED)
    if failures:
        sys.exit(1)


def _show(plan: TradeDumpPlan, errors: Console) -> None:
    from rich.table import Table

    from cli.terminal.tables import fitted

    if plan.unpublished:
        days = plan.unpublished
        more = f" … {days[-1]}" if len(days) > 1 else ""
        errors.print(
            f"neither a file nor REST has {counted(len(days), 'day')} ({days[0]}{more})",
            style="yellow", highlight=False, markup=False,
        )  # fmt: skip
    if not plan.pieces:
        typer.echo(
            f"nothing to load; {counted(plan.loaded, 'file is', 'files are')} loaded already"
        )
        return
    table = Table(
        title=f"{counted(len(plan.pieces), 'file')} to load, {plan.loaded:,} loaded already"
    )
    for name in ("file", "source", "from", "why"):
        table.add_column(name)
    for piece in plan.pieces[:MAX_SHOWN]:
        place = "aggTrades" if piece.source == "rest" else piece.path
        table.add_row(piece.label, piece.source, place, piece.why)
    errors.print(fitted(table, errors))
    if len(plan.pieces) > MAX_SHOWN:
        errors.print(f"… and {len(plan.pieces) - MAX_SHOWN:,} more")


def _load(settings: Settings, plan: TradeDumpPlan, errors: Console) -> list[str]:
    from rich.table import Table

    from cli.terminal.console import console
    from cli.terminal.progress import rows_progress
    from include.errors import TransientError
    from include.jobs.trades.dumps import load_trade_dump
    from include.jobs.trades.pieces import TradeDumpCounts

    counts, failures = TradeDumpCounts(), []
    with rows_progress(errors) as progress:
        task = progress.add_task("trades", total=len(plan.pieces), rows=0)
        for done, piece in enumerate(plan.pieces, 1):
            progress.update(task, description=piece.label)
            try:
                loaded = load_trade_dump(settings=settings, piece=piece)
            except TransientError as error:
                failures.append(f"{piece.label}: {error}")
                continue
            if loaded.unusable:
                failures.append(f"{piece.label}: cannot be used; ops.dump_files says why")
            counts += loaded
            progress.update(task, completed=done, rows=counts.trades)
    if plan.pieces:
        table = Table(title="trades", show_header=False)
        for name, value in asdict(counts).items():
            if value or name in ("files", "trades"):
                table.add_row(name.replace("_", " "), f"{value:,}")
        console().print(table)
    return failures
