"""``candelabra archive``: days of raw capture that were moved to files."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from include.counts import counted

if TYPE_CHECKING:
    from include.config import Settings
    from include.store.storage.archive import ArchivedDay
    from include.store.storage.partitions import RawDay


class Action(Enum):
    """Action on archived days."""

    LIST = "list"
    VERIFY = "verify"
    RESTORE = "restore"
    WRITE = "write"
    ADOPT = "adopt"


class Dataset(Enum):
    """Tables of the raw capture."""

    AGG_TRADES = "agg_trades"
    TRADES = "trades"
    BOOK_TICKERS = "book_tickers"
    LIQUIDATIONS = "liquidations"
    DEPTH_DIFFS = "depth_diffs"
    DEPTH_SNAPSHOTS = "depth_snapshots"


def archive(
    action: Annotated[
        Action,
        typer.Argument(
            help=(
                "list: show them; verify: read each file; restore: load days into their "
                "tables again; write: archive days older than RAW_RETENTION_DAYS; adopt: "
                "record files that the ledger does not know, after restoring an older "
                "backup."
            )
        ),
    ],
    dataset: Annotated[Dataset | None, typer.Option(help="Only days of this table.")] = None,
    first: Annotated[str, typer.Option(help="First day, as 2026-11-18.")] = "",
    last: Annotated[str, typer.Option(help="Last day; default: the first day, if given.")] = "",
    keep_days: Annotated[
        int, typer.Option(min=0, help="Days that a restored day stays in its table.")
    ] = 7,
) -> None:
    """List, verify, restore or write the Parquet files of old days of raw capture."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.jobs.storage.archive import list_days

    settings = settings_here()
    configure_command_logs("WARNING", settings.log_format)
    if action is Action.WRITE:
        _write(settings)
        return
    if action is Action.ADOPT:
        _adopt(settings)
        return
    begin = _day(first, "--first")
    end = _day(last, "--last") or begin
    if action is Action.RESTORE and begin is None:
        raise typer.BadParameter("restore needs --first, and --last for more than one day")
    name = dataset.value if dataset else None
    days = list_days(settings=settings, dataset=name, first=begin, last=end)
    if not days:
        typer.echo("no archived days")
        if action is Action.RESTORE:
            sys.exit(1)
    elif action is Action.LIST:
        _show(days)
    elif action is Action.VERIFY:
        _verify(settings, days)
    else:
        _restore(settings, days, keep_days)


def _verify(settings: Settings, days: list[ArchivedDay]) -> None:
    from include.errors import RejectedInputError
    from include.jobs.storage.archive import verify_day

    bad = 0
    for one in days:
        try:
            verify_day(settings=settings, archived=one)
        except RejectedInputError as error:
            bad += 1
            typer.secho(f"{one.path}: {error}", err=True, fg=typer.colors.RED)
        else:
            typer.echo(f"{one.path}: {counted(one.rows, 'row')} verified")
    if bad:
        typer.secho(
            f"{bad:,} of {counted(len(days), 'file')} failed verification",
            err=True,
            fg=typer.colors.RED,
        )
        sys.exit(1)


def _restore(settings: Settings, days: list[ArchivedDay], keep_days: int) -> None:
    from include.jobs.storage.archive import restore_day

    until = datetime.now(UTC) + timedelta(days=keep_days)
    for one in days:
        done = restore_day(settings=settings, archived=one, until=until)
        typer.echo(
            f"{one.table.name} {one.day}: {done.inserted:,} of {counted(done.rows, 'row')} "
            f"restored, kept until {until:%Y-%m-%d %H:%M}Z"
        )


def _adopt(settings: Settings) -> None:
    from include.jobs.storage.archive import adopt_files

    adopted = adopt_files(settings=settings)
    for path in adopted:
        typer.echo(f"{path}: recorded in the ledger")
    if not adopted:
        typer.echo("the ledger knows every file")


def _write(settings: Settings) -> None:
    from include.errors import PermanentError
    from include.jobs.storage.archive import archive_days
    from include.jobs.storage.retention import oldest_kept

    if settings.raw_retention_days is None:
        raise PermanentError("set RAW_RETENTION_DAYS to the number of days to keep in the tables")

    def tell(day: RawDay) -> None:
        typer.echo(f"{day.table.name} {day.day}: {counted(day.bytes, 'byte')} in the table")

    now = datetime.now(UTC)
    done = archive_days(settings=settings, before=oldest_kept(settings, now), now=now, on_day=tell)
    typer.echo(
        f"{counted(done.archived, 'day')} written, {counted(done.rows, 'row')} in "
        f"{counted(done.file_bytes, 'byte')}; "
        f"{counted(done.dropped, 'partition')} dropped, "
        f"{counted(done.freed_bytes, 'byte')} freed; "
        f"{counted(done.kept, 'restored day')} left in the tables for now"
    )


def _show(days: list[ArchivedDay]) -> None:
    from rich.table import Table

    from cli.terminal.console import console
    from cli.terminal.tables import fitted

    table = Table(title="archived days")
    for name in ("day", "table", "rows", "bytes", "file", "stored in"):
        table.add_column(name, justify="right" if name in {"rows", "bytes"} else "left")
    for one in days:
        place = "file"
        if one.dropped_at is None:
            until = f" until {one.kept_until:%Y-%m-%d}" if one.kept_until else ""
            place = f"file and table{until}"
        table.add_row(
            str(one.day), one.table.name, f"{one.rows:,}", f"{one.bytes:,}", one.path, place
        )
    out = console()
    out.print(fitted(table, out))


def _day(text: str, option: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text}: should be a day, as 2026-11-18") from error
