"""Random fault plans."""

import pytest

from simulator.clock import SECOND_US
from simulator.faults.chance import chosen_kinds, draw_plan
from simulator.faults.kinds import KINDS
from simulator.faults.plan import Fault, PlanError, parse_plan, write_plan

SYMBOLS = {"spot": ("BTCUSDT", "ETHBTC"), "um": ("BTCUSDT",)}
HOUR_US = 3_600 * SECOND_US


def _draw(seed: int, *names: str, rate_per_h: float = 60, hours: int = 10) -> tuple[Fault, ...]:
    return draw_plan(
        seed,
        rate_per_h=rate_per_h,
        span_us=hours * HOUR_US,
        symbols=SYMBOLS,  # type: ignore[arg-type]
        kinds=chosen_kinds(names),
    )


def test_plan_depends_only_on_the_seed() -> None:
    assert _draw(1) == _draw(1)
    assert write_plan(_draw(1)) == write_plan(_draw(1))
    assert _draw(1) != _draw(2)


def test_halts_of_a_symbol_do_not_overlap() -> None:
    ends: dict[tuple[str, str], int] = {}
    halts = [fault for fault in _draw(7, "halt", rate_per_h=40) if fault.kind.name == "halt"]
    assert len(halts) > 50
    for fault in halts:
        place = (fault.markets[0], fault.symbols[0])
        assert fault.at_us > ends.get(place, -1)
        assert fault.end_us is not None
        ends[place] = fault.end_us


def test_plan_has_its_rate_and_span_and_can_be_replayed() -> None:
    faults = _draw(5, "connection", "frame", "rest", "dump")
    assert len(faults) == 600
    times = [fault.at_us for fault in faults]
    assert times == sorted(times)
    assert times[-1] < 10 * HOUR_US
    for hour in range(10):
        assert sum(time // HOUR_US == hour for time in times) == 60
    assert parse_plan(write_plan(faults)) == faults
    assert all(fault.is_offset for fault in faults)


def test_all_kinds_that_keep_the_listings_are_drawn_by_default() -> None:
    drawn = {fault.kind.name for fault in _draw(3, rate_per_h=100)}
    assert drawn == set(KINDS) - {"delisting", "new_listing", "ticker_reuse"}


def test_kinds_are_chosen_by_name_or_group() -> None:
    assert {fault.kind.name for fault in _draw(3, "cut", "rest")} == {
        "cut",
        *(kind.name for kind in KINDS.values() if kind.group == "rest"),
    }
    with pytest.raises(PlanError, match="'explosion' is not a kind of fault; use one of"):
        chosen_kinds(("cut", "explosion"))


def test_delisted_symbols_are_not_hit_again() -> None:
    faults = _draw(9, "market", rate_per_h=10)
    gone: set[tuple[str, str]] = set()
    for fault in faults:
        place = (fault.markets[0], fault.symbols[0])
        assert place not in gone
        if fault.kind.name in ("delisting", "ticker_reuse"):
            gone.add(place)
    assert len(gone) == 3, "each symbol once"


def test_too_many_faults_or_nothing_to_hit_is_refused() -> None:
    with pytest.raises(PlanError, match="lower the rate or the span"):
        _draw(1, rate_per_h=1e6)
    with pytest.raises(PlanError, match="there are none"):
        draw_plan(1, rate_per_h=1, span_us=HOUR_US, symbols={}, kinds=chosen_kinds(()))


def test_random_plan_of_a_replay_hits_connections() -> None:
    faults = draw_plan(
        1, rate_per_h=9, span_us=HOUR_US, symbols={"um": ()}, kinds=chosen_kinds(("cut", "halt"))
    )
    assert {fault.kind.name for fault in faults} == {"cut"}
