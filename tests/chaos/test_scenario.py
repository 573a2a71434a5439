"""What a seed draws."""

from __future__ import annotations

from collections import Counter

from simulator.faults.kinds import KINDS as ALL_KINDS
from tests.chaos.scenario import (
    BANNED,
    BLOCKED,
    LONG_MINUTES,
    MAX_OF,
    STREAMS_A_CONNECTION,
    WANTED,
    draw,
)
from tests.chaos.stage.strikes import LONGEST_DOWN_S, TARGETS


def test_seed_draws_the_same_run_each_time() -> None:
    assert draw(7, minutes=6, speed=60) == draw(7, minutes=6, speed=60)
    assert draw(7, minutes=6, speed=60) != draw(8, minutes=6, speed=60)


def test_each_run_kills_the_streamer_and_strikes_postgresql_within_its_span() -> None:
    for seed in range(1, 101):
        scenario = draw(seed, minutes=6, speed=60)
        kinds = [strike.kind for strike in scenario.strikes]
        assert "kill" in kinds, seed
        assert any(TARGETS[kind] == "postgres" for kind in kinds), seed
        assert all(0 <= strike.at_us < 360_000_000 for strike in scenario.strikes), seed
        longest_us = LONGEST_DOWN_S * 60 * 1_000_000
        assert all(strike.down_us < longest_us for strike in scenario.strikes), seed


def test_two_hundred_seeds_cover_every_fault() -> None:
    faults: Counter[str] = Counter()
    strikes: Counter[str] = Counter()
    statuses: set[int] = set()
    for seed in range(1, 201):
        scenario = draw(seed, minutes=40, speed=120)
        faults.update(entry["kind"] for entry in scenario.entries)
        statuses |= {one["status"] for one in scenario.entries if one["kind"] == "rest_error"}
        strikes.update(strike.kind for strike in scenario.strikes)
    # Long stops need longer runs, such as those of `make soak`.
    for seed in range(1, 11):
        strikes.update(one.kind for one in draw(seed, minutes=LONG_MINUTES, speed=300).strikes)
    meant = {kind.name for kind in ALL_KINDS.values() if kind.group not in ("dump", "series")}
    assert faults.keys() == meant
    assert strikes.keys() == TARGETS.keys()
    assert statuses == {429, BANNED, BLOCKED, 500, 502, 503, 504}


def test_listing_faults_are_rare_and_with_raw_capture_once_per_symbol() -> None:
    reused_beside_capture = 0
    for seed in range(1, 101):
        scenario = draw(seed, minutes=60, speed=60)
        counts = Counter(entry["kind"] for entry in scenario.entries)
        assert all(counts[kind] <= most for kind, most in MAX_OF.items()), seed
        if scenario.capture:
            reused = [
                f"{entry['market']} {entry['symbols']}"
                for entry in scenario.entries
                if entry["kind"] == "ticker_reuse"
            ]
            assert len(reused) == len(set(reused)), seed
            reused_beside_capture += len(reused)
    assert reused_beside_capture > 10


def test_twenty_seeds_cover_every_way_of_streaming() -> None:
    scenarios = [draw(seed, minutes=5, speed=150) for seed in range(1, 21)]
    assert {one.wanted for one in scenarios} == WANTED.keys()
    assert {one.streams_a_connection for one in scenarios} == set(STREAMS_A_CONNECTION)
    assert {table for one in scenarios for table in one.capture} == {
        "agg_trades",
        "trades",
        "book_tickers",
    }
    assert any(not one.capture for one in scenarios)
    assert {one.is_tls for one in scenarios} == {True, False}
    assert any("new_listing" in {e["kind"] for e in one.entries} for one in scenarios)


def test_some_runs_pass_midnight() -> None:
    passed = 0
    for seed in range(1, 41):
        scenario = draw(seed, minutes=6, speed=60)
        minutes_left = 1_440 - (scenario.clock_start.hour * 60 + scenario.clock_start.minute)
        passed += minutes_left < 12
    assert passed >= 15


def test_basic_plan_has_the_same_faults_without_long_stops_and_limits() -> None:
    for seed in range(40):
        basic = draw(seed, minutes=LONG_MINUTES, speed=300, is_basic=True)
        full = draw(seed, minutes=LONG_MINUTES, speed=300)
        assert basic.entries == full.entries
        further = {"long_stop", "long_outage", "refuse_rows"}
        assert basic.strikes == tuple(one for one in full.strikes if one.kind not in further)
        assert (basic.weight_limit, basic.trades_at_bounds, basic.is_tls) == (None, False, False)
        assert not basic.has_jobs
        assert basic.buffers is None


def test_half_of_the_long_runs_have_jobs() -> None:
    long = sum(draw(seed, minutes=LONG_MINUTES, speed=300).has_jobs for seed in range(100))
    assert 30 < long < 70
    assert not any(draw(seed, minutes=6, speed=60).has_jobs for seed in range(100))
