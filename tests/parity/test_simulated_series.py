"""Recorded mark prices and funding times, and what the simulator makes of the same."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from simulator.clock import DAY_US, SECOND_US, to_us
from simulator.market.derivatives.funding import FundingSchedule, IntervalChange
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.streams.feeds.catalogue import open_feed

pytestmark = pytest.mark.recorded

HOUR_MS = 3_600_000
FUNDING = to_us(datetime(2023, 4, 5, tzinfo=UTC))
FILES = ("1000BONKUSDT_funding_2026-06-24", "KORUUSDT_funding_2026-07-15",
         "LAYERUSDT_funding_listing")  # fmt: skip


def recorded_marks(folder: Path) -> list[dict[str, Any]]:
    found = []
    for name in ("btcusdt_20230404.dat.gz", "btcusdt_20230405.dat.gz"):
        with gzip.open(folder / "ws-usdm-markprice-20230404" / name, "rt") as lines:
            found += [
                json.loads(line.split(" ", 1)[1])["data"]
                for line in lines
                if "markPriceUpdate" in line
            ]
    return found


def simulated_marks() -> list[dict[str, Any]]:
    listed = select_instruments("um", ("BTCUSDT",), seed=1)
    market = SimulatedMarket(listed, seed=1, start_us=FUNDING - DAY_US)
    feed = open_feed(market, "btcusdt@markPrice@1s", FUNDING - 99 * SECOND_US, seed=1)
    assert feed is not None
    return [json.loads(text) for _, render in islice(feed, 514) for text in render(1_000)]


def test_mark_price_frames_have_recorded_times(recorded_data: Path) -> None:
    recorded, simulated = recorded_marks(recorded_data), simulated_marks()
    assert [frame["E"] // 1_000 for frame in simulated] == [
        frame["E"] // 1_000 for frame in recorded
    ]
    for frames in (recorded, simulated):
        assert max(frame["E"] % 1_000 for frame in frames) <= 20
        assert 150 < sum(frame["E"] % 1_000 == 0 for frame in frames) < 260
    assert [frame["T"] for frame in simulated] == [frame["T"] for frame in recorded]
    late = [frame for frame in recorded if frame["T"] <= frame["E"]]
    assert len(late) == 1


def test_mark_price_frames_have_recorded_fields(recorded_data: Path) -> None:
    recorded, simulated = recorded_marks(recorded_data)[0], simulated_marks()[0]
    assert [name for name in simulated if name != "ap"] == list(recorded)  # added after 2023
    for name, value in recorded.items():
        assert type(simulated[name]) is type(value)
        if isinstance(value, str) and name in ("p", "P", "i", "r"):
            assert len(simulated[name].partition(".")[2]) == len(value.partition(".")[2]) == 8


@pytest.mark.parametrize("name", FILES)
def test_recorded_settlements_fit_a_schedule(recorded_data: Path, name: str) -> None:
    rows = json.loads((recorded_data / "derivatives-small" / f"{name}.json").read_text())["rows"]
    times = [row[0] for row in rows]
    assert all(time % HOUR_MS <= 11 for time in times)
    hours = [time // HOUR_MS for time in times]
    steps = [later - earlier for earlier, later in pairwise(hours)]
    if name.startswith("LAYER"):
        changes = (IntervalChange(0, 4), IntervalChange(hours[3] * HOUR_MS * 1_000 + 1, 2))
    else:
        changes = (IntervalChange(0, min(steps)),)
    holes = tuple(
        ((earlier + min(steps)) * HOUR_MS * 1_000, later * HOUR_MS * 1_000)
        for earlier, later in pairwise(hours)
        if later - earlier > min(steps) and not name.startswith("LAYER")
    )
    (contract,) = select_instruments("um", ("BTCUSDT",), seed=1)
    schedule = FundingSchedule(contract, 1, changes=changes, missing=holes)
    made = schedule.settlements(hours[0] * HOUR_MS * 1_000, times[-1] * 1_000 + 1)
    settlements = list(made)
    assert [one.funding_us // (HOUR_MS * 1_000) for one in settlements] == hours
    assert len(holes) == (0 if name.startswith("LAYER") else 1)
