"""Back up and restore the whole database: ``pg_dump`` and ``pg_restore`` with our roles."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import structlog

from include.config import Settings
from include.errors import PermanentError, RejectedInputError
from include.jobs.exchange import APPLICATION_NAME
from include.store.migrate import migrate
from include.store.postgres.pools import connect, redact
from include.store.storage.restoring import give_marts_to_dbt, prepare_restore

log = structlog.get_logger(__name__)

BLOCK_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Program:
    """A PostgreSQL client program."""

    path: Path
    major: int


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A backup that was written."""

    path: Path
    bytes: int
    sha256: str


def backup(*, settings: Settings, file: Path, folders: Sequence[Path] = ()) -> BackupFile:
    """Write the database of ``DATABASE_URL`` to a file in one snapshot, without stopping anything.

    Args:
        file: in an existing folder; appears once complete, with ``.sha256`` beside it; an existing
            file is replaced.
        folders: where to look for ``pg_dump``, in addition to ``PATH``.

    Raises:
        PermanentError: no suitable ``pg_dump``, or it failed; the message includes its output.
        TransientError: the database is away.
    """
    url = settings.url_for("owner")
    with connect(url, application_name=APPLICATION_NAME) as connection:
        server = connection.info.server_version // 10_000
    program = find_program("pg_dump", server=server, folders=folders)
    part = file.with_name(f"{file.name}.part")
    try:
        _run(
            program,
            url,
            "--format=custom",
            "--no-unlogged-table-data",
            f"--file={part}",
        )
        digest, size = _sha256_of(part), part.stat().st_size
        with part.open("rb") as written:
            os.fsync(written.fileno())
        # Replace the checksum first: if killed here, verification fails instead of passing wrongly.
        _checksum_of(file).write_text(f"{digest}  {file.name}\n")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    log.info("backup_written", file=str(file), bytes=size, database=redact(url))
    return BackupFile(file, size, digest)


def restore(*, settings: Settings, file: Path, folders: Sequence[Path] = ()) -> None:
    """Restore a backup into the empty database of ``DATABASE_URL`` and migrate it.

    The data is restored in one transaction: after a failure the database is empty.

    Raises:
        RejectedInputError: the file is missing, or does not match its checksum.
        PermanentError: the database is not empty, a privilege is missing, or ``pg_restore`` failed.
        TransientError: the database is away.
    """
    _check(file)
    url = settings.url_for("owner")
    with connect(url, application_name=APPLICATION_NAME) as connection:
        prepare_restore(connection, where=url)
        server = connection.info.server_version // 10_000
        program = find_program("pg_restore", server=server, folders=folders)
        # Owners and privileges are set below: the dump's may name roles that do not exist here.
        _run(
            program,
            url,
            "--exit-on-error",
            "--single-transaction",
            "--no-owner",
            "--no-privileges",
            str(file),
        )
        give_marts_to_dbt(connection)
    migrate(url, role_urls=settings.role_urls())
    log.info("backup_restored", file=str(file), database=redact(url))


def find_program(name: str, *, server: int, folders: Sequence[Path]) -> Program:
    """Return the oldest program whose major version is at least the server's.

    Raises:
        PermanentError: there is none.
    """
    paths = [folder / name for folder in folders]
    on_path = shutil.which(name)
    found = [
        _version_of(path)
        for path in [*paths, *([Path(on_path)] if on_path else [])]
        if path.is_file()
    ]
    fitting = [one for one in found if one.major >= server]
    if not fitting:
        shown = ", ".join(f"{one.path} ({one.major})" for one in found) or "none"
        raise PermanentError(
            f"no {name} of PostgreSQL {server} or newer; found: {shown}. Install the client "
            "programs of your server, or the packages of requirements.txt, which include them"
        )
    return min(fitting, key=lambda one: one.major)


# --- inside


def _version_of(path: Path) -> Program:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30)
    number = re.search(r"(\d+)", done.stdout.partition(")")[2])
    return Program(path, int(number[1]) if number else 0)


def _run(program: Program, url: str, *arguments: str) -> None:
    """Run a program on a database; the password is passed in its environment only."""
    parts = urlsplit(url)
    environment = {**os.environ, "PGTZ": "UTC"}
    if parts.password:
        environment["PGPASSWORD"] = unquote(parts.password)
        login = f"{parts.username}@" if parts.username else ""
        url = urlunsplit(parts._replace(netloc=f"{login}{parts.netloc.rpartition('@')[2]}"))
    done = subprocess.run(
        [program.path, f"--dbname={url}", "--no-password", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        words = " ".join(done.stderr.split())[-1_000:]
        raise PermanentError(f"{program.path.name} {program.major} on {redact(url)}: {words}")


def _check(file: Path) -> None:
    if not file.is_file():
        raise RejectedInputError(f"{file} is missing")
    checksum = _checksum_of(file)
    if not checksum.is_file():
        log.info("backup_not_checked", file=str(file), reason=f"{checksum} is missing")
        return
    wanted = checksum.read_text().split()[:1]
    if wanted != [_sha256_of(file)]:
        raise RejectedInputError(f"{file} is not the file that {checksum} was written for")


def _checksum_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
