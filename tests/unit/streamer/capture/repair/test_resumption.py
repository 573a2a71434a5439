"""What earlier processes did not find is looked for once."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from include.domain.timeframes import DAY_US, MINUTE_US
from include.store.trades.captured import AGG_TRADES
from streamer.capture.intake.rows import Intake
from streamer.capture.repair import resumption as module
from streamer.capture.repair.resumption import CaptureResumption
from streamer.capture.spool.losses import Losses
from streamer.capture.spool.spool import Spool

NOW_US = 1_763_716_800_000_000
LOOKBACK_US = 1_440 * MINUTE_US


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Since when empty tables are read: as at a start, and for earlier rows."""
    calls: list[tuple[str, int]] = []

    def stored_ids(_connection: Any, _table: Any, _symbols: Any, since_us: int) -> Any:
        calls.append(("start", since_us))
        return {}, []

    def missing_ids(
        _connection: Any, _table: Any, _symbols: Any, since_us: int, _until_us: int
    ) -> Any:
        calls.append(("earlier", since_us))
        return []

    monkeypatch.setattr(module, "connect", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(module, "stored_ids", stored_ids)
    monkeypatch.setattr(module, "last_rows", lambda *_: {})
    monkeypatch.setattr(module, "missing_ids", missing_ids)
    return calls


def resuming(folder: Path, moments: list[int]) -> CaptureResumption:
    datasets = (AGG_TRADES.name,)
    return CaptureResumption(
        "postgresql://nobody@127.0.0.1:1/none",
        datasets,
        Intake(datasets, max_rows=1_000, on_losses=lambda _: None),
        Spool(folder, max_bytes=1 << 20),
        Losses(folder / "losses.json"),
        delivers_since_us=lambda _dataset, _symbol: 0,
        now_us=lambda: moments[-1],
    )


async def run_until_complete(resumption: CaptureResumption) -> None:
    task = asyncio.create_task(resumption.run())
    async with asyncio.timeout(30):
        while not resumption.is_complete:
            await asyncio.sleep(0.002)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("complete_until_us", [NOW_US - 5 * MINUTE_US, NOW_US - 9 * DAY_US])
async def test_late_recheck_does_not_search_days_before_the_start(
    searches: list[tuple[str, int]], tmp_path: Path, complete_until_us: int
) -> None:
    moments = [NOW_US]
    resumption = resuming(tmp_path, moments)
    resumption.begin(
        exchange_us=NOW_US, lookback_us=LOOKBACK_US, complete_until_us=complete_until_us
    )
    resumption.join(["BTCUSDT"])
    await run_until_complete(resumption)
    is_old = complete_until_us < NOW_US - LOOKBACK_US
    earlier = [("earlier", complete_until_us)] if is_old else []
    assert searches == [("start", NOW_US - LOOKBACK_US), *earlier]
    searches.clear()
    moments.append(NOW_US + 3 * DAY_US)
    resumption.check_again(["BTCUSDT"])
    await run_until_complete(resumption)
    resumption.join(["ETHUSDT"])
    await run_until_complete(resumption)
    assert searches == [("start", moments[-1] - LOOKBACK_US)] * 2


async def test_recheck_during_the_first_check_still_searches_earlier_days(
    searches: list[tuple[str, int]], tmp_path: Path
) -> None:
    resumption = resuming(tmp_path, [NOW_US])
    complete_until_us = NOW_US - 9 * DAY_US
    resumption.begin(
        exchange_us=NOW_US, lookback_us=LOOKBACK_US, complete_until_us=complete_until_us
    )
    resumption.join(["BTCUSDT"])
    resumption.check_again(["BTCUSDT"])
    await run_until_complete(resumption)
    assert searches == [("start", NOW_US - LOOKBACK_US), ("earlier", complete_until_us)]
