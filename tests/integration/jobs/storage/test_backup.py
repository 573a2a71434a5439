"""A backup restored into another, empty cluster has the same contents, and work continues there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from deploy.local.postgres import EmbeddedPostgres, psql_program
from include.config import Settings
from include.domain.accounts import Role
from include.errors import PermanentError, RejectedInputError
from include.jobs.storage.backup import backup, restore
from include.store.accounts import users as accounts
from include.store.accounts import watchlists
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect
from tests.integration.jobs.storage.raw_days import fill
from tests.unit.store.candidates import candidate, moved

FOLDERS = [psql_program().parent]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """An empty database in a cluster of its own."""
    tmp_path.chmod(0o755)
    settings = {"fsync": "off", "shared_buffers": "32MB"}
    with EmbeddedPostgres(tmp_path / "pg", settings=settings) as server:
        yield server.create_database("restored")


def contents(connection: psycopg.Connection[Any]) -> dict[str, tuple[Any, ...] | None]:
    """Rows of every table, counted and hashed."""
    names = connection.execute(
        "SELECT nspname, relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace "
        "WHERE nspname IN ('market', 'ops', 'marts', 'marts_audit', 'accounts') "
        "AND relkind IN ('r', 'p', 'v') "
        "AND relname NOT LIKE 'live_candles%%' AND NOT relispartition"
    ).fetchall()
    query = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {} AS t"
    return {
        ".".join(path): connection.execute(sql.SQL(query).format(sql.Identifier(*path))).fetchone()
        for path in names
    }


def test_restore_brings_back_all_data_and_roles(
    database_url: str, elsewhere: str, tmp_path: Path
) -> None:
    with connect(database_url, application_name="test") as connection:
        merge_candidates(connection, [moved(candidate(), "BTCUSDT", n) for n in range(5)])
        fill(connection)
        accounts.add_user(connection, "anna", "$argon2id$hash", Role.ADMIN)
        accounts.add_token(connection, "anna", "notebook", bytes(32), days=None)
        watchlists.watch(connection, 1, "BTCUSDT")
        connection.execute(
            "SET ROLE candelabra_dbt; CREATE TABLE marts.bars AS SELECT * FROM market.candles_1m;"
            "CREATE VIEW marts.view AS SELECT * FROM marts.bars;"
            "INSERT INTO ops.build_cursors (relation, target, system_identifier, snapshot)"
            "VALUES ('marts.bars', 'prod', ops.system_identifier(), pg_current_snapshot());"
            "RESET ROLE"
        )
        before = contents(connection)
    file = tmp_path / "all.dump"

    done = backup(settings=Settings(database_url=database_url), file=file, folders=FOLDERS)
    restore(settings=Settings(database_url=elsewhere), file=file, folders=FOLDERS)

    assert done.bytes == file.stat().st_size
    with connect(elsewhere, application_name="test") as connection:
        assert contents(connection) == before
        connection.execute("SET ROLE candelabra_accounts")
        assert accounts.identities(connection, [bytes(32)])[bytes(32)].name == "anna"
        connection.execute("SET ROLE candelabra_streamer")
        assert connection.execute("SELECT symbol FROM accounts.watched").fetchall() == [
            ("BTCUSDT",)
        ]
        assert merge_candidates(connection, [moved(candidate(), "ETHUSDT", 50_000)]).inserted == 1
        connection.execute("SET ROLE candelabra_dbt")
        # The cursor is another cluster's: what reads it starts over.
        row = connection.execute(
            "SELECT count(*) FROM ops.build_cursors "
            "WHERE system_identifier = ops.system_identifier()"
        ).fetchone()
        assert row == (0,)
        connection.execute("DROP VIEW marts.view; DROP TABLE marts.bars")
        connection.execute("CREATE TABLE marts.bars AS SELECT 1 AS one")
        connection.execute("SET ROLE candelabra_reader")
        assert connection.execute("SELECT one FROM marts.bars").fetchone() == (1,)
    with pytest.raises(PermanentError, match="has the schemas market or ops already"):
        restore(settings=Settings(database_url=elsewhere), file=file, folders=FOLDERS)


def test_damaged_backup_is_refused(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "all.dump"
    settings = Settings(database_url=database_url)
    backup(settings=settings, file=file, folders=FOLDERS)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RejectedInputError, match="is not the file that"):
        restore(settings=settings, file=file, folders=FOLDERS)
    with pytest.raises(RejectedInputError, match="is missing"):
        restore(settings=settings, file=tmp_path / "none.dump", folders=FOLDERS)
