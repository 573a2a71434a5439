"""A start after a long stop: nothing between the last row and the first is passed over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from include.binance.streams.messages import AggTrade
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, MINUTE_US
from include.store.postgres.pools import connect
from include.store.trades.captured import (
    AGG_TRADES,
    BOOK_TICKERS,
    TRADES,
    book_ticker_line,
    write_raw,
)
from streamer.capture.intake.rows import Intake
from streamer.capture.repair.missing_ids import NOT_RUNNING
from streamer.capture.repair.resumption import CaptureResumption
from streamer.capture.spool.losses import Losses
from streamer.capture.spool.spool import Spool

DATASETS = ("agg_trades", "trades", "book_tickers")
NOW_US = 1_763_716_800_000_000
LAST_US = NOW_US - 9 * DAY_US
"""Long before the look-back."""


@pytest.fixture
def intake() -> Intake:
    return Intake(DATASETS, max_rows=1_000, on_losses=lambda _: None)


async def find_losses(
    database_url: str,
    intake: Intake,
    folder: Path,
    *symbols: str,
    delivers_since_us: Callable[[str, str], int | None] = lambda _dataset, _symbol: 0,
    is_done: Callable[[Losses], bool] = lambda losses: not losses.open,
    complete_until_us: int | None = None,
    on_read: Callable[[str, Mapping[str, tuple[int, int]]], None] = lambda *_: None,
) -> Losses:
    losses = Losses(folder / "losses.json")
    losses.load()
    spool = Spool(folder, max_bytes=1 << 20)
    resumption = CaptureResumption(
        database_url, DATASETS, intake, spool, losses,
        delivers_since_us=delivers_since_us, now_us=lambda: NOW_US, on_read=on_read,
    )  # fmt: skip
    resumption.begin(
        exchange_us=NOW_US, lookback_us=60 * MINUTE_US, complete_until_us=complete_until_us
    )
    resumption.join(symbols)
    task = asyncio.create_task(resumption.run())
    try:
        async with asyncio.timeout(30):
            while not (all(map(resumption.is_done, symbols)) and is_done(losses)):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return losses


async def test_book_tickers_and_futures_trades_are_lost_since_the_last_row(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    quote = book_ticker_line("BTCUSDT", 7, "1", "2", "3", "4", None, LAST_US)
    trade = ("BTCUSDT.P", 5, Decimal(1), Decimal(1), None, LAST_US + 1, True)
    with connect(database_url, application_name="test") as connection:
        write_raw(connection, BOOK_TICKERS, [quote])
        write_raw(connection, TRADES, [TRADES.line(trade)])
    read: dict[str, dict[str, tuple[int, int]]] = {}
    losses = await find_losses(
        database_url, intake, tmp_path, "BTCUSDT", "BTCUSDT.P", "ETHUSDT",
        on_read=lambda dataset, rows: read.setdefault(dataset, {}).update(rows),
    )  # fmt: skip
    assert read["book_tickers"] == {"BTCUSDT": (7, LAST_US)}
    assert read["trades"] == {"BTCUSDT.P": (5, LAST_US + 1)}
    assert sorted(
        (gap.dataset, gap.symbol, gap.cause, gap.from_us, gap.to_us) for gap in losses.take()
    ) == [
        ("book_tickers", "BTCUSDT", NOT_RUNNING, LAST_US, NOW_US),
        ("trades", "BTCUSDT.P", NOT_RUNNING, LAST_US + 1, NOW_US),
    ]


def store_book_ticker(database_url: str, symbol: str, number: int, received_us: int) -> None:
    quote = book_ticker_line(symbol, number, "1", "2", "3", "4", None, received_us)
    with connect(database_url, application_name="test") as connection:
        write_raw(connection, BOOK_TICKERS, [quote])


def loss_ranges(losses: Losses) -> list[tuple[str, int, int]]:
    return sorted((gap.symbol, gap.from_us, gap.to_us) for gap in losses.take())


async def test_loss_ends_when_the_exchange_delivers(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT"):
        store_book_ticker(database_url, symbol, 7, LAST_US)
    store_book_ticker(
        database_url, "ETHUSDT", 9, NOW_US + 2_000_000
    )  # before all streams were there
    since_us = {"BTCUSDT": NOW_US + 3_000_000, "ETHUSDT": NOW_US + 3_000_000, "XRPUSDT": None}
    losses = await find_losses(
        database_url, intake, tmp_path, *since_us,
        delivers_since_us=lambda _dataset, symbol: since_us[symbol],
        is_done=lambda losses: len(losses.open) == 1,
    )  # fmt: skip
    assert loss_ranges(losses) == [
        ("BTCUSDT", LAST_US, NOW_US + 3_000_000),
        ("ETHUSDT", LAST_US, NOW_US + 2_000_000),
    ]
    assert [loss.symbol for loss in losses.open] == ["XRPUSDT"]


async def test_loss_of_a_process_killed_at_its_start_is_recorded_by_the_next(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    store_book_ticker(database_url, "BTCUSDT", 7, LAST_US)
    killed = await find_losses(
        database_url, intake, tmp_path, "BTCUSDT",
        delivers_since_us=lambda _dataset, _symbol: None, is_done=lambda _: True,
    )  # fmt: skip
    killed.save()  # as the writer does before it stores a row
    store_book_ticker(database_url, "BTCUSDT", 9, NOW_US + 1_000_000)
    losses = await find_losses(database_url, intake, tmp_path, "ETHUSDT")
    assert loss_ranges(losses) == [("BTCUSDT", LAST_US, NOW_US + 1_000_000)]
    losses.save()
    again = Losses(tmp_path / "losses.json")
    again.load()
    assert (loss_ranges(again), again.open) == (loss_ranges(losses), set())


async def test_trades_with_ids_are_missing_since_the_last_row(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    store_trades(database_url, {100: LAST_US})
    first = AggTrade(NOW_US, "BTCUSDT", 900, Decimal(1), Decimal(1), 9, 9, NOW_US, True)
    intake.on_trade(Market.SPOT, first)
    await find_losses(database_url, intake, tmp_path, "BTCUSDT")
    assert missing(intake) == [(101, 899, LAST_US, NOW_US)]


def store_trades(database_url: str, times_us: dict[int, int]) -> None:
    lines = [
        AGG_TRADES.line(("BTCUSDT", number, Decimal(1), Decimal(1), 1, 1, at_us, True))
        for number, at_us in times_us.items()
    ]
    with connect(database_url, application_name="test") as connection:
        write_raw(connection, AGG_TRADES, lines)


def missing(intake: Intake) -> list[tuple[int, int, int, int]]:
    missing_ranges = intake.sequences["agg_trades", "BTCUSDT"].missing_ranges
    return [(one.first_id, one.last_id, one.from_us, one.to_us) for one in missing_ranges]


async def test_missing_ids_not_found_by_an_ended_process_are_found(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    later_us = LAST_US + 60 * MINUTE_US
    store_trades(database_url, {100: LAST_US, 900: later_us})
    await find_losses(database_url, intake, tmp_path, "BTCUSDT", complete_until_us=LAST_US)
    assert missing(intake) == [(101, 899, LAST_US, later_us)]


async def test_rows_of_an_interrupted_start_hide_no_missing_ids_before_them(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    store_trades(database_url, {100: LAST_US, 900: NOW_US - MINUTE_US})
    await find_losses(database_url, intake, tmp_path, "BTCUSDT")
    assert missing(intake) == [(101, 899, LAST_US, NOW_US - MINUTE_US)]


async def test_rows_lost_since_the_start_are_found_by_a_recheck(
    database_url: str, intake: Intake, tmp_path: Path
) -> None:
    later_us = NOW_US + 9 * DAY_US
    store_trades(database_url, {1: LAST_US, 3: LAST_US + 1, 5: later_us, 7: later_us + 1})
    now_us = NOW_US
    resumption = CaptureResumption(
        database_url, DATASETS, intake, Spool(tmp_path, max_bytes=1 << 20),
        Losses(tmp_path / "losses.json"), delivers_since_us=lambda _dataset, _symbol: 0,
        now_us=lambda: now_us,
    )  # fmt: skip
    resumption.begin(exchange_us=NOW_US, lookback_us=60 * MINUTE_US)
    assert resumption.is_complete
    now_us = later_us + MINUTE_US
    resumption.check_again(["BTCUSDT"])
    assert not resumption.is_complete
    task = asyncio.create_task(resumption.run())
    async with asyncio.timeout(30):
        while not resumption.is_complete:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    # As a start at that moment: not what is missing in days that are long past.
    assert [one[:2] for one in missing(intake)] == [(4, 4), (6, 6)]
