"""What a seed draws."""

from __future__ import annotations

from collections import Counter

from simulator.faults.kinds import KINDS as ALL_KINDS
from tests.chaos.scenario import POSTGRES_STRIKES, STREAMER_STRIKES, draw


def test_a_seed_draws_the_same_run_each_time() -> None:
    assert draw(7, minutes=6, speed=60) == draw(7, minutes=6, speed=60)
    assert draw(7, minutes=6, speed=60) != draw(8, minutes=6, speed=60)


def test_each_run_kills_the_streamer_and_strikes_postgresql_within_its_span() -> None:
    for seed in range(1, 101):
        scenario = draw(seed, minutes=6, speed=60)
        kinds = [strike.kind for strike in scenario.strikes]
        assert "kill" in kinds, seed
        assert set(kinds) & set(POSTGRES_STRIKES), seed
        assert all(0 <= strike.at_us < 360_000_000 for strike in scenario.strikes), seed


def test_two_hundred_seeds_have_every_fault_a_streamer_can_meet() -> None:
    faults: Counter[str] = Counter()
    strikes: Counter[str] = Counter()
    for seed in range(1, 201):
        scenario = draw(seed, minutes=6, speed=60)
        faults.update(entry["kind"] for entry in scenario.entries)
        strikes.update(strike.kind for strike in draw(seed, minutes=30, speed=60).strikes)
    met = {
        kind.name
        for kind in ALL_KINDS.values()
        if kind.group != "dump" and kind.name != "new_listing"
    }
    assert faults.keys() == met
    assert strikes.keys() == {*STREAMER_STRIKES, *POSTGRES_STRIKES}


def test_some_runs_pass_midnight() -> None:
    passed = 0
    for seed in range(1, 41):
        scenario = draw(seed, minutes=6, speed=60)
        minutes_left = 1_440 - (scenario.clock_start.hour * 60 + scenario.clock_start.minute)
        passed += minutes_left < 12
    assert passed >= 15
