"""A plan can be read before it runs: piece, source, minutes, why, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli.terminal.plan_table import MAX_PIECES_SHOWN, show_plan, totals
from include.config import Settings
from include.domain.timeframes import DAY_US, MINUTE_US
from include.jobs.klines.pieces import BackfillPlan, DumpPiece, RestPiece


def dump(symbol: str, day: int) -> DumpPiece:
    return DumpPiece(
        symbol, f"{symbol} 1970-01-{day + 1:02d}", f"data/{symbol}-1m-1970-01-{day + 1:02d}.zip",
        "dump_daily", day * DAY_US, (day + 1) * DAY_US, 1440, "1,440 minutes of the day", 61_000,
    )  # fmt: skip


def rest(symbol: str, hour: int) -> RestPiece:
    start_us = hour * 60 * MINUTE_US
    label = f"{symbol} 1970-01-01 {hour:02d}:00..{hour:02d}:05"
    return RestPiece(symbol, label, start_us, start_us + 5 * MINUTE_US, 5, "a gap")


def lines(plan: BackfillPlan, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_plan(plan, Settings())
    return capsys.readouterr().out.splitlines()


def test_each_symbol_has_a_table_in_time_order(capsys: pytest.CaptureFixture[str]) -> None:
    plan = BackfillPlan(
        (dump("BUSDT", 1), dump("AUSDT", 1)), (rest("AUSDT", 3),), missing_minutes=2885
    )
    shown = lines(plan, capsys)
    assert shown[0] == "2,885 minutes are missing"
    titles = [n for n, line in enumerate(shown) if line.strip().endswith(" minutes")]
    assert [shown[n].strip() for n in titles] == ["AUSDT: 1,445 minutes", "BUSDT: 1,440 minutes"]
    rows = [line for line in shown[titles[0] : titles[1]] if "1970" in line]
    cells = [[cell.strip() for cell in row.strip("│ ").split("│")] for row in rows]
    assert cells == [
        ["1970-01-01 03:00..03:05", "REST", "5", "a gap"],
        [
            "1970-01-02",
            "daily dump AUSDT-1m-1970-01-02.zip",
            "1,440",
            "1,440 minutes of the day",
        ],
    ]


@pytest.mark.parametrize("width", ["80", "100"])
def test_no_piece_is_cut_in_a_narrow_terminal(
    width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.console.PIPE_WIDTH", int(width))
    shown = lines(BackfillPlan((dump("1000SHIBUSDT.P", 1),), (rest("1000SHIBUSDT.P", 3),)), capsys)
    assert max(map(len, shown)) <= int(width)
    assert "…" not in "".join(shown)
    assert any("1970-01-01 03:00..03:05" in line for line in shown)


def test_totals_have_requests_weight_bytes_and_time() -> None:
    plan = BackfillPlan((dump("AUSDT", 1), dump("BUSDT", 1)), (rest("AUSDT", 3),))
    assert totals(plan, Settings()) == (
        "3 pieces: 6 requests, weight 3, 0.1 MB of dumps; about 1 s"
    )


def test_pieces_beyond_the_limit_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    pieces = tuple(dump("AUSDT", day) for day in range(MAX_PIECES_SHOWN + 2))
    assert "… and 2 more pieces of 2,880 minutes" in lines(BackfillPlan(pieces), capsys)


def test_files_without_a_listed_size_are_not_called_empty() -> None:
    unlisted = replace(dump("AUSDT", 1), size_bytes=0)
    assert "dumps of unknown size" in totals(BackfillPlan((unlisted,), ()), Settings())
    assert "0.0 MB of dumps" in totals(BackfillPlan((), (rest("AUSDT", 3),)), Settings())
