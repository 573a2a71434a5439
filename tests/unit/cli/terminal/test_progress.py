"""Progress is a bar on a terminal and lines in a log elsewhere."""

from __future__ import annotations

import io

import pytest
import structlog
from rich.console import Console

from cli.terminal.progress import rows_progress, rows_watched


def test_terminal_shows_percent_rows_and_rows_per_second() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with rows_watched(console) as watch, watch("a.csv") as shown:
        shown(0.5, 12_345)
    assert "a.csv" in out.getvalue()
    assert "50%" in out.getvalue()
    assert "12,345 rows" in out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_progress_of_a_task_is_one_line(width: int) -> None:
    name = "BTCUSDT-aggTrades-2024-02-29-from-the-other-disk.csv.gz"
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    progress = rows_progress(console)
    progress.add_task(name, total=1.0, completed=0.5, rows=123_456_789)
    with console.capture() as capture:
        console.print(progress.get_renderable())
    (line,) = capture.get().splitlines()
    assert " 50%" in line
    assert "123,456,789 rows, " in line
    assert line.endswith("/s 0:00:00")
    assert (name in line) == (width == 200)
    assert name[:15] in line


def test_progress_is_logged_without_a_terminal() -> None:
    out = io.StringIO()
    with (
        structlog.testing.capture_logs() as lines,
        rows_watched(Console(file=out), line_each_s=0) as watch,
        watch("a.csv") as shown,
    ):
        shown(0.25, 1_000)
        shown(1.0, 4_000)
    assert [(one["event"], one["file"], one["percent"], one["rows"]) for one in lines] == [
        ("rows_read", "a.csv", 25.0, 1_000),
        ("rows_read", "a.csv", 100.0, 4_000),
    ]
    assert all(one["rows_per_s"] > 0 for one in lines)
    assert out.getvalue() == ""


def test_progress_lines_respect_their_interval() -> None:
    with (
        structlog.testing.capture_logs() as lines,
        rows_watched(Console(file=io.StringIO()), line_each_s=3_600) as watch,
        watch("a.csv") as shown,
    ):
        for rows in range(100):
            shown(rows / 100, rows)
    assert lines == []


def test_next_file_is_shown_after_an_unfinished_one() -> None:
    out = io.StringIO()
    with rows_watched(Console(file=out, force_terminal=True, width=120)) as watch:
        with watch("refused.csv"):
            pass
        with watch("b.csv") as shown:
            shown(1.0, 9)
    assert "refused.csv" in out.getvalue()
    assert "b.csv" in out.getvalue()
