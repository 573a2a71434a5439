"""docs/data-contract.md is true: its queries run, and no table or column is left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.domain.candles import PARTIAL_RANK, SOURCE_RANK, Source, Status
from include.store.candles.minutes import merge_candidates
from tests.unit.store.candidates import candidate, candle

Connection = psycopg.Connection[Any]

TEXT = (Path(__file__).parents[3] / "docs" / "data-contract.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", TEXT.partition("## Querying")[2], re.DOTALL)


@pytest.mark.parametrize("query", QUERIES)
def test_queries_of_the_contract_run(connection: Connection, query: str) -> None:
    merge_candidates(connection, [candidate()])

    connection.execute(query)


def test_contract_names_every_relation_and_column(connection: Connection) -> None:
    rows = connection.execute(
        """
        SELECT format('%s.%s', table_schema, table_name), column_name
        FROM information_schema.columns WHERE table_schema IN ('market', 'ops')
        """
    ).fetchall()
    relations = {relation for relation, _ in rows if not re.search(r"_y\d{4}m\d{2}", relation)}
    # the loser's nine values and first id are within "loser_open … loser_last_trade_id"
    columns = {column for _, column in rows if not column.startswith("loser_")}

    assert len(relations) > 15
    assert sorted(name for name in relations if f"`{name}`" not in TEXT) == []
    named = set(re.findall(r"\w+", TEXT))
    assert sorted(columns - named - {"version_num"}) == []


def test_contract_has_the_ranks_of_the_code() -> None:
    ranks = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", TEXT, re.MULTILINE))

    assert ranks == {source.value: str(rank) for source, rank in SOURCE_RANK.items()}
    assert f"| any, `partial` | {PARTIAL_RANK} |" in TEXT


def test_example_of_the_contract_gives_the_rows_it_shows(connection: Connection) -> None:
    told = [
        candidate(Source.STREAM, candle(price="100.1", ids=(7, 9))),
        candidate(Source.KLINE, candle(price="100.2", ids=(7, 10))),
        candidate(Source.DUMP_DAILY, candle(price="100.2")),
        candidate(Source.KLINE, candle(price="100.2", ids=(7, 10))),
    ]
    read = "SELECT close::text, source, last_trade_id, revision FROM market.candles_1m"

    rows = []
    for each in told:
        merge_candidates(connection, [each])
        rows += connection.execute(read).fetchall()

    assert rows == [
        ("100.1", "stream", 9, 0),
        ("100.2", "kline", 10, 1),
        ("100.2", "dump_daily", 10, 1),
        ("100.2", "dump_daily", 10, 1),
    ]


def test_contract_explains_every_status() -> None:
    for status in Status:
        assert f"| `{status.value}` |" in TEXT
