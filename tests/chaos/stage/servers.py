"""PostgreSQL that is killed, restarted, frozen and made read-only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import DBT, JOBS, STREAMER, migrate
from tests.ports import steady_port

TEMPLATE = "chaos_template"
PASSWORD = "chaos"
MAX_DROP_S = 60.0
"""A server whose disk stalls ends no session for as long."""
DROP_EVERY_S = 1.0
REFUSED = ("ETHBTC", "PEPEUSDT.P")
"""Symbols of ``Database.refuse_rows``: not all that end a minute together."""
_REFUSAL = """
CREATE TABLE ops.chaos_refused (symbol text PRIMARY KEY);
CREATE FUNCTION ops.chaos_refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF EXISTS (SELECT FROM ops.chaos_refused AS r WHERE r.symbol = new.symbol) THEN
        RAISE check_violation USING MESSAGE = 'chaos refuses this row';
    END IF;
    RETURN new;
END
$$;
CREATE TRIGGER chaos_refuses BEFORE INSERT OR UPDATE ON market.candles_1m
FOR EACH ROW EXECUTE FUNCTION ops.chaos_refuse();
"""
"""Made once: later, its locks could deadlock with a merge."""
LAG_S = 0.4
"""Real: two minutes of the exchange where its clock runs 300 times as fast."""


class Database:
    """One run's database on a server that may be struck."""

    def __init__(self, server: EmbeddedPostgres, name: str) -> None:
        self._server = server
        self._name = name
        self.url = server.url(name)
        self.streamer_url = server.url(name, user=STREAMER, password=PASSWORD)
        self.jobs_url = server.url(name, user=JOBS, password=PASSWORD)
        self.dbt_url = server.url(name, user=DBT, password=PASSWORD)

    def crash(self) -> None:
        """As ``kill -9`` of the postmaster."""
        self._server.kill()

    def shut_down(self) -> None:
        """Like a restart for a new version: sessions are ended with a message."""
        self._server.stop()

    def start(self) -> None:
        """On the same port; recovers."""
        self._server.start()

    def crash_behind_standby(self) -> None:
        """Kill the server; its standby has received nothing for ``LAG_S``."""
        self._copy_to_standby()
        time.sleep(LAG_S)
        self.crash()

    def take_over(self) -> None:
        """Let the standby take over: every table lacks its newest rows, sequences too."""
        lost = self._server.data_dir.with_name("lost")
        self._server.data_dir.rename(lost)
        self._standby.rename(self._server.data_dir)
        shutil.rmtree(lost)
        self.start()

    @property
    def _standby(self) -> Path:
        return self._server.data_dir.with_name("standby")

    def _copy_to_standby(self) -> None:
        """Copy the running server's files, as ``pg_basebackup`` does."""
        shutil.rmtree(self._standby, ignore_errors=True)
        data = self._server.data_dir
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_backup_start('standby', true)")
            _copy(data, self._standby, leave_out=("pg_wal", "postmaster.pid", "pgsql_tmp"))
            row = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()
        _copy(data / "pg_wal", self._standby / "pg_wal")
        label = self._standby / "backup_label"
        label.write_text("" if row is None else row[0])
        owner = data.stat()
        for path in (label, self._standby):
            os.chown(path, owner.st_uid, owner.st_gid)

    def hang_up(self) -> None:
        """End all sessions of the streamer."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (self._name,),
            )

    def freeze(self) -> None:
        """Like a server with a hanging disk: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The end of ``freeze``."""
        self._signal(signal.SIGCONT)

    def sessions(self) -> list[str]:
        """Programs that are connected to it, what each of them waits for, and its statement."""
        with psycopg.connect(self._server.url("postgres")) as connection:
            found = connection.execute(
                "SELECT concat_ws(', ', application_name, state, wait_event_type, wait_event,"
                " left(query, 100)) FROM pg_stat_activity"
                " WHERE datname = %s AND backend_type = 'client backend'",
                (self._name,),
            ).fetchall()
        return [row[0] for row in found]

    def _signal(self, number: signal.Signals) -> None:
        """Signal the server and all its processes; children that end meanwhile are left out."""
        server = self._server.pid
        if server is None:
            raise AssertionError("PostgreSQL does not run")
        os.kill(server, number)  # first, so that it starts no further ones
        for child in _children(server):
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def refuse_rows(self) -> None:
        """Refuse candles of some symbols, as a constraint does that an operator has added."""
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "INSERT INTO ops.chaos_refused SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING",
                (list(REFUSED),),
            )

    def accept_rows(self) -> None:
        """The end of ``refuse_rows``."""
        with psycopg.connect(self.url) as connection:
            connection.execute("DELETE FROM ops.chaos_refused")

    def set_read_only(self, value: bool) -> None:
        """As a primary that became a standby: all sessions are refused when they write."""
        with psycopg.connect(self._server.url("postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(
                sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}").format(
                    sql.Literal("on" if value else "off")
                )
            )
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def chaos_server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that returns on its port, with the template of all runs.

    Durability is off: processes are killed, the power is not cut.
    """
    folder.chmod(0o755)
    settings = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
    with EmbeddedPostgres(folder / "pg", port=steady_port(), settings=settings) as server:
        template_url = server.create_database(TEMPLATE)
        migrate(template_url)
        with psycopg.connect(template_url) as connection:
            connection.execute(_REFUSAL)
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            for role in (STREAMER, JOBS, DBT):
                connection.execute(
                    sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(PASSWORD)
                    )
                )
        yield server


@contextmanager
def fresh_database(server: EmbeddedPostgres, name: str) -> Iterator[Database]:
    """A migrated database, dropped at the end."""
    server.create_database(name, template=TEMPLATE)
    try:
        yield Database(server, name)
    finally:
        _drop(server, name)


def _drop(server: EmbeddedPostgres, name: str) -> None:
    """Drop a database; while sessions stay, try again."""
    until_s = time.monotonic() + MAX_DROP_S
    while True:
        try:
            server.drop_database(name)
        except psycopg.OperationalError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(DROP_EVERY_S)
        else:
            return


def _copy(source: Path, target: Path, *, leave_out: Sequence[str] = ()) -> None:
    """Copy a folder with its owners; files may vanish meanwhile."""
    target.mkdir(mode=0o700)
    names = [one.name for one in source.iterdir() if one.name not in leave_out]
    command = ["cp", "-a", *(str(source / name) for name in names), str(target)]
    subprocess.run(command, check=False, capture_output=True, timeout=60)
    owner = source.stat()
    os.chown(target, owner.st_uid, owner.st_gid)


def _children(parent: int) -> list[int]:
    """Processes that this one started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found
