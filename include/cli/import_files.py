"""``candelabra import``: load files of klines or trades that a user has."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from include.jobs.imports import ImportSummary


def import_files(
    paths: Annotated[
        list[Path], typer.Argument(help="Files (.csv, .csv.gz, .zip), or folders of them.")
    ],
    symbol: Annotated[
        str, typer.Option(help="Symbol of the rows; else from names like BTCUSDT-1m-2024-02.zip.")
    ] = "",
    market: Annotated[
        str, typer.Option(help="spot or um; else spot, or um below a folder futures/um.")
    ] = "",
) -> None:
    """Load 1m klines or trades in the dump site's formats; bad rows are kept apart."""
    from rich.console import Console

    from include.cli.here import settings_here
    from include.cli.interrupts import promptly_stopped
    from include.cli.progress import rows_progress
    from include.errors import PermanentError
    from include.jobs.imports import ImportProgress, import_file
    from include.logs import configure_logging

    settings = settings_here()
    configure_logging(settings.log_level, settings.log_format)
    files = _files(paths)
    summaries: list[ImportSummary] = []
    failures: list[str] = []
    with (
        promptly_stopped("what was loaded stays; run it again for the rest"),
        rows_progress(Console(stderr=True)) as progress,
    ):
        for file in files:
            task = progress.add_task(file.name, total=1.0, rows=0)

            def on_progress(so_far: ImportProgress, task: object = task) -> None:
                progress.update(task, completed=so_far.share, rows=so_far.rows)  # type: ignore[arg-type]

            try:
                summary = import_file(
                    settings=settings,
                    path=file,
                    symbol=symbol,
                    market=market,
                    on_progress=on_progress,
                )
            except PermanentError as error:
                failures.append(str(error))
                progress.update(task, description=f"{file.name} (refused)")
                continue
            progress.update(task, completed=1.0, rows=summary.rows)
            summaries.append(summary)
            if not summary.rows:
                failures.append(f"{file}: no row of it can be used")
    _show(summaries)
    for failure in failures:
        typer.secho(f"candelabra: {failure}", err=True, fg=typer.colors.RED)
    if failures:
        sys.exit(1)


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those in the folders named, by name."""
    from include.errors import PermanentError
    from include.jobs.imports import SUFFIXES

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.name.endswith(SUFFIXES))
            if not inside:
                raise PermanentError(f"{path} holds no {', '.join(SUFFIXES)}")
            files += inside
        elif not path.exists():
            raise PermanentError(f"{path} does not exist")
        else:
            files.append(path)
    return files


def _show(summaries: list[ImportSummary]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not summaries:
        return
    columns = ("file", "symbol", "kind", "rows", "candles", "new", "partial", "rejected", "rows/s")
    table = Table(title="import")
    for name in columns:
        table.add_column(name, justify="left" if name in columns[:3] else "right")
    for one in summaries:
        table.add_row(
            one.file,
            one.symbol,
            one.kind,
            f"{one.rows:,}",
            f"{one.merged.offered:,}",
            f"{one.merged.inserted:,}",
            f"{one.partial:,}",
            f"{one.rejected:,}",
            f"{one.rows / one.seconds:,.0f}" if one.seconds else "",
        )
    Console().print(table)
    for one in summaries:
        for reason, count in sorted(one.reasons.items(), key=lambda item: -item[1]):
            typer.echo(f"{one.file}: {count:,} rows rejected: {reason}")
        if one.quarantine:
            typer.echo(f"rejected rows are kept in {one.quarantine}")
