"""Blocks of encoded frames equal the same frames encoded singly."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from simulator.replay.blocks import BLOCK_BYTES, Block, make_blocks
from simulator.replay.recorded_frames import RecordedFrame, read_frames
from simulator.streams.hub import encode_text_frame

STREAMS = ("a@trade", "bookTicker", "é@aggTrade", "d@depth")
# lengths around each change of the WebSocket header
SIZES = (0, 1, 60, 90, 100, 125, 126, 300, 65_535, 66_000)


def _frames(
    tmp_path: Path, count: int, *, sizes: tuple[int, ...] = SIZES[:8]
) -> list[RecordedFrame]:
    chosen = random.Random(5)
    lines = []
    for number in range(count):
        data = {"E": 1_700_000_000_000 + number * 3 % 50, "x": "é" * chosen.choice(sizes)}
        frame = {"stream": chosen.choice(STREAMS), "data": data}
        if number % 7 == 0:
            frame["added"] = "later"  # the payload may be before other fields
        spacing = (" , ", " : ") if number % 5 == 0 else (",", ":")
        text = json.dumps(frame, ensure_ascii=number % 2 == 0, separators=spacing)
        lines.append(f"{10**15 + number} {text}")
    path = tmp_path / "frames"
    path.write_text("\n".join(lines))
    return list(read_frames(path))


def _all_of(frames: list[RecordedFrame]) -> tuple[list[Block], dict[str, int]]:
    numbers: dict[str, int] = {}
    return list(make_blocks(iter(frames), numbers)), numbers


@pytest.mark.parametrize("combined", [True, False])
@pytest.mark.parametrize(
    "wanted", [STREAMS, STREAMS[:1], STREAMS[1:3], STREAMS[::3], ()], ids="/".join
)
def test_chosen_frames_are_encoded_exactly(
    tmp_path: Path, combined: bool, wanted: tuple[str, ...]
) -> None:
    frames = _frames(tmp_path, 400) + _frames(tmp_path, 20, sizes=SIZES)
    assert len(frames) == 420
    blocks, numbers = _all_of(frames)
    assert len(blocks) > 1
    is_wanted = np.array([name in wanted for name in numbers])
    made = b"".join(block.encoded(block.chosen(is_wanted), combined=combined) for block in blocks)
    assert made == b"".join(
        encode_text_frame(frame.frame if combined else frame.payload)
        for frame in frames
        if frame.stream in wanted
    )


def test_all_frames_of_a_block_are_the_block_itself(tmp_path: Path) -> None:
    (block,), _ = _all_of(_frames(tmp_path, 50))
    everything = np.ones(len(block), dtype=np.bool_)
    assert block.encoded(everything, combined=True) is block.wire


def test_all_blocks_but_the_last_are_full(tmp_path: Path) -> None:
    frames = _frames(tmp_path, 3_000)
    blocks, numbers = _all_of(frames)
    assert sum(map(len, blocks)) == 3_000
    assert set(numbers) == set(STREAMS)
    longest = max(len(frame.frame) for frame in frames) + 10
    assert all(BLOCK_BYTES <= len(block.wire) < BLOCK_BYTES + longest for block in blocks[:-1])
    assert all(block.memory_bytes > len(block.wire) for block in blocks)
    assert max(block.last_event_us for block in blocks) == 1_700_000_000_049_000


def test_no_frames_make_no_block() -> None:
    assert _all_of([]) == ([], {})
