"""The page of `candelabra status`, and its JSON."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from cli.commands.status import as_mapping, duration, show, window_of
from include.errors import PermanentError
from include.jobs.status import DatabaseStatus, Finding
from include.store.ledgers.health import (
    FilesOfVerdict,
    Health,
    HostWeight,
    NewestQualityRun,
    SymbolHealth,
)

NOW = datetime(2026, 11, 21, 9, 0, 30, tzinfo=UTC)


def symbol(name: str, *, behind_s: float = 30.0, is_streamed: bool = True) -> SymbolHealth:
    newest = NOW - timedelta(seconds=behind_s + 60)
    return SymbolHealth(
        name, 44_640, 44_640, 10_000, 1_000, 100, 0, 10, is_streamed, newest, behind_s, 0.25,
        10_000, 0, 10, 0, 1_000,
    )  # fmt: skip


def page(*symbols: SymbolHealth, show_all: bool = False, width: int = 80, **fields: object) -> str:
    health = Health(
        list(symbols),
        NewestQualityRun("run", NOW - timedelta(minutes=4), 12, None),
        [FilesOfVerdict("loaded", 31, 44_640, NOW)],
        [HostWeight("data-api.binance.vision", 41, None)],
    )
    known: dict[str, object] = {
        "database": "postgresql://candelabra_reader@127.0.0.1:5432/candelabra",
        "server_version": "18.6",
        "revision": "0001",
        "newest_revision": "0001",
        "now": NOW,
        "since": NOW - timedelta(days=1),
        "health": health,
        "findings": (),
    }
    out = io.StringIO()
    show(
        DatabaseStatus(**(known | fields)),  # type: ignore[arg-type]
        Console(file=out, width=width, highlight=False),
        show_all=show_all,
    )
    return out.getvalue()


def test_nothing_is_truncated_at_80_columns() -> None:
    shown = page(symbol("1000SHIBUSDT.P"), symbol("BTCUSDT", behind_s=4_000.0))
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    for text in (
        "1000SHIBUSDT.P",
        "44,640",
        "10,000",
        "67 m",
        "0 s",
        "no rule violated",
        "all is well",
    ):
        assert text in shown


def test_only_the_worst_symbols_are_shown_unless_all_are_requested() -> None:
    symbols = [symbol(f"S{number:02}USDT") for number in range(25)]
    symbols += [symbol("LATEUSDT", behind_s=900.0), symbol("OLDUSDT", is_streamed=False)]
    shown = page(*symbols)
    rows = [line for line in shown.splitlines() if "USDT" in line]
    assert len(rows) == 20
    assert rows[0].startswith("LATEUSDT")
    assert "6 more symbols in equal or better state" in shown
    assert "1 symbol that has rows but is not streamed" in shown
    everything = page(*symbols, show_all=True)
    assert sum("USDT" in line for line in everything.splitlines()) == 27


def test_findings_are_shown_last() -> None:
    told = Finding("behind", "no new minute for over 3 minutes: BTCUSDT", ("BTCUSDT",))
    assert page(symbol("BTCUSDT"), findings=(told,)).rstrip().endswith(told.message)


def test_what_a_start_explains_is_not_called_well() -> None:
    loading = Finding("loading", "history is loading, 1,439 minutes missing so far: BTCUSDT")
    shown = page(symbol("BTCUSDT"), expected=(loading,))
    assert shown.rstrip().endswith(f"… {loading.message}")
    assert "all is well" not in shown


def test_database_without_schema_is_shown() -> None:
    shown = page(revision=None, health=None, findings=(Finding("not_migrated", "migrate"),))
    assert "schema none" in shown


def test_json_has_the_verdict_and_plain_values() -> None:
    status = DatabaseStatus(
        "db", "18.6", "0001", "0001", NOW, NOW, Health([symbol("A")], None, [], []), ()
    )
    told = json.loads(json.dumps(as_mapping(status)))
    assert told["healthy"] is True
    assert told["now"] == "2026-11-21T09:00:30+00:00"
    assert told["health"]["symbols"][0]["behind_s"] == 30.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (-0.4, "0 s"), (42.4, "42 s"), (1_020, "17 m"), (18_720, "5.2 h"), (1e6, "12 d")],
)
def test_duration_is_shown_in_short_form(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_window_is_parsed_or_refused_with_examples() -> None:
    assert window_of("90m") == timedelta(minutes=90)
    assert window_of(" 7D ") == timedelta(days=7)
    for wrong in ("", "yesterday", "24", "0h", "-1h", "1w", "1.5h"):
        with pytest.raises(PermanentError, match="like 90m, 24h or 7d"):
            window_of(wrong)
