"""Faults of frames, one frame at a time."""

import json
from typing import Any

import pytest

from simulator.clock import MINUTE_US, SimulatedClock
from simulator.faults.frames import MAX_STREAMS_PER_FAULT, FrameFaults, wrong_kline
from simulator.faults.plan import parse_entry

MINUTE = 30_000_000 * MINUTE_US
STREAM = "btcusdt@aggTrade"
TRADE = (
    '{"e":"aggTrade","E":7,"s":"BTCUSDT","a":5,"p":"1.5","q":"2","f":8,"l":9,"T":6,"m":true,'
    '"M":true}'
)
KLINE = '{"e":"kline","E":7,"s":"BTCUSDT","k":{"t":6,"o":"1","c":"2","x":true}}'


def _faults(*entries: dict[str, Any], max_streams: int = MAX_STREAMS_PER_FAULT) -> FrameFaults:
    clock = SimulatedClock(start_us=MINUTE + 1_000, speed=0)
    faults = FrameFaults(clock, seed=3, max_streams=max_streams)
    for number, entry in enumerate(entries):
        faults.accept(parse_entry(entry).placed(start_us=MINUTE, identity=f"f{number}"))
    return faults


def _pass(
    faults: FrameFaults, due_us: int, *, stream: str = STREAM, text: str = TRADE
) -> list[tuple[int, str]]:
    passed = faults.pass_on("spot", stream, due_us, lambda _unit: [text], due_us)
    return [(later_us, payload) for later_us, _, render in passed for payload in render(1_000)]


def _frames(kind: str, text: str = TRADE, **fields: Any) -> list[str]:
    faults = _faults({"kind": kind, "share": 1, "streams": "*"} | fields)
    return [payload for _, payload in _pass(faults, MINUTE, text=text)]


def test_frames_pass_without_faults_and_outside_their_window() -> None:
    assert _pass(_faults(), MINUTE) == [(MINUTE, TRADE)]
    faults = _faults({"kind": "drop", "at": "+2s", "duration_s": 3})
    for offset, count in ((0, 1), (1_999_999, 1), (2_000_000, 0), (4_999_999, 0), (5_000_000, 1)):
        assert len(_pass(faults, MINUTE + offset)) == count, offset


def test_faults_select_by_market_symbol_and_stream() -> None:
    assert _pass(_faults({"kind": "drop", "market": "um"}), MINUTE)
    assert _pass(_faults({"kind": "drop", "symbols": "ETH*"}), MINUTE)
    assert _pass(_faults({"kind": "drop", "streams": "*@kline_1m"}), MINUTE)
    assert not _pass(_faults({"kind": "drop", "symbols": "btc*", "streams": "*@agg*"}), MINUTE)


def test_duplicates_follow_the_frame_after_their_delay() -> None:
    faults = _faults({"kind": "duplicate", "copies": 2, "delay_ms": 40})
    assert _pass(faults, MINUTE) == [
        (MINUTE, TRADE),
        (MINUTE + 40_000, TRADE),
        (MINUTE + 80_000, TRADE),
    ]


def test_late_fault_hits_trades_at_the_minutes_end() -> None:
    faults = _faults({"kind": "late", "within_ms": 1_000, "delay_ms": 1_500})
    end = MINUTE + MINUTE_US
    assert _pass(faults, end - 1_000_001) == [(end - 1_000_001, TRADE)]
    assert _pass(faults, end - 1_000_000) == [(end + 1_500_000, TRADE)]
    assert _pass(faults, end - 1) == [(end + 1_500_000, TRADE)]
    assert _pass(faults, end) == [(end, TRADE)]
    fault = parse_entry({"kind": "late"}).placed(start_us=0, identity="f0")
    assert faults.hits(fault) == 2


def test_share_hits_the_same_frames_for_every_listener() -> None:
    def lost(first: int) -> set[int]:
        faults = _faults({"kind": "drop", "share": 0.3})
        return {due for due in range(MINUTE + first, MINUTE + 5_000) if not _pass(faults, due)}

    assert 1_300 < len(lost(0)) < 1_700
    assert lost(2_000) == {due for due in lost(0) if due >= MINUTE + 2_000}


def test_kline_lag_keeps_order_and_does_not_hit_trades() -> None:
    faults = _faults({"kind": "kline_lag", "lag_ms": 3_000, "streams": "*"})
    assert _pass(faults, MINUTE, stream="btcusdt@kline_1m") == [(MINUTE + 3_000_000, TRADE)]
    assert _pass(faults, MINUTE) == [(MINUTE, TRADE)]


FINAL_KLINE: dict[str, Any] = {
    "e": "kline", "s": "BTCUSDT",
    "k": {"x": True, "n": 3, "o": "2", "c": "3", "h": "4", "l": "1", "v": "0.10", "q": "0.25"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("form", "changed"),
    [("volume", {"v": "0.20", "q": "0.50"}), ("close", {"c": "1"}), ("trades", {"n": 2})],
)
def test_wrong_kline_changes_final_klines_with_trades_only(
    form: str, changed: dict[str, object]
) -> None:
    wrong = json.loads(wrong_kline(json.dumps(FINAL_KLINE), form))
    assert wrong == FINAL_KLINE | {"k": {**FINAL_KLINE["k"], **changed}}
    for other in ({"x": False}, {"n": 0}):
        text = json.dumps(FINAL_KLINE | {"k": {**FINAL_KLINE["k"], **other}})
        assert wrong_kline(text, form) == text
    assert wrong_kline(TRADE, form) == TRADE


@pytest.mark.parametrize("form", ["volume", "close", "trades"])
@pytest.mark.parametrize("broken", ["missing_field", "wrong_type", "truncated"])
def test_wrong_kline_leaves_a_payload_that_another_fault_broke(form: str, broken: str) -> None:
    clock = SimulatedClock(start_us=0, speed=0)
    faults = FrameFaults(clock, seed=1)
    for number, entry in enumerate(
        ({"kind": "malformed", "form": broken, "replaces": True, "share": 1},
         {"kind": "wrong_kline", "form": form}),
    ):  # fmt: skip
        faults.accept(parse_entry(entry).placed(start_us=0, identity=f"f{number}"))
    payload = json.dumps(FINAL_KLINE)
    ((_, _, render),) = faults.pass_on("spot", "btcusdt@kline_1m", 5, lambda _: [payload], 5)
    assert render(1_000) != [payload]


def test_void_trade_has_the_id_of_the_real_one_after_it() -> None:
    void, true = _frames("void")
    assert true == TRADE
    fields = json.loads(void)
    assert (fields["a"], fields["p"], fields["q"], fields["f"], fields["l"]) == (
        5,
        "0",
        "0",
        -1,
        -1,
    )
    assert _frames("void", replaces=True) == [void]
    faults = _faults({"kind": "void", "share": 1, "streams": "*"})
    kept = _pass(faults, MINUTE, stream="btcusdt@kline_1m", text=KLINE)
    assert kept == [(MINUTE, KLINE)]


def test_end_after_the_window_has_no_effect() -> None:
    faults = _faults({"kind": "drop", "duration_s": 3})
    assert _pass(faults, MINUTE + 5 * MINUTE_US)
    assert faults.is_idle
    faults.end(parse_entry({"kind": "drop", "duration_s": 3}).placed(start_us=0, identity="f0"))
    assert faults.is_idle


@pytest.mark.parametrize("form", ["truncated", "not_json"])
def test_malformed_frame_is_not_json(form: str) -> None:
    broken, true = _frames("malformed", form=form)
    assert true == TRADE
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        json.loads(broken)


@pytest.mark.parametrize("text", [TRADE, KLINE])
@pytest.mark.parametrize("form", ["missing_field", "wrong_type"])
def test_malformed_frame_can_be_json_without_a_field(form: str, text: str) -> None:
    (broken,) = _frames("malformed", text, form=form, replaces=True)
    wrong, right = json.loads(broken), json.loads(text)
    inner = "k" if "k" in right else None
    wrong, right = (wrong[inner], right[inner]) if inner else (wrong, right)
    if form == "missing_field":
        assert len(set(right) - set(wrong)) == 1
    else:
        assert any(type(wrong[name]) is not type(right[name]) for name in right)


def test_unknown_frames_precede_real_ones_and_new_fields_are_added() -> None:
    event, true = _frames("unknown")
    assert json.loads(event)["e"] == "solarEclipse"
    assert true == TRADE
    assert _frames("unknown", form="array") == ["[1,2,3]", TRADE]
    (extended,) = _frames("unknown", form="field")
    assert json.loads(extended) == json.loads(TRADE) | {"zz": {"new": True}}


def test_faults_combine_and_end_on_removal() -> None:
    faults = _faults({"kind": "duplicate"}, {"kind": "reorder", "share": 1, "delay_ms": 200})
    assert _pass(faults, MINUTE) == [(MINUTE + 200_000, TRADE)] * 2
    first = parse_entry({"kind": "duplicate"}).placed(start_us=MINUTE, identity="f0")
    assert faults.hits(first) == 1
    faults.end(first)
    assert len(_pass(faults, MINUTE + 999)) == 2, (
        "due before the end, whenever the scheduler gets there"
    )
    assert len(_pass(faults, MINUTE + 1_000)) == 1
    assert len(_pass(faults, MINUTE + 2 * MINUTE_US)) == 1
    assert len(_pass(faults, MINUTE)) == 1, "and it is forgotten then"


CHANGES: list[dict[str, Any]] = [
    {"kind": "void"},
    *({"kind": "malformed", "form": f} for f in ("truncated", "not_json")),
    *({"kind": "malformed", "form": f} for f in ("missing_field", "wrong_type")),
    *({"kind": "unknown", "form": f} for f in ("event", "field", "array")),
]


@pytest.mark.parametrize("text", [TRADE, KLINE])
@pytest.mark.parametrize("second", CHANGES)
@pytest.mark.parametrize("first", CHANGES)
def test_frame_may_be_changed_twice(
    first: dict[str, Any], second: dict[str, Any], text: str
) -> None:
    """A later fault passes on what an earlier one made unreadable."""
    faults = _faults(*({"share": 1, "streams": "*"} | one for one in (first, second)))
    assert _pass(faults, MINUTE, text=text)


def test_memory_per_stream_is_bounded_without_changing_draws() -> None:
    def drawn(remembered: int) -> tuple[list[int], int]:
        faults = _faults({"kind": "drop", "share": 0.5}, max_streams=remembered)
        most = 0
        left = []
        for moment in range(200):
            for _ in range(3):  # frames with equal due times
                for symbol in range(2):
                    stream = f"s{10 * moment + symbol}usdt@trade"
                    left.append(len(_pass(faults, MINUTE + moment, stream=stream)))
                    most = max(most, len(faults._rules["f0"].latest))
        return left, most

    few, most = drawn(10)
    assert most <= 10
    assert (few, 400) == drawn(100_000)
    assert 400 < sum(few) < 800
