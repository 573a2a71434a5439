"""One chain of plan, pieces and sum, for every kind of history."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError, RateLimitedError, TransientError
from include.jobs import history
from include.jobs.groups import MAX_TASKS, HistoryGroup, HistorySpan
from include.jobs.history import (
    group_history,
    load_history_group,
    plan_history,
    summarise_history,
)
from include.jobs.klines.pieces import BackfillPlan, DumpPiece, LoadCounts, RestPiece
from include.jobs.task_json import from_json, to_json
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece

KLINES = RestPiece("X", "x", 0, 60_000_000)
TRADES = TradeDumpPiece("X", "x", "X-aggTrades-2025-11-01.zip", "agg_trades", keep_raw=True)
DAY_US = 1_761_955_200_000_000
Outcomes = list[TradeDumpCounts | Exception]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that were called, in turn."""
    names: list[str] = []

    def instead(name: str, result: Any) -> None:
        monkeypatch.setattr(history, name, lambda **_: [names.append(name), result][1])

    instead("plan_backfill", BackfillPlan(rest=(KLINES,)))
    instead("plan_trade_dumps", SimpleNamespace(pieces=(TRADES,)))
    instead("load_all", LoadCounts(inserted=1))
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
        ("klines", ["plan_backfill", "plan_backfill", "load_all"], LoadCounts(inserted=2)),
        (
            "agg_trades",
            ["plan_trade_dumps", "plan_trade_dumps", "load_trade_dump"],
            TradeDumpCounts(files=2, trades=14),
        ),
    ],
)
def test_pieces_of_each_kind_are_loaded_by_their_own_job_and_summed(
    called: list[str], kind: str, jobs: list[str], total: Any
) -> None:
    (group,) = plan(kind=kind)
    counts = load_history_group(settings=None, group=group)  # type: ignore[arg-type]
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


def load_trades(
    group_of: list[TradeDumpCounts | Exception], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Load a group whose plan has a piece for each outcome."""
    outcomes = {f"{number}.zip": outcome for number, outcome in enumerate(group_of)}
    pieces = tuple(TradeDumpPiece("X", f"x{path[0]}", path, "trades") for path in outcomes)

    def load(*, settings: Any, piece: TradeDumpPiece) -> TradeDumpCounts:
        outcome = outcomes[piece.path]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(history, "plan_trade_dumps", lambda **_: SimpleNamespace(pieces=pieces))
    monkeypatch.setattr(history, "load_trade_dump", load)
    group = HistoryGroup("x", (HistorySpan("X", DAY_US, 2 * DAY_US),), "trades")
    return load_history_group(settings=None, group=group)  # type: ignore[arg-type]


def test_unusable_trade_file_fails_its_group_after_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = [TradeDumpCounts(unusable=1), TradeDumpCounts(files=1)]
    with pytest.raises(PermanentError, match=r"^0\.zip cannot be used"):
        load_trades(outcomes, monkeypatch)


def test_piece_that_fails_is_named_and_the_task_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = [TransientError("away"), TradeDumpCounts(files=1)]
    with pytest.raises(TransientError, match=r"1 of 2 pieces .* x0: away"):
        load_trades(outcomes, monkeypatch)


def test_rate_limit_ends_the_group_and_keeps_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RateLimitedError) as raised:
        load_trades([RateLimitedError("429", retry_after_s=30)], monkeypatch)
    assert raised.value.retry_after_s == 30


# --- groups

MONTH_US = 31 * 24 * 60 * MINUTE_US


def month(symbol: str, number: int) -> DumpPiece:
    return DumpPiece(
        symbol, f"{symbol} {number}", "p.zip", "dump_monthly", number * MONTH_US,
        (number + 1) * MONTH_US,
    )  # fmt: skip


def test_whole_exchange_fits_into_few_small_tasks() -> None:
    """1,500 symbols, 96 months each."""
    pieces = [month(f"S{number}USDT", at) for number in range(1_500) for at in range(96)]
    groups = group_history(pieces, kind="klines")
    assert len(groups) <= MAX_TASKS
    text = json.dumps(to_json(groups))
    assert len(text) < 500_000
    assert list(from_json(json.loads(text))) == groups


def test_two_months_of_three_symbols_are_four_tasks() -> None:
    # As in the demo on a month's last day: a monthly file, 29 daily files, and REST for today.
    pieces = [month(symbol, number) for symbol in "ABC" for number in range(31)]
    assert len(group_history(pieces, kind="klines")) == 4


def test_group_covers_each_symbols_pieces_from_first_to_last() -> None:
    pieces = [
        month("A", 0), month("B", 3), month("A", 1),
        RestPiece("A", "A now", 2 * MONTH_US, 2 * MONTH_US + MINUTE_US),
    ]  # fmt: skip
    (group,) = group_history(pieces, kind="klines")
    assert group.label == "A 0 … B 3 (4)"
    assert group.spans == (
        HistorySpan("A", 0, 2 * MONTH_US + MINUTE_US),
        HistorySpan("B", 3 * MONTH_US, 4 * MONTH_US),
    )


def test_single_piece_gives_its_label_and_its_files_period() -> None:
    piece = TradeDumpPiece("A", "A trades 2024-02-29", "data/A-trades-2024-02-29.zip", "trades")
    (group,) = group_history([piece], kind="trades", keep_raw=True)
    assert (group.label, group.kind, group.keep_raw) == (piece.label, "trades", True)
    day_us = 1_709_164_800_000_000
    assert group.spans == (HistorySpan("A", day_us, day_us + 24 * 60 * MINUTE_US),)
