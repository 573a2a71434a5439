"""Broken frames on their way to the streamer: each fault on a symbol of its own."""

from __future__ import annotations

import pytest

from include.store.postgres.pools import connect
from simulator.config import SimulatorConfig
from tests.integration.faults.matrix_streams import STREAMER
from tests.integration.faults.streaming import Stage, stage

MINUTES = 3

FAULTS: dict[str, dict[str, object]] = {
    "BTCUSDT": {"kind": "duplicate", "share": 0.5, "copies": 2, "delay_ms": 40},
    "ETHUSDT": {"kind": "reorder", "share": 0.2, "delay_ms": 1_000},
    "OPUSDT": {"kind": "late", "within_ms": 10_000},
    "PEPEUSDT": {"kind": "drop", "share": 0.2, "streams": "*@aggTrade"},
    "ETHBTC": {"kind": "drop", "streams": "*@kline_1m"},
    "SHIBUSDT": {"kind": "drop", "streams": "*@aggTrade"},
    "ETCUSDT": {"kind": "void", "share": 0.2},
    "TRXUSDT": {"kind": "void", "share": 0.2, "replaces": True},
    "ATOMUSDT": {"kind": "malformed", "form": "truncated", "share": 0.2, "replaces": True},
    "DOGEUSDT": {"kind": "malformed", "form": "not_json", "share": 0.2},
    "BTCUSDT.P": {"kind": "malformed", "form": "missing_field", "share": 0.2},
    "ETHUSDT.P": {"kind": "malformed", "form": "wrong_type", "share": 0.2, "replaces": True},
    "ADAUSDT": {"kind": "unknown", "form": "event", "share": 0.5},
    "UNIUSDT": {"kind": "unknown", "form": "field", "share": 1},
    "LTCUSDT": {"kind": "unknown", "form": "array", "share": 1},
    "OPUSDT.P": {"kind": "kline_lag", "lag_ms": 1_500},
    "PEPEUSDT.P": {"kind": "kline_lag", "lag_ms": 6_000},
}
SPOT = tuple(name for name in FAULTS if not name.endswith(".P"))
UM = tuple(name.removesuffix(".P") for name in FAULTS if name.endswith(".P"))


def entry(symbol: str, fault: dict[str, object]) -> dict[str, object]:
    return {
        "id": symbol,
        "market": "um" if symbol.endswith(".P") else "spot",
        "symbols": symbol.removesuffix(".P"),
        "duration_s": 60 * MINUTES,
        **fault,
    }


def has_events(one: Stage, kind: str) -> bool:
    """Whether the matrix's events were logged; of symbols of this fault, if they name one."""
    symbols = {name for name, fault in FAULTS.items() if fault["kind"] == kind}
    return all(
        any(
            each["event"] == event and each.get("symbol", next(iter(symbols))) in symbols
            for each in one.log
        )
        for event in STREAMER[kind].events
    )


@pytest.mark.asyncio
async def test_every_minute_equals_the_exchange_after_frame_faults(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=50, spot_symbols=SPOT, um_symbols=UM)
    async with stage(database_url, list(FAULTS), config) as one:
        one.add(*(entry(name, fault) for name, fault in FAULTS.items()))
        await one.let_pass(MINUTES)
        await one.assert_equals_exchange(minutes=2)
        hits = one.hits()
        assert [symbol for symbol in FAULTS if not hits[symbol]] == []
        for kind in {str(fault["kind"]) for fault in FAULTS.values()}:
            await one.until(lambda kind=kind: has_events(one, kind), f"events of {kind}")
        by_symbol = {each.symbol: each for each in one.streamer._aggregators}
        assert by_symbol["BTCUSDT"].duplicates > 0
        assert by_symbol["ETHUSDT"].ids.overtaken > 0
        assert by_symbol["ETCUSDT"].void_trades > 0
        quiet = {"trades_missing", "kline_differs", "stream_dead"}
        for symbol in ("BTCUSDT", "ETCUSDT", "DOGEUSDT", "ADAUSDT", "UNIUSDT", "LTCUSDT"):
            assert not quiet & set(one.events(symbol=symbol)), symbol  # nothing true was lost
        assert not any(feed.connection.reconnects for feed in one.streamer.telemetry.feeds)


WRONG_KLINES: dict[str, dict[str, object]] = {
    "BTCUSDT": {"kind": "wrong_kline", "form": "volume"},
    "ETHUSDT": {"kind": "wrong_kline", "form": "close"},
    "PEPEUSDT": {"kind": "wrong_kline", "form": "trades"},
}


@pytest.mark.long
async def test_rest_decides_where_a_final_kline_contradicts_the_trades(
    database_url: str,
) -> None:
    config = SimulatorConfig(speed=50, spot_symbols=tuple(WRONG_KLINES), um_symbols=())
    async with stage(database_url, list(WRONG_KLINES), config) as one:
        one.add(*(entry(name, fault) for name, fault in WRONG_KLINES.items()))
        await one.let_pass(MINUTES)
        await one.assert_equals_exchange(minutes=2)
        for symbol in WRONG_KLINES:
            assert set(one.events(symbol=symbol)) >= set(STREAMER["wrong_kline"].events)
            assert sources_above_klines(database_url, symbol) == {"rest"}


def sources_above_klines(database_url: str, symbol: str) -> set[str]:
    """The sources of the rows to which a closed kline has lost."""
    with connect(database_url, application_name="test") as connection:
        found = connection.execute(
            "SELECT DISTINCT winner_source FROM ops.discrepancies"
            " WHERE symbol = %s AND loser_source = 'kline'",
            (symbol,),
        ).fetchall()
    return {source for (source,) in found}
