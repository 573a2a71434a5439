"""``candelabra compare``: compare stored minutes with the exchange's klines of other intervals."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from include.jobs.klines.interval_checks import IntervalCheck

MAX_SHOWN = 40


def compare(
    interval: Annotated[str, typer.Option(help="Interval of the files: 3m to 1M.")],
    symbols: Annotated[
        str, typer.Option(help="Symbols, by comma: BTCUSDT,ETHUSDT.P. [SYMBOLS]")
    ] = "",
    market: Annotated[
        str, typer.Option(help="Market of symbols without .P and _: spot or um.")
    ] = "spot",
    start: Annotated[str, typer.Option("--from", help="First day, UTC: 2026-11-01.")] = "",
    end: Annotated[str, typer.Option("--to", help="End, exclusive; or now.")] = "now",
) -> None:
    """Compare dump files of an interval with what the stored minutes roll up to; store nothing."""
    from cli.commands.backfill import bounded_span_of
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from cli.terminal.console import console
    from cli.terminal.interrupts import promptly_stopped
    from include.jobs.klines.interval_checks import compare_interval

    settings = settings_here()
    configure_command_logs("WARNING", settings.log_format)
    start_us, end_us = bounded_span_of(start, end, now_us=time.time_ns() // 1000)
    errors = console(stderr=True)
    with (
        promptly_stopped("verdicts so far are in ops.dump_files"),
        errors.status("comparing") as shown,
    ):
        checks = compare_interval(
            settings=settings,
            symbols=symbols or ",".join(settings.symbols),
            market=market,
            interval=interval,
            start=start_us,
            end=end_us,
            on_check=lambda check: shown.update(f"compared {check.path.rpartition('/')[2]}"),
        )
    if not checks:
        typer.echo(f"no file of {interval} is published of this span")
        return
    _show(checks)
    if any(check.verdict in ("differs", "unusable") for check in checks):
        sys.exit(1)


def _show(checks: list[IntervalCheck]) -> None:
    from rich.table import Table

    from cli.terminal.console import console
    from cli.terminal.tables import fitted
    from include.domain.timeframes import from_us

    table = Table(title="stored minutes, rolled up, against the exchange's files")
    for name in ("file", "verdict", "bars", "agree", "differ", "incomplete"):
        table.add_column(name, justify="left" if name in ("file", "verdict") else "right")
    for check in checks:
        numbers = (check.bars, check.agreeing, len(check.differences), check.incomplete)
        table.add_row(check.path.rpartition("/")[2], check.verdict, *(f"{n:,}" for n in numbers))
    out = console()
    out.print(fitted(table, out))
    lines = [
        f"{check.path.rpartition('/')[2]} {from_us(one.open_time_us):%Y-%m-%d %H:%M}: "
        + (f"only {one.only}" if one.only else "")
        + ", ".join(f"{name} {ours} ≠ {theirs}" for name, (ours, theirs) in one.values.items())
        for check in checks
        for one in check.differences
    ]
    for line in lines[:MAX_SHOWN]:
        typer.echo(line)
    if len(lines) > MAX_SHOWN:
        typer.echo(f"… and {len(lines) - MAX_SHOWN:,} more; all are in ops.dump_files.detail")
