"""Scanning recordings."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from simulator.replay.recording import scan_recording


def _line(at_ns: int, stream: str, **data: Any) -> str:
    return f"{at_ns} " + json.dumps({"stream": stream, "data": data}, separators=(",", ":"))


def _trade(number: int, time_ms: int, **changes: Any) -> str:
    data = {"e": "trade", "E": time_ms, "s": "XUSDT", "t": number, "p": "1.50", "q": "2.0",
            "T": time_ms, "m": False} | changes  # fmt: skip
    return _line(time_ms * 10**6, "xusdt@trade", **data)


def _write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_trades_that_klines_omit_and_duplicates_are_left_out(tmp_path: Path) -> None:
    minute = 1_700_000_040_000
    path = _write(
        tmp_path / "f",
        _trade(7, minute),
        _trade(8, minute + 1, p="0", q="0", X="NA"),
        _trade(9, minute + 2, p="9.5", X="INSURANCE_FUND"),
        _trade(10, minute + 2, q="0.125", m=True, X="MARKET"),
        _trade(7, minute + 3),
        _line((minute + 70_000) * 10**6, "xusdt@bookTicker", e="bookTicker", E=minute + 70_000),
    )
    recording = scan_recording([path], "um")
    trades = recording.trades["XUSDT"]
    assert trades.columns.first_id.tolist() == [7, 10]
    instrument = trades.instrument
    assert [instrument.format_price(p) for p in trades.columns.price.tolist()] == ["1.50", "1.50"]
    assert [instrument.format_quantity(q) for q in trades.columns.quantity.tolist()] == [
        "2.000", "0.125",
    ]  # fmt: skip
    assert Decimal(instrument.format_quote(int(trades.columns.quote.sum()))) == Decimal("3.1875")
    assert (recording.frame_count, recording.last_event_us) == (6, (minute + 70_000) * 1_000)


def test_only_completely_recorded_minutes_count(tmp_path: Path) -> None:
    minute_ms = 1_700_000_040_000
    assert minute_ms % 60_000 == 0
    path = _write(tmp_path / "f", _trade(1, minute_ms + 1), _trade(2, minute_ms + 200_000))
    recording = scan_recording([path], "spot")
    first = minute_ms // 60_000 + 1
    assert recording.complete_minutes(recording.last_event_us) == (first, first + 2)
    assert recording.complete_minutes((minute_ms + 130_000) * 1_000) == (first, first + 1)
    assert recording.complete_minutes(minute_ms * 1_000) == (first, first)


def test_agg_trades_count_their_fills(tmp_path: Path) -> None:
    data = {"e": "aggTrade", "E": 1_700_000_000_001, "s": "XUSDT", "a": 5, "p": "2", "q": "3",
            "f": 10, "l": 12, "T": 1_700_000_000_000, "m": True}  # fmt: skip
    path = _write(tmp_path / "f", _line(1_700_000_000_001_000_000, "xusdt@aggTrade", **data))
    trades = scan_recording([path], "spot").trades["XUSDT"]
    assert trades.is_aggregated
    assert trades.columns.fills.tolist() == [3]
    assert trades.columns.last_id.tolist() == [12]


@pytest.mark.parametrize("text", ["1e5", "-1", "1.123456789", ""])
def test_price_other_than_a_plain_decimal_is_refused(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path / "f", _trade(1, 1_700_000_040_000, p=text))
    with pytest.raises(
        ValueError, match=r"f: the frame of xusdt@trade received at 17\d+ ns.*not a dec"
    ):
        scan_recording([path], "spot")


def test_trade_with_wrong_types_is_reported(tmp_path: Path) -> None:
    path = _write(tmp_path / "f", _trade(1, 1_700_000_040_000, T="soon"))
    with pytest.raises(ValueError, match=r"frame of xusdt@trade .*`int`, got `str`"):
        scan_recording([path], "spot")


def test_prepared_blocks_stay_within_the_memory_limit(tmp_path: Path) -> None:
    lines = [_trade(number, 1_700_000_040_000 + number) for number in range(9_000)]
    lines.append(_line(1_700_000_100_000 * 10**6, "xusdt@bookTicker", u=1))
    path = _write(tmp_path / "f", *lines)
    unprepared = scan_recording([path], "spot")
    everything = scan_recording([path], "spot", memory_bytes=1 << 30)
    assert (unprepared.prepared, everything.prepared_count) == ((), 9_001)
    first, *later = everything.prepared
    assert later
    assert scan_recording([path], "spot", memory_bytes=1_000).prepared == ()
    bound = first.memory_bytes + later[0].memory_bytes - 1
    some = scan_recording([path], "spot", memory_bytes=bound)
    assert [block.wire for block in some.prepared] == [first.wire]
    # streams beyond the prepared blocks are known, too
    assert some.streams == ("xusdt@trade", "xusdt@bookTicker")
