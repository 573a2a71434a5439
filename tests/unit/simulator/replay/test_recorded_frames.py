"""Lines of recordings."""

import gzip
import json
from pathlib import Path

import pytest

from simulator.replay.recorded_frames import event_time_us, merge_frames, read_frames


def _line(at_ns: int, stream: str) -> str:
    return f"{at_ns} " + json.dumps({"stream": stream, "data": {}}, separators=(",", ":"))


def _write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_both_formats_give_the_same_frames(tmp_path: Path) -> None:
    frame = '{"stream":"a@trade","data":{"e":"trade","E":1}}'
    nanoseconds = _write(tmp_path / "a", f"1617566591326123000 {frame}")
    seconds = tmp_path / "b.gz"
    seconds.write_bytes(gzip.compress(f"wss://x <-> 1\n1617566591.326123: {frame}\n".encode()))
    (one,), (other,) = list(read_frames(nanoseconds)), list(read_frames(seconds))
    assert one == other
    assert one.received_ns == 1_617_566_591_326_123_000
    assert one.payload == b'{"e":"trade","E":1}'
    assert one.frame == frame.encode()


def test_several_files_are_merged_by_receipt(tmp_path: Path) -> None:
    one = _write(
        tmp_path / "1", _line(1_000_000_000_000_000, "a"), _line(3_000_000_000_000_000, "c")
    )
    two = _write(tmp_path / "2", _line(2_000_000_000_000_000, "b"))
    assert [frame.stream for frame in merge_frames([one, two])] == ["a", "b", "c"]


def test_truncated_gzip_file_is_reported_with_its_last_readable_line(
    tmp_path: Path,
) -> None:
    lines = "".join(f"{_line(10**15 + number, 'a')}\n" for number in range(5_000))
    path = tmp_path / "frames.gz"
    path.write_bytes(gzip.compress(lines.encode())[:-400])
    with pytest.raises(
        ValueError, match=r"frames\.gz is truncated: its gzip stream ends after line \d+"
    ):
        list(read_frames(path))


@pytest.mark.parametrize(
    "content",
    [b"plain text\n", gzip.compress(b"x" * 5_000, mtime=0)[:-8] + bytes(8)],
    ids=["no gzip", "wrong sum"],
)
def test_damaged_gzip_file_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "frames.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"frames\.gz, after line \d+: damaged gzip file"):
        list(read_frames(path))


@pytest.mark.parametrize("time", [1_700_000_040_000, 1_700_000_040_000_000])
def test_event_times_are_read_in_both_units(tmp_path: Path, time: int) -> None:
    path = tmp_path / "f"
    path.write_text(f'1617566591326123000 {{"stream":"a","data":{{"e":"x","E":{time}}}}}\n')
    (frame,) = read_frames(path)
    assert event_time_us(frame) == 1_700_000_040_000_000
