"""The DAG builds the marts of a real database, and keeps its password to itself."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

import psycopg
import pytest

from include.domain.candles import Candle, Offer, Source, Status
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles import merge_offers
from include.store.pools import connect

START = datetime(2024, 3, 1, tzinfo=UTC)


def offers(count: int, *, start_us: int = to_us(START)) -> list[Offer]:
    """Minutes whose prices rise by one each, one unit traded in each."""
    return [
        Offer(
            Candle(
                "BTCUSDT",
                start_us + number * MINUTE_US,
                *(Decimal(100 + number),) * 4,
                Decimal(1),
                Decimal(100 + number),
                1,
                Decimal(0),
                Decimal(0),
            ),
            Status.VERIFIED,
            Source.REST,
            evidence_at_us=start_us + 10_000 * MINUTE_US,
        )
        for number in range(count)
    ]


@pytest.fixture
def environment(database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path))
    return database_url


def test_a_run_builds_every_layer_and_the_next_one_what_changed(
    environment, dag_bag, airflow_database, capfd
):
    dag = dag_bag.dags["build_marts"]
    with connect(environment, application_name="test") as connection:
        merge_offers(connection, offers(60))

    assert dag.test().state == "success"
    with psycopg.connect(environment) as connection:
        fives = connection.execute(
            "SELECT open, close, volume, minute_count FROM marts.candles_5m ORDER BY open_time"
        ).fetchall()
        day = connection.execute(
            "SELECT open, close, volume, minute_count FROM marts.candles_1d"
        ).fetchall()
    assert len(fives) == 12
    assert fives[1] == (105, 109, 5, 5)
    assert day == [(100, 159, 60, 60)]

    with connect(environment, application_name="test") as connection:
        merge_offers(connection, offers(61)[-1:])
    assert dag.test().state == "success"
    with psycopg.connect(environment) as connection:
        count = connection.execute("SELECT count(*) FROM marts.candles_5m").fetchone()
        day = connection.execute("SELECT close, minute_count FROM marts.candles_1d").fetchone()
    assert count == (13,)
    assert day == (160, 61)
    printed = "".join(capfd.readouterr())
    # Tests that compare marts of two layers run once in each build.
    for test in ("candles_5m_equals_its_parent", "candles_1d_equals_its_parent"):
        assert printed.count(f"PASS {test}") == 2
    assert str(urlsplit(environment).password) not in printed


def test_the_password_is_in_no_rendered_field(environment, dag_bag, airflow_database):
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    assert dag_bag.dags["build_marts"].test().state == "success"
    with create_session() as session:
        rendered = [str(row.rendered_fields) for row in session.query(RenderedTaskInstanceFields)]
    assert rendered
    assert all(str(urlsplit(environment).password) not in fields for fields in rendered)


def test_a_database_that_is_not_set_fails_at_once(
    environment, dag_bag, airflow_database, monkeypatch
):
    monkeypatch.delenv("DATABASE_URL")
    run = dag_bag.dags["build_marts"].test()
    assert run.state == "failed"
    intraday = run.get_task_instance("intraday")
    assert (intraday.state, intraday.try_number) == ("failed", 1)
