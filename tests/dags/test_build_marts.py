"""The DAG builds the marts of a real database and never shows its password."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

import psycopg
import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US, to_us
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

START = datetime(2024, 3, 1, tzinfo=UTC)
LAYERS = ("intraday", "days", "analytics", "health")


def candidates(count: int, *, start_us: int = to_us(START)) -> list[CandleCandidate]:
    """Minutes with a price rising by one and a volume of one."""
    return [
        CandleCandidate(
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


def rendered_fields():
    """Return the rendered fields of all task instances."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    with create_session() as session:
        return [str(row.rendered_fields) for row in session.query(RenderedTaskInstanceFields)]


@pytest.mark.long
def test_runs_build_all_layers_then_changes_and_never_show_the_password(
    environment, dag_bag, airflow_database, tmp_path, capfd
):
    dag = dag_bag.dags["build_marts"]
    with connect(environment, application_name="test") as connection:
        merge_candidates(connection, candidates(60))

    run = dag.test()
    assert run.state == "success"
    states = {task.task_id: task.state for task in run.get_task_instances()}
    # The registry is empty; a stale source does not fail the run.
    assert states == {**dict.fromkeys((*LAYERS, "docs"), "success"), "freshness": "failed"}
    assert "<html" in (tmp_path / "dbt" / "docs" / "index.html").read_text()[:2_000]
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
        merge_candidates(connection, candidates(61)[-1:])
    run = dag.test()
    assert run.state == "success"
    assert run.get_task_instance("docs").state == "skipped"  # written once a day
    with psycopg.connect(environment) as connection:
        count = connection.execute("SELECT count(*) FROM marts.candles_5m").fetchone()
        day = connection.execute("SELECT close, minute_count FROM marts.candles_1d").fetchone()
    assert count == (13,)
    assert day == (160, 61)
    printed = "".join(capfd.readouterr())
    # Tests that compare two layers run once in each build.
    for test in ("candles_5m_equals_its_parent", "candles_1d_equals_its_parent"):
        assert printed.count(f"PASS {test}") == 2
    rendered = rendered_fields()
    assert rendered
    password = str(urlsplit(environment).password)
    assert [fields for fields in (printed, *rendered) if password in fields] == []


@pytest.mark.parametrize("broken", LAYERS)
def test_health_is_built_after_any_failure_and_the_run_fails_with_any_layer(
    environment, dag_bag, airflow_database, monkeypatch, broken
):
    from airflow.sdk.exceptions import AirflowFailException
    from cosmos.operators.local import DbtBuildLocalOperator, DbtSourceLocalOperator

    dag = dag_bag.dags["build_marts"]
    built = []

    def build(task, *_, **__):
        if task.task_id == broken:
            raise AirflowFailException("broken")
        built.append(task.task_id)

    for operator in (DbtBuildLocalOperator, DbtSourceLocalOperator, type(dag.get_task("docs"))):
        monkeypatch.setattr(operator, "execute", build)
    run = dag.test()
    assert run.state == "failed"
    assert ("health" in built) == (broken != "health")
    assert "docs" not in built


def test_docs_are_written_again_after_a_day_or_a_change_of_the_project(
    dag_bag, tmp_path, monkeypatch
):
    from airflow.sdk.exceptions import AirflowSkipException
    from cosmos.operators.local import DbtDocsLocalOperator

    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path / "home"))
    made = []

    def make(task, _context, **_):
        target = tmp_path / "copy" / "target"
        target.mkdir(parents=True, exist_ok=True)
        (target / "static_index.html").write_text("the pages")
        task.callback(str(tmp_path / "copy"))
        made.append(task.project_dir)

    monkeypatch.setattr(DbtDocsLocalOperator, "execute", make)
    task = dag_bag.dags["build_marts"].get_task("docs")
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    monkeypatch.setattr(task, "project_dir", str(project))
    task.execute({})
    folder = tmp_path / "home" / "dbt" / "docs"
    assert (folder / "index.html").read_text() == "the pages"
    with pytest.raises(AirflowSkipException, match="is up to date"):
        task.execute({})
    (project / "models" / "more.sql").write_text("select 1")
    task.execute({})
    with pytest.raises(AirflowSkipException):
        task.execute({})
    yesterday = (folder / "fingerprint").stat().st_mtime - 86_401
    os.utime(folder / "fingerprint", (yesterday, yesterday))
    task.execute({})
    assert len(made) == 3


def test_missing_database_url_fails_without_retry(
    environment, dag_bag, airflow_database, monkeypatch
):
    monkeypatch.delenv("DATABASE_URL")
    run = dag_bag.dags["build_marts"].test()
    assert run.state == "failed"
    intraday = run.get_task_instance("intraday")
    assert (intraday.state, intraday.try_number) == ("failed", 1)
