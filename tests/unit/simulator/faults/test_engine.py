"""State of the fault engine after faults have ended."""

from simulator.clock import SECOND_US, SimulatedClock
from simulator.faults.engine import FaultEngine
from simulator.faults.rules import RuleFaults, rest_rules
from simulator.rest.faults import RestFaults

START_US = 1_790_000_000 * SECOND_US


def _engine() -> tuple[FaultEngine, RestFaults]:
    board = RestFaults()
    clock = SimulatedClock(start_us=START_US, speed=0)
    return FaultEngine(clock, {"rest": RuleFaults(board, rest_rules)}), board


def test_removed_faults_leave_nothing_scheduled() -> None:
    engine, _ = _engine()
    engine.add({"kind": "rest_cut", "id": "stays", "at": "+2h"})
    for _ in range(300):
        (later,) = engine.add({"kind": "rest_cut", "at": "+1h", "duration_s": 60})
        (now,) = engine.add({"kind": "rest_cut", "duration_s": 3_600})
        engine.remove(later)
        engine.remove(now)
    assert [entry.identity for _, _, entry, _ in engine._due] == ["stays"]


def test_spent_faults_leave_nothing_scheduled() -> None:
    engine, board = _engine()
    engine.add([{"kind": "rest_cut", "times": 1, "duration_s": 3_600}] * 3)
    assert len(board.effects("spot", "klines", "BTCUSDT")) == 3
    assert {one["state"] for one in engine.listed()} == {"finished"}
    assert engine._due == []
