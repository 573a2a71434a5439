"""Every table, view and column has a comment in the database."""

from __future__ import annotations

from typing import Any

import psycopg

from include.store.migrate import migrate

# Partitions inherit their parent's.
UNCOMMENTED = """
SELECT format('%s.%s', c.oid::regclass, a.attname)
FROM pg_class AS c
INNER JOIN pg_attribute AS a ON c.oid = a.attrelid AND a.attnum > 0 AND NOT a.attisdropped
WHERE
    c.relnamespace IN ('market'::regnamespace, 'ops'::regnamespace, 'accounts'::regnamespace)
    AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
    AND coalesce(col_description(c.oid, a.attnum), '') = ''
UNION ALL
SELECT c.oid::regclass::text
FROM pg_class AS c
WHERE
    c.relnamespace IN ('market'::regnamespace, 'ops'::regnamespace, 'accounts'::regnamespace)
    AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
    AND coalesce(obj_description(c.oid, 'pg_class'), '') = ''
ORDER BY 1
"""


def test_every_table_and_column_has_a_comment(connection: psycopg.Connection[Any]) -> None:
    assert [name for (name,) in connection.execute(UNCOMMENTED)] == []


def test_second_migration_writes_no_comment_again(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    written = (
        "SELECT count(*), max(xmin::text::bigint) FROM pg_description"
        " WHERE classoid = 'pg_class'::regclass"
    )
    before = connection.execute(written).fetchone()

    migrate(database_url)

    assert connection.execute(written).fetchone() == before
