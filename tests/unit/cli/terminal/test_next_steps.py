"""What `candelabra status` suggests."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.terminal.next_steps import next_steps
from include.jobs.status import DatabaseStatus, Finding
from include.store.ledgers.health import FilesOfVerdict, Health, NewestQualityRun, SymbolHealth

NOW = datetime(2026, 11, 21, 9, 0, 30, tzinfo=UTC)


def symbol(name: str) -> SymbolHealth:
    return SymbolHealth(
        name, 1_440, 1_440, 1_440, 0, 0, 0, 0, True, NOW, 30.0, 0.25, 0, 0, 0, 0, 0
    )  # fmt: skip


def status(*findings: Finding, health: Health | None) -> DatabaseStatus:
    return DatabaseStatus(
        "postgresql://h/d", "18.6", "0001", "0001", NOW, NOW - timedelta(days=1), health, findings
    )


def health(*names: str, **fields: Any) -> Health:
    known: dict[str, Any] = {
        "quality": NewestQualityRun("run", NOW, 12, None),
        "files": [FilesOfVerdict("loaded", 1, 1_440, NOW)],
    }
    known |= fields
    return Health([symbol(name) for name in names], known["quality"], known["files"], [])


def test_empty_database_is_told_to_stream() -> None:
    found = status(Finding("no_streamer", "…"), health=health(quality=None, files=[]))
    assert next_steps(found, {}) == ["stream: candelabra stream --symbols BTCUSDT,ETHUSDT"]


def test_missing_minutes_are_loaded_by_a_command_to_copy() -> None:
    found = status(
        Finding("missing", "…", ("BTCUSDT", "ETHUSDT.P")), health=health("BTCUSDT", "ETHUSDT.P")
    )
    assert next_steps(found, {})[0] == (
        "load the missing minutes: "
        "candelabra backfill --symbols BTCUSDT,ETHUSDT.P --from 2026-11-20"
    )


def test_dead_streamer_points_to_its_log() -> None:
    found = status(Finding("behind", "…", ("BTCUSDT",)), health=health("BTCUSDT"))
    assert next_steps(found, {"logs": "/l"})[0] == "read the last lines of /l/streamer.log"


def test_new_database_without_history_is_told_to_load_and_to_check() -> None:
    steps = next_steps(status(health=health("BTCUSDT", quality=None, files=[])), {})
    assert steps[:2] == [
        "check the stored rows: candelabra check",
        "load history: candelabra backfill --symbols BTCUSDT --from 2026-01-01",
    ]


def test_loading_history_is_not_advised_while_it_loads() -> None:
    found = replace(
        status(health=health("BTCUSDT", quality=None, files=[])),
        expected=(Finding("starting", "…", ("BTCUSDT",)),),
    )
    assert [step.partition(":")[0] for step in next_steps(found, {})] == ["query"]
    waiting = status(health=health("BTCUSDT", files=[]))
    assert next_steps(waiting, {})[0].startswith("load history")
    assert not next_steps(waiting, {"exchange": "http://x"})[0].startswith("load history")


def test_healthy_stack_points_to_chart_and_rows() -> None:
    steps = next_steps(status(health=health("BTCUSDT")), {"chart": "http://c/"})
    assert steps[0] == "see the chart: http://c/"
    assert steps[1].startswith("query: candelabra psql -c")
    assert len(steps) == 2


def test_database_without_schema_has_no_further_advice() -> None:
    assert next_steps(status(Finding("not_migrated", "…"), health=None), {}) == []
