"""Recordings of the simulated market."""

import gzip
import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from simulator.clock import to_us
from simulator.config import SimulatorConfig
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.replay.recorded_frames import read_frames
from simulator.replay.recorder import due_frames, record
from simulator.replay.recording import scan_recording
from simulator.streams.feeds.catalogue import open_feed

START = datetime(2026, 1, 5, tzinfo=UTC)
STREAMS = ("btcusdt@aggTrade", "ethusdt@trade", "btcusdt@kline_1m")


def _config(path: Path, **changes: object) -> SimulatorConfig:
    config = SimulatorConfig(
        seed=4, record_file=path, record_streams=STREAMS,
        record_from=START, record_until=START + timedelta(minutes=10),
    )  # fmt: skip
    return replace(config, **changes)


@pytest.mark.parametrize("unit_us", [1, 1_000])
def test_recording_has_the_frames_of_each_stream_in_order(tmp_path: Path, unit_us: int) -> None:
    path = tmp_path / "frames"
    recorded = record(_config(path, record_unit_us=unit_us))
    frames = list(read_frames(path))
    assert recorded.frames == len(frames) > 1_000
    assert recorded.bytes == path.stat().st_size
    times = [frame.received_ns for frame in frames]
    assert times == sorted(times)
    begin_us = to_us(START)
    market = SimulatedMarket(
        select_instruments("spot", ("BTCUSDT", "ETHUSDT"), seed=4),
        seed=4,
        start_us=begin_us - 3 * 86_400 * 10**6,
    )
    for stream in STREAMS:
        feed = open_feed(market, stream, begin_us, seed=4)
        assert feed is not None
        due = itertools.takewhile(lambda entry: entry[0] < begin_us + 600 * 10**6, feed)
        wanted = [(at_us, text.encode()) for at_us, render in due for text in render(unit_us)]
        got = [(f.received_ns // 1_000, f.payload) for f in frames if f.stream == stream]
        assert got == wanted


def test_recordings_are_reproducible_also_gzipped(tmp_path: Path) -> None:
    one, other, plain = (tmp_path / name for name in ("a.gz", "b.gz", "c.txt"))
    for path in (one, other, plain):
        record(_config(path))
    assert one.read_bytes() == other.read_bytes()
    assert gzip.decompress(one.read_bytes()) == plain.read_bytes()


def test_consecutive_recordings_join_without_a_gap(tmp_path: Path) -> None:
    middle = START + timedelta(minutes=4)
    record(_config(tmp_path / "all", start=START - timedelta(days=1)))
    record(_config(tmp_path / "a", start=START - timedelta(days=1), record_until=middle))
    record(_config(tmp_path / "b", start=START - timedelta(days=1), record_from=middle))
    whole = (tmp_path / "all").read_text()
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == whole


def test_klines_of_a_recording_equal_the_markets(tmp_path: Path) -> None:
    path = tmp_path / "frames.gz"
    config = _config(path, record_streams=("btcusdt@trade",), replay_market="um")
    record(replace(config, um_symbols=("BTCUSDT",)))
    recording = scan_recording([path], "um")
    trades = recording.trades["BTCUSDT"].columns
    market = SimulatedMarket(
        select_instruments("um", ("BTCUSDT",), seed=4),
        seed=4,
        start_us=to_us(START) - 3 * 86_400 * 10**6,
    )
    minute = to_us(START) // 60_000_000 + 5
    klines = market.history("BTCUSDT").kline_columns(minute, minute + 1)
    inside = (trades.time_us // 60_000_000) == minute
    assert int(klines.trade_count[0]) == int(inside.sum())
    ids = trades.first_id[inside]
    assert (int(klines.first_id[0]), int(klines.last_id[0])) == (int(ids[0]), int(ids[-1]))


def test_unknown_stream_is_refused_and_no_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.write_text("kept")
    with pytest.raises(ValueError, match="no stream 'nobody@aggTrade'"):
        record(_config(path, record_streams=("btcusdt@trade", "nobody@aggTrade")))
    assert path.read_text() == "kept"
    assert [one.name for one in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize(
    "changes",
    [{"record_until": START}, {"start": START + timedelta(minutes=1)}],
    ids=["no span", "before the market"],
)
def test_times_out_of_order_are_refused(tmp_path: Path, changes: dict[str, datetime]) -> None:
    with pytest.raises(ValueError, match="start, from, until"):
        record(_config(tmp_path / "frames", **changes))


def test_frames_due_together_are_ordered_by_stream() -> None:
    market = SimulatedMarket(
        select_instruments("um", ("BTCUSDT", "ETHUSDT"), seed=1), seed=1, start_us=to_us(START)
    )
    streams = ("ethusdt@aggTrade", "btcusdt@aggTrade")
    span = {"from_us": to_us(START), "until_us": to_us(START) + 60 * 10**6}
    frames = due_frames(market, streams, **span, unit_us=1_000, seed=1)
    entries = [(due_us, streams.index(json.loads(text)["stream"])) for due_us, text in frames]
    assert entries == sorted(entries)
    assert len({due_us for due_us, _ in entries}) < len(entries)  # USD-M bundles do meet
