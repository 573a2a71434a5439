"""Migrations: of an empty database, repeated, concurrent, and by an owner without superuser."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from deploy.local.postgres import EmbeddedPostgres
from include.domain.candles import Source
from include.errors import PermanentError, TransientError
from include.jobs.status import newest_revision
from include.store import migrate as migrate_module
from include.store.candles.minutes import merge_candidates
from include.store.migrate import (
    ACCOUNTS,
    DBT,
    FIRST_ROLES,
    JOBS,
    LOCK_KEY,
    READER,
    ROLES,
    SERVING,
    STREAMER,
    migrate,
)
from include.store.postgres.pools import connect
from tests.unit.store.candidates import candidate, candle

Connection = psycopg.Connection[Any]


def test_database_of_another_encoding_is_refused(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as superuser:
        superuser.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(PermanentError, match="has the encoding LATIN1; Candelabra needs UTF8"):
            migrate(postgres.url("latin"))
    finally:
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as superuser:
            superuser.execute("DROP DATABASE latin")


def schema_of(url: str) -> list[tuple[Any, ...]]:
    """Columns, constraints, functions and rights, as text."""
    with connect(url, application_name="test") as connection:
        return connection.execute(
            """
            SELECT 'column', format('%s.%s.%s %s', table_schema, table_name, column_name, data_type)
            FROM information_schema.columns WHERE table_schema IN ('market', 'ops', 'marts')
            UNION ALL
            SELECT 'constraint', conrelid::regclass || ' ' || pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace::regnamespace::text IN ('market', 'ops')
            UNION ALL
            SELECT 'function', format('%s %s', oid::regprocedure, proacl)
            FROM pg_proc WHERE pronamespace::regnamespace::text IN ('market', 'ops')
            UNION ALL
            SELECT 'relation', format('%s %s', oid::regclass, relacl)
            FROM pg_class WHERE relnamespace::regnamespace::text IN ('market', 'ops')
            UNION ALL
            SELECT 'defaults', defaclacl::text FROM pg_default_acl
            ORDER BY 1, 2
            """
        ).fetchall()


def test_second_migration_changes_nothing_and_keeps_the_rows(empty_database_url: str) -> None:
    migrate(empty_database_url)
    before = schema_of(empty_database_url)
    with connect(empty_database_url, application_name="test") as connection:
        merge_candidates(connection, [candidate()])
    with_partition = schema_of(empty_database_url)

    migrate(empty_database_url)

    assert len(before) > 200
    assert schema_of(empty_database_url) == with_partition
    with connect(empty_database_url, application_name="test") as connection:
        rows = connection.execute("SELECT count(*) FROM market.candles_1m").fetchone()
    assert rows == (1,)


def to_first_revision(connection: Connection) -> None:
    """Bring a migrated database back to the tables of revision 0001."""
    connection.execute("ALTER TABLE market.trades DROP COLUMN trade_type")
    connection.execute("DROP TABLE ops.mart_audits")
    connection.execute("DROP TABLE market.depth_diffs, market.depth_snapshots, market.liquidations")
    connection.execute(
        "DROP TABLE market.funding_rates, market.mark_prices_1m, market.index_prices_1m,"
        " market.premium_index_1m, market.open_interest_5m, market.trader_ratios_5m,"
        " ops.series_coverage, ops.series_discrepancies, ops.series"
    )
    connection.execute("DROP VIEW market.candles_1m_with_foreign")
    connection.execute("ALTER TABLE market.foreign_candles_1m DROP COLUMN origin")
    connection.execute(
        "ALTER TABLE market.foreign_candles_1m ADD PRIMARY KEY (symbol, open_time, file)"
    )
    connection.execute("ALTER TABLE ops.rejected_rows DROP COLUMN origin")
    connection.execute(
        "CREATE UNIQUE INDEX rejected_rows_one_per_reason"
        " ON ops.rejected_rows (file, line, md5(reason), md5(raw))"
    )
    connection.execute(
        "ALTER TABLE market.instruments DROP COLUMN contract_type, DROP COLUMN contract_size,"
        " DROP COLUMN margin_asset, DROP COLUMN pair, DROP COLUMN delivers_at,"
        " DROP COLUMN settlement_price"
    )
    for table in ("market.instruments", "ops.outages"):
        name = f"{table.partition('.')[2]}_market_check"
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        connection.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK (market IN ('spot', 'um'))"
        )
    connection.execute("UPDATE ops.alembic_version SET version_num = '0001'")


def test_rows_stored_by_the_first_revision_are_kept(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connect(empty_database_url, application_name="test") as connection:
        to_first_revision(connection)
        connection.execute(
            "INSERT INTO ops.rejected_rows (file, line, reason, raw)"
            " VALUES ('A/b.csv', 1, 'c', 'd')"
        )
        connection.execute(
            "INSERT INTO market.foreign_candles_1m"
            " (symbol, open_time, file, open, high, low, close)"
            " VALUES ('A', '2026-11-18 12:00Z', 'b.csv', 1, 1, 1, 1)"
        )
        connection.commit()

        migrate(empty_database_url)

        rejected = connection.execute("SELECT file, origin, line FROM ops.rejected_rows").fetchall()
        foreign = connection.execute(
            "SELECT symbol, file, origin FROM market.foreign_candles_1m"
        ).fetchall()
    assert (rejected, foreign) == ([("A/b.csv", "", 1)], [("A", "b.csv", "")])


def test_outages_of_coin_m_are_accepted_after_the_first_revision(empty_database_url: str) -> None:
    insert = (
        "INSERT INTO ops.outages (market, symbol, minutes, cause) VALUES"
        " ('cm', 'BTCUSD_PERP', '{[2026-11-18 12:00Z, 2026-11-18 12:01Z)}', 'x')"
    )
    migrate(empty_database_url)
    with connect(empty_database_url, application_name="test") as connection:
        to_first_revision(connection)
        connection.commit()
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(insert)
        connection.rollback()
        migrate(empty_database_url)
        connection.execute(insert)


def test_trades_stored_by_the_first_revision_have_no_type(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connect(empty_database_url, application_name="test") as connection:
        connection.execute("SELECT ops.ensure_partition('market.trades', '2026-11-18 00:00Z')")
        to_first_revision(connection)
        connection.execute(
            "INSERT INTO market.trades (symbol, day, trade_id, price, quantity, trade_time,"
            " is_buyer_maker) VALUES ('A.P', '2026-11-18', 1, 2, 3, '2026-11-18 12:00Z', true)"
        )
        connection.commit()

        migrate(empty_database_url)

        rows = connection.execute("SELECT trade_id, trade_type FROM market.trades").fetchall()
        version = connection.execute("SELECT version_num FROM ops.alembic_version").fetchone()
    assert (rows, version) == ([(1, None)], (newest_revision(),))


def test_second_migration_waits_for_no_reader_or_writer(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(empty_database_url)
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT_S", 1)
    with connect(empty_database_url, application_name="busy") as busy:
        merge_candidates(busy, [candidate()])
        busy.execute("BEGIN")
        merge_candidates(busy, [candidate(Source.REST, candle(price="11"))])
        for view in ("market.candles_1m_live", "ops.coverage_changes", "accounts.watched"):
            busy.execute(f"SELECT * FROM {view}")  # noqa: S608 - names above

        migrate(empty_database_url)


def test_migration_restores_a_view_and_a_function_that_differ(empty_database_url: str) -> None:
    migrate(empty_database_url)
    definitions = (
        "SELECT pg_get_viewdef('ops.verdicts'::regclass),"
        " pg_get_functiondef('ops.minute_of'::regproc)"
    )
    with connect(empty_database_url, application_name="test") as connection:
        before = connection.execute(definitions).fetchone()
        connection.execute(
            "CREATE OR REPLACE VIEW ops.verdicts AS SELECT symbol, open_time::date AS day,"
            " source, 0::bigint AS covered_minutes, 0::bigint AS differing_minutes,"
            " 'agrees' AS verdict FROM market.candles_1m"
        )
        connection.execute(
            "CREATE OR REPLACE FUNCTION ops.minute_of(moment timestamptz) RETURNS tstzrange"
            " LANGUAGE sql AS 'SELECT NULL::tstzrange'"
        )
        assert connection.execute(definitions).fetchone() != before

        migrate(empty_database_url)

        assert connection.execute(definitions).fetchone() == before


def test_schema_of_another_version_is_refused_and_unchanged(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connect(empty_database_url, application_name="test") as connection:
        connection.execute("UPDATE ops.alembic_version SET version_num = '0021'")
        before = schema_of(empty_database_url)

        with pytest.raises(PermanentError, match=r"revision 0021.*migrate an empty"):
            migrate(empty_database_url)

    assert schema_of(empty_database_url) == before


def test_schema_of_an_earlier_baseline_is_refused(empty_database_url: str) -> None:
    migrate(empty_database_url)
    with connect(empty_database_url, application_name="test") as connection:
        connection.execute("DROP EVENT TRIGGER candelabra_partitions")
        connection.execute("DROP TABLE ops.candle_partitions")

    with pytest.raises(PermanentError, match=r"development version .* migrate an empty database"):
        migrate(empty_database_url)


def test_migrations_at_the_same_time_wait_for_each_other(empty_database_url: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(migrate, [empty_database_url] * 3, timeout=60))

    with connect(empty_database_url, application_name="test") as connection:
        assert connection.execute("SELECT * FROM ops.alembic_version").fetchall() == [
            (newest_revision(),)
        ]


def test_migration_reports_a_lock_timeout(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT_S", 1)
    with connect(empty_database_url, application_name="holder") as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))

        with pytest.raises(TransientError, match="lock timeout"):
            migrate(empty_database_url)


def test_failed_migration_leaves_nothing_behind(empty_database_url: str) -> None:
    with pytest.raises(PermanentError, match="nobody_by_that_name"):
        migrate(
            empty_database_url,
            role_urls={STREAMER: "postgresql://nobody_by_that_name:x@127.0.0.1/candelabra"},
        )

    with connect(empty_database_url, application_name="test") as connection:
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname IN ('market', 'ops', 'marts')"
        ).fetchall()
    assert schemas == []


def test_unknown_role_is_refused(empty_database_url: str) -> None:
    with pytest.raises(PermanentError, match="candelabra_reader"):
        migrate(empty_database_url, role_urls={"postgres": empty_database_url})


def test_roles_log_in_with_the_passwords_of_their_urls(
    postgres: EmbeddedPostgres, empty_database_url: str
) -> None:
    database = empty_database_url.rsplit("/", 1)[1]
    urls = {
        role: postgres.url(database, user=role, password=f"pässword of {role}@:%") for role in ROLES
    }

    migrate(empty_database_url, role_urls=urls)

    for role, url in urls.items():
        with connect(url, application_name="test") as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role,)


def test_user_of_another_name_is_granted_the_role(
    postgres: EmbeddedPostgres, empty_database_url: str
) -> None:
    with connect(empty_database_url, application_name="test") as connection:
        connection.execute("CREATE ROLE analyst_dbt LOGIN PASSWORD 'secret'")
        connection.execute("CREATE ROLE analyst_reader LOGIN PASSWORD 'secret'")
    database = empty_database_url.rsplit("/", 1)[1]
    builder = postgres.url(database, user="analyst_dbt", password="secret")
    reader = postgres.url(database, user="analyst_reader", password="secret")
    try:
        migrate(empty_database_url, role_urls={DBT: builder, READER: reader})

        with connect(builder, application_name="test") as connection:
            connection.execute("CREATE TABLE marts.candles_5m AS SELECT 1 AS value")
        with connect(reader, application_name="test") as connection:
            assert connection.execute("SELECT value FROM marts.candles_5m").fetchone() == (1,)
    finally:
        with connect(empty_database_url, application_name="test") as connection:
            connection.execute("DROP OWNED BY analyst_dbt, analyst_reader")
            connection.execute("DROP ROLE analyst_dbt, analyst_reader")


@contextmanager
def own_server() -> Iterator[EmbeddedPostgres]:
    """A cluster without our roles."""
    with tempfile.TemporaryDirectory(prefix="candelabra-pg-") as folder:
        Path(folder).chmod(0o755)
        settings = {"fsync": "off", "shared_buffers": "16MB"}
        with EmbeddedPostgres(Path(folder) / "pg", settings=settings) as server:
            yield server


def test_migration_works_without_roles_and_adds_grants_once_they_exist() -> None:
    with own_server() as server:
        with connect(server.url("postgres"), application_name="test") as superuser:
            superuser.execute("CREATE ROLE tenant LOGIN PASSWORD 'secret'")
            superuser.execute("CREATE DATABASE market_data OWNER tenant")
            url = server.url("market_data", user="tenant", password="secret")
            reader = server.url("market_data", user=READER, password="of reader")

            migrate(url, role_urls={READER: url})
            with pytest.raises(PermanentError, match=r"let an administrator create the roles"):
                migrate(url, role_urls={READER: reader})
            with connect(url, application_name="test") as connection:
                assert merge_candidates(connection, [candidate()]).inserted == 1
                connection.execute("CREATE TABLE marts.candles_5m AS SELECT 1 AS value")

            for role in ROLES:
                superuser.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
            superuser.execute("ALTER ROLE candelabra_reader PASSWORD 'of reader'")
            superuser.execute("GRANT candelabra_dbt TO tenant")
            serving = server.url("market_data", user=SERVING, password="of serving")
            with pytest.raises(PermanentError, match="GRANT candelabra_reader TO candelabra_serv"):
                migrate(url, role_urls={SERVING: serving})
            superuser.execute("GRANT candelabra_reader TO candelabra_serving")

        migrate(url)
        with connect(reader, application_name="test") as connection:
            seen = connection.execute(
                "SELECT value, (SELECT count(*) FROM market.candles_1m) FROM marts.candles_5m"
            ).fetchone()
            assert seen == (1, 1)
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("DELETE FROM market.candles_1m")


def test_migration_without_the_accounts_role_grants_the_other_rights() -> None:
    """The role came later than the other four, which an administrator may have created by hand."""
    with own_server() as server:
        with connect(server.url("postgres"), application_name="test") as superuser:
            superuser.execute("CREATE ROLE tenant LOGIN PASSWORD 'secret'")
            superuser.execute("CREATE DATABASE market_data OWNER tenant")
            for role in FIRST_ROLES:
                superuser.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
            superuser.execute("GRANT candelabra_dbt TO tenant")
            url = server.url("market_data", user="tenant", password="secret")
            accounts = server.url("market_data", user=ACCOUNTS, password="of accounts")

            migrate(url)
            with pytest.raises(PermanentError, match="there is no role candelabra_accounts"):
                migrate(url, role_urls={ACCOUNTS: accounts})
            with connect(server.url("market_data"), application_name="test") as connection:
                connection.execute("SET ROLE candelabra_streamer")
                connection.execute("SELECT * FROM accounts.watched")

            superuser.execute("CREATE ROLE candelabra_accounts LOGIN PASSWORD 'of accounts'")
        migrate(url)
        with connect(accounts, application_name="test") as connection:
            assert connection.execute("SELECT * FROM accounts.users").fetchall() == []


def test_owner_without_superuser_can_migrate() -> None:
    with own_server() as server:
        with connect(server.url("postgres"), application_name="test") as superuser:
            superuser.execute("CREATE ROLE plain LOGIN CREATEROLE PASSWORD 'secret'")
            superuser.execute("CREATE DATABASE market_data OWNER plain")
        url = server.url("market_data", user="plain", password="secret")
        jobs = server.url("market_data", user=JOBS, password="of jobs")
        builder = server.url("market_data", user=DBT, password="of dbt")
        reader = server.url("market_data", user=READER, password="of reader")

        for _ in range(2):
            migrate(url, role_urls={JOBS: jobs, DBT: builder, READER: reader})

        with connect(jobs, application_name="test") as connection:
            assert merge_candidates(connection, [candidate()]).inserted == 1
            assert connection.execute("SELECT ops.system_identifier()").fetchone() is not None
        with connect(builder, application_name="test") as connection:
            connection.execute("CREATE TABLE marts.candles_5m AS SELECT 1 AS value")
        with connect(reader, application_name="test") as connection:
            assert connection.execute("SELECT value FROM marts.candles_5m").fetchone() == (1,)


def test_owner_without_rights_gets_the_missing_right_named(postgres: EmbeddedPostgres) -> None:
    url = postgres.create_database("not_mine")
    with connect(url, application_name="test") as superuser:
        superuser.execute("CREATE ROLE powerless LOGIN PASSWORD 'secret'")
    try:
        with pytest.raises(PermanentError, match="permission denied"):
            migrate(postgres.url("not_mine", user="powerless", password="secret"))
    finally:
        postgres.drop_database("not_mine")
        with connect(postgres.url("postgres"), application_name="test") as superuser:
            superuser.execute("DROP ROLE powerless")
