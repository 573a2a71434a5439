"""Recorded funding histories and mark frames of the real exchange."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from include.domain.series.funding import FundingTime, missing_settlements, settles_at_us
from include.domain.series.mark_minutes import MinuteFold
from include.domain.timeframes import HOUR_US, MINUTE_US

pytestmark = pytest.mark.recorded

FRAMES = "ws-usdm-markprice-20230404"


@pytest.mark.parametrize(
    ("name", "holes"),
    [
        ("1000BONKUSDT_funding_2026-06-24", [("2026-06-24T04", 1)]),
        ("KORUUSDT_funding_2026-07-15", [("2026-07-15T08", 1)]),
        ("LAYERUSDT_funding_listing", []),
    ],
)
def test_holes_of_recorded_funding_are_found_and_changes_of_the_interval_are_none(
    recorded_data: Path, name: str, holes: list[tuple[str, int]]
) -> None:
    content = json.loads((recorded_data / "derivatives-small" / f"{name}.json").read_text())
    hours = [settles_at_us(row[0] * 1000) for row in content["rows"]]
    assert None not in hours
    found = missing_settlements([FundingTime(hour) for hour in sorted(set(hours)) if hour])

    def label(time_us: int) -> str:
        return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H")

    assert [(label(one.from_us), one.count) for one in found] == holes


def test_recorded_mark_frames_make_whole_minutes(recorded_data: Path) -> None:
    fold, values, minutes = MinuteFold(), dict[int, list[Decimal]](), []
    for path in sorted((recorded_data / FRAMES).glob("*.dat.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            if '"markPriceUpdate"' not in line:
                continue
            frame = json.loads(line.partition(" ")[2])["data"]
            event_us, price = frame["E"] * 1000, Decimal(frame["p"])
            values.setdefault(event_us // MINUTE_US * MINUTE_US, []).append(price)
            ended = fold.add(event_us, price)
            if ended is not None:
                minutes.append(ended)
    whole = [one for one in minutes if one.is_whole]
    assert len(whole) >= 6
    for one in whole:
        prices = values[one.open_time_us]
        assert (one.open, one.high, one.low, one.close) == (
            prices[0], max(prices), min(prices), prices[-1],
        )  # fmt: skip
    assert fold.late == 0
    assert minutes[0].open_time_us % HOUR_US  # the recording begins within an hour
