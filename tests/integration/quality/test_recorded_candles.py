"""The exchange's own minutes break no rule; a crash that happened is a warning, and no error."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.quality.limits import ScopeKind
from include.quality.run import run_checks
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

pytestmark = pytest.mark.recorded

FILES = {
    "BTCUSDT": "dump-spot-1m-20200101/*.zip",
    "FILUSDT.P": "dump-um-1m-bulk/FILUSDT-1m-2024-04.zip",
}


def candidates_of(folder: Path, symbol: str) -> Iterator[CandleCandidate]:
    for path in sorted(folder.glob(FILES[symbol])):
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
        for row in csv.reader(io.StringIO(text)):
            if not row[0].isdigit():
                continue
            opened, *prices, volume, _, quote, count, taker, taker_quote, _ = row
            candle = Candle(
                symbol,
                int(opened) * 1_000,
                *map(Decimal, prices),
                *map(Decimal, (volume, quote)),
                int(count),
                *map(Decimal, (taker, taker_quote)),
            )
            yield CandleCandidate(candle, Status.VERIFIED, Source.DUMP_MONTHLY, candle.open_time_us)


def test_recorded_minutes_break_no_rule(database_url: str, recorded_data: Path) -> None:
    with connect(database_url, application_name="test") as connection:
        for symbol in FILES:
            merge_candidates(connection, list(candidates_of(recorded_data, symbol)))
    report = run_checks(
        database_url, run_id="r", scope=ScopeKind.ALL, end=datetime(2024, 5, 1, tzinfo=UTC)
    )
    assert report.candles == 2 * 1_440 + 30 * 1_440
    assert report.failures == ()
    # The sell-off of that evening: minutes that moved by more than twenty usual ranges.
    (jumps,) = report.warnings
    assert jumps.name == "closes_do_not_jump"
    days = {row.minute.date() for row in jumps.failing_rows if row.minute is not None}
    assert days == {date(2024, 4, 12)}
