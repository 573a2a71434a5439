"""REST fails while the streamer requests minutes that the stream could not prove."""

from __future__ import annotations

import psycopg
import pytest

from include.backoff import Backoff
from simulator.config import SimulatorConfig
from streamer.storage import repair_queue
from tests.integration.faults.matrix_streams import STREAMER
from tests.integration.faults.streaming import Stage, stage

FAULTS: dict[str, dict[str, object]] = {
    "BTCUSDT": {"kind": "rest_lag", "kline_lag_ms": 20_000},
    "ETHUSDT": {"kind": "slow_rest", "delay_s": 1.2, "times": 1},
    "OPUSDT": {"kind": "rest_error", "status": 503, "times": 3},
    "PEPEUSDT": {"kind": "rest_error", "status": 429, "retry_after_s": 1, "times": 1},
    "ETCUSDT": {"kind": "rest_error", "status": 403},
    "TRXUSDT": {"kind": "rest_malformed", "form": "truncated", "times": 2},
    "ATOMUSDT": {"kind": "rest_malformed", "form": "not_json", "times": 2},
    "DOGEUSDT": {"kind": "rest_cut", "times": 2},
    "ETHBTC": {"kind": "rest_stale", "rows": 2},
}
REFUSED = "ETCUSDT"


def has_events(one: Stage, kind: str) -> bool:
    """Whether the matrix's events were logged of symbols of this fault."""
    symbols = {name for name, fault in FAULTS.items() if fault["kind"] == kind}
    return all(
        symbols & {each.get("symbol") for each in one.log if each["event"] == event}
        for event in STREAMER[kind].events
    )


@pytest.mark.asyncio
async def test_minutes_without_klines_come_from_a_faulty_rest(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Backoff(first_s=0.3, max_s=0.3, min_s=0.3)
    monkeypatch.setattr(repair_queue, "REFUSED_BACKOFF", pause)
    config = SimulatorConfig(speed=50, spot_symbols=tuple(FAULTS), um_symbols=())
    symbols = list(FAULTS)
    async with stage(database_url, symbols, config, http_timeout_s=1) as one:
        one.add(
            {"kind": "drop", "market": "spot", "streams": "*@kline_1m", "duration_s": 100,
             "id": "klines"},
            *({"id": name, "symbols": name, **fault} for name, fault in FAULTS.items()),
        )  # fmt: skip
        others = [name for name in symbols if name != REFUSED]
        await one.let_pass(2)
        await one.assert_equals_exchange(others, minutes=3)
        hits = one.hits()
        assert [name for name in symbols if not hits[name]] == []
        for kind in {str(fault["kind"]) for fault in FAULTS.values()}:
            # a row is seen a moment before its repair is logged
            await one.until(lambda kind=kind: has_events(one, kind), f"events of {kind}")
        assert "outage_recorded" not in one.events()
        await refused_minutes_are_repaired_once_the_address_is_served(one)


@pytest.mark.long
@pytest.mark.asyncio
async def test_open_minute_of_a_lagging_server_is_requested_again(
    database_url: str,
) -> None:
    # slow enough that the minute is requested before the server has its end
    config = SimulatorConfig(speed=20, spot_symbols=("BTCUSDT",), um_symbols=())
    async with stage(database_url, ["BTCUSDT"], config) as one:
        one.add(
            {"kind": "drop", "market": "spot", "streams": "*@kline_1m", "duration_s": 70},
            {"kind": "rest_lag", "kline_lag_ms": 90_000, "id": "lag"},
        )
        await one.assert_equals_exchange(minutes=2)
        await one.until(lambda: "minutes_repaired" in one.events(), "a repair")
        assert one.hits()["lag"]
        assert "outage_recorded" not in one.events()


async def refused_minutes_are_repaired_once_the_address_is_served(one: Stage) -> None:
    told = [
        each
        for each in one.log
        if each["event"] == "repair_postponed" and "firewall" in str(each["error"])
    ]
    assert {each["symbol"] for each in told} == {REFUSED}
    with psycopg.connect(one.database_url) as connection:
        gaps = connection.execute("SELECT symbol FROM ops.gaps WHERE repaired_at IS NULL")
        assert REFUSED in {symbol for (symbol,) in gaps.fetchall()}
    one.exchange.faults.remove(REFUSED)
    await one.assert_equals_exchange([REFUSED])
    assert "minutes_not_repaired" not in one.events(symbol=REFUSED)
