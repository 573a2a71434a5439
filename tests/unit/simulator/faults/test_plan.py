"""Fault plans: accepted entries, and messages about wrong ones."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.clock import SECOND_US, to_us
from simulator.faults.kinds import KINDS, FaultKind
from simulator.faults.plan import (
    Fault,
    PlanError,
    load_plan,
    parse_entry,
    parse_plan,
    write_plan,
)


def _smallest(kind: FaultKind) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": kind.name}
    if kind.group in ("market", "series"):
        entry |= {"market": "um", "symbols": ["BTCUSDT"]}
    return entry


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_each_kind_needs_only_its_required_fields_and_round_trips(
    kind: FaultKind,
) -> None:
    fault = parse_entry(_smallest(kind))
    assert fault.kind is kind
    assert set(fault.parameters) == {parameter.name for parameter in kind.parameters}
    assert parse_plan(write_plan([fault])) == (fault,)


def test_offsets_and_times_are_exact() -> None:
    offset = parse_entry({"kind": "cut", "at": "+1.5m"})
    assert (offset.at_us, offset.is_offset) == (90 * SECOND_US, True)
    assert parse_entry({"kind": "cut", "at": "+0.000001s"}).at_us == 1
    fixed = parse_entry({"kind": "cut", "at": "2026-01-31T12:00:00.25Z"})
    moment = to_us(datetime(2026, 1, 31, 12, tzinfo=UTC)) + 250_000
    assert (fixed.at_us, fixed.is_offset) == (moment, False)
    placed = offset.placed(start_us=moment, identity="f1")
    assert (placed.at_us, placed.id, placed.is_offset) == (moment + 90 * SECOND_US, "f1", False)
    assert fixed.placed(start_us=5, identity="f2").at_us == moment


def test_fault_matches_symbols_and_streams() -> None:
    late = parse_entry({"kind": "late", "symbols": "eth*"})
    assert late.hits_stream("ethbtc@aggTrade")
    assert not late.hits_stream("ethbtc@kline_1m"), "trades alone, where no streams are named"
    assert not late.hits_stream("btcusdt@aggTrade")
    lag = parse_entry({"kind": "kline_lag", "streams": ["btcusdt@kline_1m", "*@kline_1h"]})
    assert lag.hits_stream("ethusdt@kline_1h")
    assert not lag.hits_stream("ethusdt@kline_1m")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "must be an object"),
        ({}, "kind is null; it must be one of cut,"),
        ({"kind": "explode"}, 'kind is "explode"; it must be one of cut,'),
        ({"kind": "cut", "duration_s": 3}, "no field 'duration_s'"),
        (
            {"kind": "drop", "shar": 1},
            "no field 'shar'; allowed are at, duration_s, id, kind, market",
        ),
        ({"kind": "drop", "share": 1.5}, "share is 1.5; it must be a number from 0 to 1"),
        ({"kind": "drop", "share": True}, "share is true; it must be a number"),
        ({"kind": "drop", "share": float("nan")}, "share is NaN"),
        (
            {"kind": "slow_rest", "delay_s": 601},
            "delay_s is 601; it must be a number from 0 to 600",
        ),
        ({"kind": "slow_download", "delay_s": 601}, "delay_s is 601; it must be a number"),
        ({"kind": "duplicate", "copies": 1.5}, "copies is 1.5; it must be an integer from 1"),
        ({"kind": "void", "replaces": "no"}, 'replaces is "no"; it must be true or false'),
        ({"kind": "malformed", "form": "odd"}, 'form is "odd"; it must be one of truncated'),
        ({"kind": "drop", "duration_s": 0}, "duration_s is 0; it must be a number"),
        ({"kind": "drop", "at": "soon"}, 'at is "soon"; it must be a time like'),
        ({"kind": "drop", "at": "+4000d"}, "it must be within ten years"),
        ({"kind": "drop", "at": 5}, "at is 5; it must be a time like"),
        (
            {"kind": "drop", "market": "xm"},
            "market is \"xm\"; it must be 'spot', 'um', 'cm' or 'all'",
        ),
        ({"kind": "halt", "symbols": ["A"]}, "market is null; it must be 'spot', 'um' or 'cm'"),
        ({"kind": "halt", "market": "spot"}, "symbols is missing"),
        ({"kind": "drop", "symbols": []}, "symbols is []; it must be a pattern"),
        ({"kind": "drop", "symbols": [3]}, "symbols is [3]; it must be a pattern"),
        ({"kind": "drop", "id": "a b"}, 'id is "a b"; it must be 1 to 64'),
        (
            {"kind": "new_listing", "market": "spot", "symbols": "NEW*"},
            'symbols holds "NEW*"; a new listing needs full names',
        ),
        ({"kind": "rest_error", "status": 200}, "status is 200; it must be an integer from 400"),
    ],
)
def test_wrong_entry_is_refused_with_field_value_and_allowed_values(
    entry: object, message: str
) -> None:
    with pytest.raises(PlanError) as caught:
        parse_entry(entry, where="plan.json, entry 2")
    assert message in str(caught.value)
    assert str(caught.value).startswith("plan.json, entry 2")


def test_wrong_file_is_refused_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    with pytest.raises(PlanError, match=r"cannot read the fault plan .*none\.json"):
        load_plan(missing)
    plan = tmp_path / "plan.json"
    for text, message in (
        ("[{]", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "must be a list"),
        ('[{"kind": "cut"}, {"kind": "cutt"}]', "entry 2: kind is"),
        ('[{"kind": "cut", "id": "a"}, {"kind": "drop", "id": "a"}]', "id 'a' is used twice"),
    ):
        plan.write_text(text)
        with pytest.raises(PlanError, match=message) as caught:
            load_plan(plan)
        assert str(plan) in str(caught.value)


@given(
    name=st.sampled_from(sorted(KINDS)),
    at_us=st.integers(0, 3 * 10**14),
    duration_us=st.integers(1, 10**13),
    symbols=st.lists(st.sampled_from(["BTCUSDT", "ETH*", "*"]), min_size=1, unique=True),
)
def test_any_plan_round_trips(name: str, at_us: int, duration_us: int, symbols: list[str]) -> None:
    kind = KINDS[name]
    entry = _smallest(kind) | {"at": f"+{at_us // SECOND_US}.{at_us % SECOND_US:06d}s"}
    if kind.lasts:
        entry["duration_s"] = duration_us / SECOND_US
    if "symbols" in kind.selectors and kind.name != "new_listing":
        entry["symbols"] = symbols
    fault = parse_entry(entry)
    assert fault.at_us == at_us
    assert parse_plan(write_plan([fault, fault])) == (fault, fault)
    placed: Fault = fault.placed(start_us=to_us(datetime(2026, 5, 1, tzinfo=UTC)), identity="x")
    assert parse_plan(write_plan([placed])) == (placed,)
    assert json.loads(write_plan([placed]))[0]["id"] == "x"
