"""What the market itself does while the streamer runs: halts, delistings, reuse, listings."""

from __future__ import annotations

import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from simulator.config import SimulatorConfig
from streamer.storage.repair_queue import MAX_ATTEMPTS
from tests.integration.faults.matrix_streams import STREAMER
from tests.integration.faults.staging import (
    Rows,
    assert_equal,
    assert_unharmed,
    minutes_of,
    oracle,
    outages_of,
    read_rows,
)
from tests.integration.faults.streaming import Stage, stage

HALTED, GONE, REUSED = "PEPEUSDT", "OPUSDT", "ETCUSDT"
SPOT = ("BTCUSDT", HALTED, GONE, REUSED)
UM = ("BTCUSDT", HALTED, GONE)
SYMBOLS = [*SPOT, *(f"{name}.P" for name in UM)]
PAUSE_S = 200
FAULTS = [
    {"kind": "halt", "market": "spot", "symbols": HALTED, "duration_s": PAUSE_S},
    {"kind": "halt", "market": "um", "symbols": HALTED, "duration_s": PAUSE_S},
    {"kind": "delisting", "market": "spot", "symbols": GONE},
    {"kind": "delisting", "market": "um", "symbols": GONE},
    {"kind": "ticker_reuse", "market": "spot", "symbols": REUSED, "pause_s": PAUSE_S},
    {"kind": "new_listing", "market": "spot", "symbols": "NEWUSDT"},
]


def minutes_in(ranges: list[tuple[int, int]]) -> set[int]:
    return {minute for start, end in ranges for minute in range(start, end, MINUTE_US)}


def missing_at_exchange(one: Stage, symbol: str, start_us: int, end_us: int) -> set[int]:
    """Minutes of [start, end) without a candle at the exchange."""
    has = oracle(one.exchange, symbol, start_us, end_us)
    return set(range(start_us, end_us, MINUTE_US)) - has.keys()


@pytest.mark.long
@pytest.mark.asyncio
async def test_table_equals_the_exchange_after_market_faults(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=60, spot_symbols=SPOT, um_symbols=UM)
    async with stage(database_url, SYMBOLS, config) as one:
        one.add(*({**fault, "at": "+20s"} for fault in FAULTS))
        began_us = minute_of(one.exchange.clock.now_us())
        await one.let_pass(PAUSE_S / 60 + 6)  # a halt is sure when it is over, or after 5 minutes
        until_us = minute_of(one.exchange.clock.now_us()) - MINUTE_US
        rows: Rows = {}

        def is_equal() -> bool:
            rows.clear()
            rows.update(read_rows(database_url))
            return (
                all(
                    minutes_of(rows, symbol)[-1] >= until_us for symbol in SYMBOLS if symbol != GONE
                )
                and all(
                    minutes_in(outages_of(database_url, symbol))
                    == missing_at_exchange(one, symbol, began_us, until_us)
                    for symbol in (HALTED, REUSED)
                )
                and bool(outages_of(database_url, GONE))
            )

        await one.until(is_equal, "rows up to now, and outages for what the exchange lacks")
        for symbol in SYMBOLS:
            assert_equal(one.exchange, rows, symbol, minutes_of(rows, symbol)[0], until_us)
        assert all(row["status"] == "verified" for (_, at), row in rows.items() if at < until_us)
        assert_unharmed(one.before, rows)
        assert_gaps(one, rows, began_us, until_us)
        assert_events(one)


def assert_gaps(one: Stage, rows: Rows, began_us: int, until_us: int) -> None:
    """Spot has no row and an outage, USD-M goes on with empty rows as the exchange does."""
    for symbol in (HALTED, GONE, REUSED):
        missing = missing_at_exchange(one, symbol, began_us, until_us)
        assert len(missing) >= PAUSE_S // 60 - 1, symbol
        assert missing.isdisjoint(minutes_of(rows, symbol))
    now_us = minute_of(one.exchange.clock.now_us())
    outages = minutes_in(outages_of(one.database_url, GONE))
    assert outages
    assert outages <= missing_at_exchange(one, GONE, began_us, now_us)
    for symbol in (f"{HALTED}.P", f"{GONE}.P"):
        assert outages_of(one.database_url, symbol) == []
        assert any(rows[symbol, at]["trade_count"] == 0 for at in minutes_of(rows, symbol))


def assert_events(one: Stage) -> None:
    """Each change of state is logged once, and a delisted symbol is not requested for ever."""
    for kind, symbol in (("halt", HALTED), ("delisting", GONE), ("ticker_reuse", REUSED)):
        told = one.events(symbol=symbol)
        assert set(STREAMER[kind].events) <= set(told), kind
        assert told.count("symbol_silent") == told.count("stream_dead") == 1
        assert told.count("repair_postponed") <= 2 * MAX_ATTEMPTS  # two ranges: before, after
    assert "symbol_silence_ended" not in one.events(symbol=GONE)
    silent = {each["symbol"] for each in one.log if each["event"] == "symbol_silent"}
    assert silent == {HALTED, GONE, REUSED}
    reused = next(each for each in one.streamer._aggregators if each.symbol == REUSED)
    assert reused.duplicates == 0
    assert {"trades_missing", "trade_ids_restarted"} & set(one.events(symbol=REUSED))
    assert "stream_disconnected" not in one.events()
