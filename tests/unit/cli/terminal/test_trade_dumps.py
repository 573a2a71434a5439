"""Loading dumps of trades shows its plan, and goes on after a file that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cli.terminal.trade_dumps import backfill_trades
from include.config import load_settings
from include.errors import TransientError
from include.jobs.trades import dumps, planning
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece
from include.jobs.trades.planning import TradeDumpPlan

SETTINGS = load_settings(database_url="postgresql://here/candles")


def piece(label: str) -> TradeDumpPiece:
    return TradeDumpPiece("BTCUSDT", label, f"data/{label}.zip", "agg_trades", why="published")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the command with a plan; files whose label has "away" are not served."""

    def load(*, settings: Any, piece: TradeDumpPiece) -> TradeDumpCounts:
        if "away" in piece.label:
            raise TransientError("the dump site does not answer")
        return TradeDumpCounts(files=1, trades=7, unusable=int("broken" in piece.label))

    def run(plan: TradeDumpPlan, *, only_plan: bool = False) -> None:
        monkeypatch.setattr(planning, "plan_trade_dumps", lambda **_: plan)
        monkeypatch.setattr(dumps, "load_trade_dump", load)
        backfill_trades(
            SETTINGS, symbols="BTCUSDT", market="spot", kind="agg_trades", start_us=0, end_us=1,
            keep_raw=False, only_plan=only_plan,
        )  # fmt: skip

    return run


def test_failed_files_are_named_and_the_others_are_loaded(
    planned: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        planned(TradeDumpPlan(tuple(map(piece, ["first", "away", "broken", "last"]))))
    shown = capsys.readouterr()
    assert "candelabra: away: the dump site does not answer" in shown.err
    assert "candelabra: broken: cannot be used; ops.dump_files says why" in shown.err
    assert "21" in shown.out


def test_plan_names_days_that_nobody_has(
    planned: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    planned(TradeDumpPlan((), 3, ("2026-11-01", "2026-11-02")), only_plan=True)
    shown = capsys.readouterr()
    assert "has 2 days (2026-11-01 … 2026-11-02)" in shown.err
    assert "nothing to load; 3 files are loaded already" in shown.out
