"""Fault plans at start-up, from files and random ones."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from simulator.config import SimulatorConfig
from simulator.faults.plan import PlanError, load_plan, parse_plan
from simulator.server import Exchange
from tests.integration.simulator.command_line import exit_code

NOON = datetime(2026, 2, 3, 12, 0, 0, tzinfo=UTC)
SMALL = ("--symbols", "BTCUSDT", "--um-symbols", "BTCUSDT")


def _plan(tmp_path: Path, *entries: dict[str, object]) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(entries))
    return path


async def test_offsets_in_a_plan_file_count_from_the_clocks_start(tmp_path: Path) -> None:
    path = _plan(tmp_path, {"kind": "cut", "at": "+1h"}, {"kind": "halt", "market": "um",
                 "symbols": "*", "at": "+10m", "duration_s": 60})  # fmt: skip
    config = SimulatorConfig(clock_start=NOON, speed=0, fault_file=path)
    async with Exchange(config) as exchange:
        listed = exchange.faults.listed()
        assert [entry["at"][:16] for entry in listed] == ["2026-02-03T13:00", "2026-02-03T12:10"]
        halted_us = exchange.clock.now_us() + 630 * 1_000_000
        assert not exchange.markets["um"].history("BTCUSDT").is_trading(halted_us)


async def test_random_plan_is_exported_and_replayed_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "drawn.json"
    drawn = SimulatorConfig(
        clock_start=NOON, speed=0, fault_seed=8, fault_rate_per_h=4, fault_export=path
    )
    first = Exchange(drawn)
    again = Exchange(SimulatorConfig(clock_start=NOON, speed=0, fault_file=path))
    assert len(load_plan(path)) > 90
    assert parse_plan(first.faults.plan()) == parse_plan(again.faults.plan())


async def test_exchange_survives_a_random_plan_of_every_kind() -> None:
    config = SimulatorConfig(
        clock_start=NOON, speed=400, fault_seed=11, fault_rate_per_h=900, fault_span_h=0.25,
        fault_kinds=("connection", "frame", "market", "rest", "dump"),
    )  # fmt: skip
    async with Exchange(config) as exchange:
        until_us = exchange.clock.now_us() + 16 * 60 * 1_000_000
        names = "btcusdt@aggTrade/btcusdt@kline_1m/ethusdt@trade"
        frames = 0
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while exchange.clock.now_us() < until_us:
                try:
                    async with connect(
                        f"{exchange.spot_ws_url}/stream?streams={names}", close_timeout=0.1
                    ) as ws:
                        while exchange.clock.now_us() < until_us:
                            async with asyncio.timeout(0.5):
                                await ws.recv()
                            frames += 1
                except (ConnectionClosed, InvalidHandshake, TimeoutError, OSError):
                    await asyncio.sleep(0.01)
            states = [entry["state"] for entry in exchange.faults.listed()]
            assert (await client.get(f"{exchange.control_url}/sim/clock")).status_code == 200
        assert len(states) > 150
        assert "scheduled" not in states
        assert frames > 100
        exchange_parts = asyncio.ensure_future(exchange.wait())
        await asyncio.sleep(0)
        assert not exchange_parts.done(), "no part has failed"
        exchange_parts.cancel()


def test_replay_refuses_faults_that_need_a_market(tmp_path: Path) -> None:
    recording = tmp_path / "frames"
    recording.write_text(
        '1700000000000000000 {"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000000,'
        '"s":"BTCUSDT","t":1,"p":"1","q":"1","T":1700000000000,"m":true,"M":true}}\n'
    )
    path = _plan(tmp_path, {"kind": "cut", "at": "+1h"}, {"kind": "drop"})
    config = SimulatorConfig(replay_files=(recording,), fault_file=path)
    with pytest.raises(PlanError, match=r"plan\.json: entry 2: drop needs a simulated market"):
        Exchange(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--faults", "{missing}"), "cannot read the fault plan"),
        (("--faults", "{wrong}"), "entry 1 (drop): share is 7; it must be a number from 0 to 1"),
        (("--faults", "{late}"), "in the exchange's past"),
        (("--fault-seed", "1", "--fault-kinds", "bang"), "'bang' is not a kind of fault"),
        (("--fault-seed", "1", "--fault-export", "{missing}/x"), "cannot write the fault plan"),
        (("--fault-seed", "1", "--fault-rate-per-h", "-1"), "--fault-rate-per-h is -1"),
    ],
)
def test_wrong_plan_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "wrong.json").write_text('[{"kind": "drop", "share": 7}]')
    (tmp_path / "late.json").write_text(
        '[{"kind": "halt", "market": "spot", "symbols": "*", "at": "2020-01-01T00:00:00Z"}]'
    )
    paths = {name: str(tmp_path / f"{name}.json") for name in ("missing", "wrong", "late")}
    assert exit_code(*SMALL, *(option.format(**paths) for option in options)) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
