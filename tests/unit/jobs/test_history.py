"""One chain of plan, pieces and sum, for every kind of history."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from include.errors import PermanentError
from include.jobs import history
from include.jobs.history import load_history_piece, plan_history, summarise_history
from include.jobs.klines.pieces import LoadCounts, RestPiece
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece

KLINES = RestPiece("X", "x", 0, 60_000_000)
TRADES = TradeDumpPiece("X", "x", "p.zip", "agg_trades", keep_raw=True)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were called, in turn."""
    names: list[str] = []

    def instead(name: str, result: Any) -> None:
        monkeypatch.setattr(history, name, lambda **_: [names.append(name), result][1])

    instead("plan_backfill", SimpleNamespace(pieces=(KLINES,)))
    instead("plan_trade_dumps", SimpleNamespace(pieces=(TRADES,)))
    instead("load_piece", LoadCounts(inserted=1))
    instead("load_trade_dump", TradeDumpCounts(files=1, trades=7))
    return names


def plan(**others: Any) -> Any:
    asked = {
        "settings": None, "symbols": "X", "market": "spot", "kind": "klines", "keep_raw": False,
        "mode": "all", "start": 0, "end": 60_000_000,
    }  # fmt: skip
    return plan_history(**(asked | others))


@pytest.mark.parametrize(
    ("kind", "jobs", "total"),
    [
        ("klines", ["plan_backfill", "load_piece"], LoadCounts(inserted=2)),
        (
            "agg_trades",
            ["plan_trade_dumps", "load_trade_dump"],
            TradeDumpCounts(files=2, trades=14),
        ),
    ],
)
def test_pieces_of_each_kind_are_loaded_by_their_own_job_and_summed(
    called: list[str], kind: str, jobs: list[str], total: Any
) -> None:
    (piece,) = plan(kind=kind)
    counts = load_history_piece(settings=None, piece=piece)  # type: ignore[arg-type]
    assert called == jobs
    with capture_logs() as told:
        assert summarise_history(counts=[counts, counts]) == total
    done = {name: count for name, count in asdict(total).items() if count}
    assert told == [{"event": "loads_summed", "log_level": "info", **done}]


def test_sum_of_no_pieces_is_empty() -> None:
    assert summarise_history(counts=[]) == LoadCounts()


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"keep_raw": True}, "keep_raw"),
        ({"kind": "trades", "start": None}, "from is empty"),
        ({"kind": "agg_trades", "mode": "forward"}, "'forward' applies to klines only"),
    ],
)
def test_invalid_combinations_are_refused(
    called: list[str], asked: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PermanentError, match=complaint):
        plan(**asked)
    assert called == []


def test_unusable_trade_file_fails_its_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "load_trade_dump", lambda **_: TradeDumpCounts(unusable=1))
    with pytest.raises(PermanentError, match=r"p\.zip cannot be used"):
        load_history_piece(settings=None, piece=TRADES)  # type: ignore[arg-type]
