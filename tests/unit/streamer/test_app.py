"""What the streamer does between its parts; none of its tasks run here."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.config import load_settings
from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.instruments import Instrument, Market, market_of
from include.domain.timeframes import MINUTE_US, SECOND_US
from include.store.ledgers.gap_batches import GapRow
from include.store.ledgers.gaps import Gap
from streamer import app as app_module
from streamer.app import Streamer
from streamer.candles import feed as feed_module
from streamer.exchange.clock import ExchangeClock
from streamer.symbols.startup import StoredState, StreamOptions, StreamStart
from streamer.symbols.symbol_selection import SelectionChanges
from tests.unit.streamer.played_connection import T0, Connection, trade
from tests.unit.streamer.watched import Clock


def instrument(symbol: str) -> Instrument:
    base, tick = symbol.removesuffix(".P").removesuffix("USDT"), Decimal("0.01")
    return Instrument(symbol, market_of(symbol), base, "USDT", "TRADING", tick, tick)


def streamer_of(home: Path, *symbols: str) -> Streamer:
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=home)
    return Streamer(settings, StreamOptions(symbols))


async def test_unfinished_minute_of_a_dropped_symbol_is_requested(
    tmp_path: Path,
) -> None:
    streamer = streamer_of(tmp_path, "BTCUSDT", "ETHUSDT")
    streamer._add(
        Market.SPOT,
        [instrument("BTCUSDT"), instrument("ETHUSDT")],
        {"BTCUSDT": T0, "ETHUSDT": T0},
    )
    [feed] = streamer._feeds.feeds
    feed.on_texts([trade("ETHUSDT", 1, T0 + SECOND_US)])
    feed.on_texts([trade("BTCUSDT", 1, T0 + MINUTE_US + SECOND_US // 10)])
    assert streamer._repairs.waiting_minutes == 0
    streamer._change(Market.SPOT, SelectionChanges(dropped=["ETHUSDT"]), {})
    [gap] = streamer._ledger._gaps["ETHUSDT"]
    assert (gap.symbol, gap.start_us, gap.end_us) == ("ETHUSDT", T0, T0 + MINUTE_US)
    assert streamer._repairs.waiting_minutes == 1
    streamer._change(Market.SPOT, SelectionChanges(dropped=["BTCUSDT"]), {})
    assert streamer._repairs.waiting_minutes == 2
    assert streamer._exchange_us() >= T0 + MINUTE_US  # otherwise no repair would ever be due


@pytest.mark.parametrize(
    ("dropped", "added"),
    [([], "NEWUSDT"), (["BTCUSDT"], "NEWUSDT"), ([], "NEWUSDT.P")],
    ids=["the first one is full", "the first one was closed", "of another market"],
)
async def test_later_connection_knows_the_exchange_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[str], added: str
) -> None:
    ours = Clock()
    for module in (app_module, feed_module):
        monkeypatch.setattr(module, "ExchangeClock", partial(ExchangeClock, clock_s=ours))
    streamer = streamer_of(tmp_path, "BTCUSDT")
    nothing = StoredState({}, {}, [])
    streamer._begin(
        StreamStart([instrument("BTCUSDT")], nothing, {"BTCUSDT": T0}, {Market.SPOT: T0}),
    )
    streamer._feeds._pool._max_symbols = lambda _market: 1
    ours.now_s += 5 * 3_600
    later_us = T0 + 300 * MINUTE_US
    streamer._change(Market.SPOT, SelectionChanges(dropped=dropped), {})
    monkeypatch.setattr(feed_module, "StreamConnection", Connection)
    streamer._change(
        market_of(added), SelectionChanges(added=[instrument(added)]), {added: later_us}
    )
    feed = streamer._feeds.feeds[-1]
    connection: Any = feed.connection
    connection.open()  # without frames
    ours.now_s += 200
    feed.on_clock()
    assert [one.start_us for one in streamer._repairs._requests.get(added, [])] == [later_us]
    feed.on_texts([trade("NEWUSDT", 1, later_us + 200 * SECOND_US)])
    assert (feed.frames, feed.bad_frames) == (1, 0)


async def test_missing_minutes_are_requested_and_gaps_are_adopted_once(
    tmp_path: Path,
) -> None:
    """At the start, and when a symbol returns that was streamed before."""
    streamer = streamer_of(tmp_path, "BTCUSDT")
    at = [T0 + number * MINUTE_US for number in range(8)]
    gap = Gap(7, "BTCUSDT", at[0], at[2], "connection lost", T0, 1, {})
    stored = StoredState({"BTCUSDT": at[7]}, {"BTCUSDT": [(at[4], at[5])]}, [gap])
    streamer._begin(
        StreamStart([instrument("BTCUSDT")], stored, {"BTCUSDT": at[7]}, {Market.SPOT: at[7]})
    )
    assert streamer._listings is not None
    streamer._listings._on_stored(stored)
    asked = [(one.start_us, one.end_us) for one in streamer._repairs._requests["BTCUSDT"]]
    assert asked == [(at[0], at[2]), (at[4], at[5])]
    gaps = [(one.start_us, one.end_us, one.rows) for one in streamer._ledger._gaps["BTCUSDT"]]
    assert gaps == [(at[0], at[2], [GapRow("BTCUSDT", 7, T0)]), (at[4], at[5], [])]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(app_module, "log", log)
    return log


async def test_missing_trades_are_logged_once_a_minute_and_all_counted(
    tmp_path: Path, log: CapturingLogger
) -> None:
    streamer = streamer_of(tmp_path, "BTCUSDT")
    for at_us in (1, 2, MINUTE_US + 1):
        streamer.trades_missing("BTCUSDT", 7, 8, at_us, at_us + 1)
    assert [call.args for call in log.calls] == [("trades_missing",)] * 2
    assert streamer.telemetry.counts["missing_trades"] == 3
    [gap] = streamer._ledger._gaps["BTCUSDT"]
    assert (gap.start_us, gap.end_us, gap.cause) == (0, 2 * MINUTE_US, "missing trades")


async def test_disputed_kline_is_stored_as_evidence_once_rest_has_decided(
    tmp_path: Path, log: CapturingLogger
) -> None:
    streamer = streamer_of(tmp_path, "BTCUSDT")
    streamer._loop = asyncio.get_running_loop()
    candle = silent_candle("BTCUSDT", T0, Decimal(7))
    kline, rest = (
        CandleCandidate(candle, Status.VERIFIED, source, T0 + MINUTE_US)
        for source in (Source.KLINE, Source.REST)
    )
    streamer.kline_disputed(kline)
    asked = [(one.start_us, one.cause) for one in streamer._repairs._requests["BTCUSDT"]]
    assert asked == [(T0, "closed kline disputed")]
    assert [gap.start_us for gap in streamer._ledger._gaps["BTCUSDT"]] == [T0]
    assert streamer._writer.waiting == 0
    for _ in range(2):
        streamer._publish_repaired([rest])
        await asyncio.sleep(0)
        assert [*streamer._writer._candidates] == [kline]


async def test_partial_minute_opens_a_gap(tmp_path: Path) -> None:
    streamer = streamer_of(tmp_path, "BTCUSDT")
    candle = silent_candle("BTCUSDT", T0, Decimal(7))
    for status in (Status.UNCONFIRMED, Status.PARTIAL):
        assert not streamer._ledger._gaps
        streamer.candle_closed(CandleCandidate(candle, status, Source.STREAM))
    [gap] = streamer._ledger._gaps["BTCUSDT"]
    assert (gap.start_us, gap.end_us, gap.cause) == (T0, T0 + MINUTE_US, "missing trades")


async def test_differences_and_corrections_are_counted_apart(
    tmp_path: Path, log: CapturingLogger
) -> None:
    streamer = streamer_of(tmp_path, "BTCUSDT")
    streamer.kline_differs("BTCUSDT", 0, ["close"])
    streamer.open_candle_corrected("BTCUSDT", 0, ["open"])
    streamer.open_candle_corrected("BTCUSDT", MINUTE_US, ["open"])
    streamer.trade_ids_restarted("BTCUSDT", 9, 1, MINUTE_US)
    assert streamer.telemetry.counts == {"differing": 1, "corrected": 2}
    assert [call.args[0] for call in log.calls] == [
        "kline_differs",
        *["open_candle_corrected"] * 2,
        "trade_ids_restarted",
    ]
