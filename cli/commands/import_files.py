"""``candelabra import``: load files of klines, trades or aggTrades that a user has."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from include.jobs.files.imports import ImportSummary

REFUSED = 1
"""Exit code if a file was refused, or none of its rows could be used."""
WRONG_VALUE = 2
"""Exit code if an option is wrong, or ``--columns`` does not fit a file."""
ROWS_REJECTED = 3
"""Exit code if all files were loaded, but some rows were rejected."""


def import_files(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files (.csv, .csv.gz, .zip, .parquet), folders of them, or patterns: 'in/*.zip'."
        ),
    ],
    symbol: Annotated[
        str,
        typer.Option(
            help="Symbol of the rows; default: from file names like BTCUSDT-1m-2024-02.zip."
        ),
    ] = "",
    market: Annotated[
        str, typer.Option(help="spot, um or cm; default: that of the folder, else spot.")
    ] = "",
    columns: Annotated[
        str,
        typer.Option(
            help="For 1m candles of others: auto, ours=theirs,… or our names in the file's order "
            "(- for others): open_time,open,high,low,close,volume,-."
        ),
    ] = "",
) -> None:
    """Load 1m klines, trades or aggTrades in the dump site's formats, or 1m candles of others.

    Bad rows are recorded with line and reason; the others are loaded.

    Exit code 0: every row was loaded; 1: a file was refused; 2: an option is wrong, or --columns
    does not fit a file; 3: rows were rejected.
    """
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from cli.terminal.console import console
    from cli.terminal.interrupts import promptly_stopped
    from cli.terminal.progress import rows_watched
    from include.errors import PermanentError, WrongValueError
    from include.jobs.files.column_maps import ColumnsError
    from include.jobs.files.imports import import_file

    settings = settings_here()
    configure_command_logs(settings.log_level, settings.log_format)
    files = _files(paths)
    names = Counter(one.name for one in files)
    summaries: list[ImportSummary] = []
    failures: list[str] = []
    refused = REFUSED
    with (
        promptly_stopped("loaded rows stay; run it again for the rest"),
        rows_watched(console(stderr=True)) as watch,
    ):
        for file in files:
            with watch(file.name) as shown:
                try:
                    summary = import_file(
                        settings=settings,
                        path=file,
                        symbol=symbol,
                        market=market,
                        columns=columns,
                        on_progress=lambda so_far: shown(so_far.share, so_far.rows),
                    )
                except WrongValueError:
                    raise  # an option is wrong, so every file would fail
                except PermanentError as error:
                    failures.append(str(error))
                    if isinstance(error, ColumnsError):
                        refused = WRONG_VALUE
                    continue
            summaries.append(summary if names[file.name] == 1 else replace(summary, file=str(file)))
            if not summary.rows:
                failures.append(f"{file}: none of its rows is usable")
    _show(summaries)
    for failure in failures:
        typer.secho(f"candelabra: {failure}", err=True, fg=typer.colors.RED)
    if failures:
        sys.exit(refused)
    if any(one.rejected for one in summaries):
        sys.exit(ROWS_REJECTED)


def _files(named: Iterable[str]) -> list[Path]:
    """Return the named files, those that match a pattern, and those in named folders; each once."""
    from include.errors import WrongValueError
    from include.jobs.files.checksums import checksum_beside
    from include.jobs.files.user_files import SUFFIXES

    files: list[Path] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.name.endswith(SUFFIXES))
            if not inside:
                raise WrongValueError(f"{path} holds no {', '.join(SUFFIXES)}")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            # quoted, or too many for the shell
            fitting = sorted(map(Path, glob(name, recursive=True)))
            if not fitting:
                raise WrongValueError(f"{path} does not exist")
            files += [one for one in fitting if one.is_file()]
    # A pattern such as in/* matches the CHECKSUM of a file too; the file's import verifies it.
    sums = {checksum_beside(one) for one in files}
    return [one for one in dict.fromkeys(files) if one not in sums]


def _show(summaries: list[ImportSummary]) -> None:
    from rich.table import Table

    from cli.terminal.console import console
    from cli.terminal.tables import fitted
    from include.counts import counted

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
    out = console()
    out.print(fitted(table, out))
    for one in summaries:
        if one.incomplete:
            rows = counted(one.incomplete, "row lacks", "rows lack")
            typer.echo(
                f"{one.file}: {rows} values; stored in market.foreign_candles_1m, not in "
                "market.candles_1m"
            )
        for reason, count in sorted(one.reasons.items(), key=lambda item: -item[1]):
            typer.echo(f"{one.file}: {counted(count, 'row')} rejected: {reason}")
        if one.quarantine:
            typer.echo(f"rejected rows are kept in {one.quarantine}")
