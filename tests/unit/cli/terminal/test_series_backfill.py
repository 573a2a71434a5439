"""The plan of derivative series as a table."""

from __future__ import annotations

import pytest

from cli.terminal.series_backfill import MAX_PIECES_SHOWN, show_series_plan
from include.jobs.derivatives.pieces import SeriesFilePiece, SeriesPlan, SeriesRestPiece


def test_each_piece_has_its_source_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    file = SeriesFilePiece(
        "A.P", "A.P metrics", "metrics", "data/A-metrics.zip", "dump_daily", 0, 1, "new"
    )
    show_series_plan(SeriesPlan((file, SeriesRestPiece("A.P", "A.P mark", "mark", 0, 1, "young"))))
    shown = capsys.readouterr().out
    rows = [
        [cell.strip() for cell in line.strip("│ ").split("│")]
        for line in shown.splitlines()
        if "A.P" in line
    ]
    assert rows == [["A.P metrics", "A-metrics.zip", "new"], ["A.P mark", "REST", "young"]]


def test_a_long_plan_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    piece = SeriesRestPiece("A.P", "A.P mark", "mark", 0, 1, "young")
    show_series_plan(SeriesPlan((piece,) * (MAX_PIECES_SHOWN + 2)))
    assert "… and 2 more pieces" in capsys.readouterr().out
