"""Connections from URLs, and the summary of what was set."""

from __future__ import annotations

import json

import pytest

from deploy.local.airflow_pools import Outcome, connection_of
from include.errors import PermanentError


def test_connection_has_the_decoded_parts_of_its_url() -> None:
    made = connection_of(
        "postgresql://candelabra_jobs:p%40ss%2Fword@db.test:5433/candles?sslmode=require",
        conn_id="candelabra_jobs",
    )
    assert (made["conn_type"], made["host"], made["port"]) == ("postgres", "db.test", 5433)
    assert (made["login"], made["password"]) == ("candelabra_jobs", "p@ss/word")
    assert made["schema"] == "candles"
    assert json.loads(made["extra"]) == {"sslmode": "require"}


@pytest.mark.parametrize("url", ["mysql://me:secret@db/x", "postgresql://me:secret@db:port/x", "x"])
def test_other_urls_are_rejected_and_not_repeated(url: str) -> None:
    with pytest.raises(PermanentError, match="Airflow's connection candelabra_db") as caught:
        connection_of(url, conn_id="candelabra_db")
    assert "secret" not in str(caught.value)


def test_summary_has_a_line_for_pools_connections_and_skipped() -> None:
    pools = {"dbt": "unchanged", "binance_rest": "created"}
    assert Outcome(pools, {"candelabra_db": "updated"}).lines() == [
        "Airflow's pools: dbt unchanged, binance_rest created",
        "Airflow's connections: candelabra_db updated",
    ]
    assert Outcome(pools, skipped="there is no key").lines()[1] == (
        "Airflow's connections: skipped, since there is no key"
    )
