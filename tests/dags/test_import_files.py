"""The DAG loads each file of the inbox in its own task and adds up the results."""

from __future__ import annotations

import psycopg
import pytest

AT_MS = 1_735_689_600_000  # 2025-01-01


def rows(count):
    return "".join(
        f"{at},1,2,1,2,3,{at + 59_999},4,5,1,1,0\n"
        for at in range(AT_MS, AT_MS + count * 60_000, 60_000)
    )


@pytest.fixture
def inbox(database_url, tmp_path, monkeypatch):
    from include.jobs.files import inbox_folder

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path))
    monkeypatch.setitem(inbox_folder.find_files.__kwdefaults__, "unchanged_for_s", 0.0)
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def tasks_of(run):
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(TaskInstance).filter_by(dag_id="import_files", run_id=run.run_id)
        return {(task.task_id, task.rendered_map_index): task.state for task in found}


def test_rejected_file_fails_its_task_and_the_others_are_loaded(
    inbox, database_url, dag_bag, airflow_database
):
    (inbox / "ABC-1m-2025-01-01.csv").write_text(rows(3))
    (inbox / "futures" / "um").mkdir(parents=True)
    (inbox / "futures" / "um" / "ABC-1m-2025-01-01.csv").write_text(rows(2) + "1,2\n")
    (inbox / "ABC-5m-2025-01-01.csv").write_text(rows(1))

    run = dag_bag.dags["import_files"].test()

    states = tasks_of(run)
    assert {label: state for (task, label), state in states.items() if task == "load"} == {
        "ABC-1m-2025-01-01.csv": "success",
        "ABC-5m-2025-01-01.csv": "failed",
        "futures/um/ABC-1m-2025-01-01.csv": "success",
    }
    assert states["summarise", None] == "success"
    with psycopg.connect(database_url) as connection:
        stored = connection.execute(
            "SELECT symbol, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
        ).fetchall()
    assert stored == [("ABC", 3), ("ABC.P", 2)]
    assert (inbox / "failed" / "ABC-5m-2025-01-01.csv.reason.txt").exists()

    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        (event,) = session.query(AssetEvent).filter_by(source_run_id=run.run_id)
        counts = event.extra
    assert [counts[key] for key in ("files", "rows", "rejected", "inserted")] == [2, 5, 1, 5]
    assert counts["symbols"] == ["ABC", "ABC.P"]


def test_file_that_arrives_while_the_run_waits_is_loaded(
    inbox, database_url, dag_bag, airflow_database, monkeypatch
):
    from dags.support.file_trigger import WaitForFiles

    defer = WaitForFiles.defer

    def drop_and_defer(task, **arguments):
        (inbox / "ABC-1m-2025-01-01.csv").write_text(rows(4))
        return defer(task, **arguments)

    monkeypatch.setattr(WaitForFiles, "defer", drop_and_defer)
    assert dag_bag.dags["import_files"].test().state == "success"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM market.candles_1m").fetchone() == (4,)
    assert (inbox / "done" / "ABC-1m-2025-01-01.csv").exists()
