"""Frames of a generated market: generated once, sent to each reader as fast as it reads."""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.market import MadeMarket, Row
from simulator.streams.hub import encode_text_frame

STEP_US = 10_000
BLOCK_FRAMES = 2_000
"""Frames sent to one of several connections before the next one's turn."""


@dataclass(frozen=True, slots=True)
class Tape:
    """Frames in order.

    Attributes:
        wire: all frames as sent over the socket, with their headers.
        ends: end of each frame in ``wire``.
        places: index of each frame's stream in ``streams``.
        closed: rows of the minutes that are over at the end, by open time.
    """

    symbols: tuple[str, ...]
    streams: tuple[str, ...]
    wire: bytes
    ends: array[int]
    places: array[int]
    closed: dict[int, list[Row]]
    start_us: int
    end_us: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.ends)

    def count(self, kind: str) -> int:
        """Number of frames of one kind of stream, ``aggTrade`` or ``kline_1m``."""
        wanted = {place for place, name in enumerate(self.streams) if name.endswith(f"@{kind}")}
        return sum(place in wanted for place in self.places)

    def select(self, wanted: Collection[str]) -> list[bytes]:
        """Return the frames of some streams in blocks; the n-th block spans the same time for any
        streams.

        Blocks may be empty.
        """
        is_wanted = [name in wanted for name in self.streams]
        view = memoryview(self.wire)
        blocks = []
        begin = 0
        for first in range(0, self.frames, BLOCK_FRAMES):
            parts = []
            for number in range(first, min(first + BLOCK_FRAMES, self.frames)):
                end = self.ends[number]
                if is_wanted[self.places[number]]:
                    parts.append(view[begin:end])
                begin = end
            blocks.append(b"".join(parts))
        return blocks

    def save(self, folder: Path) -> None:
        """Save the tape for another process to read."""
        (folder / "wire").write_bytes(self.wire)
        (folder / "ends").write_bytes(self.ends.tobytes())
        (folder / "places").write_bytes(self.places.tobytes())
        about = {
            "symbols": self.symbols,
            "streams": self.streams,
            "closed": list(self.closed.items()),
            "start_us": self.start_us,
            "end_us": self.end_us,
        }
        (folder / "about.json").write_text(json.dumps(about))


def load_tape(folder: Path) -> Tape:
    """Load a saved tape."""
    about = json.loads((folder / "about.json").read_text())
    ends, places = array("Q"), array("I")
    ends.frombytes((folder / "ends").read_bytes())
    places.frombytes((folder / "places").read_bytes())
    return Tape(
        tuple(about["symbols"]),
        tuple(about["streams"]),
        (folder / "wire").read_bytes(),
        ends,
        places,
        {open_us: [tuple(row) for row in rows] for open_us, rows in about["closed"]},
        about["start_us"],
        about["end_us"],
    )


def make_tape(market: MadeMarket, until_us: int) -> Tape:
    """Record all frames of a market from its start until a time."""
    ends, places = array("Q"), array("I")
    start_us = market.now_us
    wire = bytearray()
    for place, frame in _frames(market, until_us):
        wire += encode_text_frame(frame)
        ends.append(len(wire))
        places.append(place)
    return Tape(
        market.symbols, market.streams, bytes(wire), ends, places, dict(market.closed),
        start_us, until_us,
    )  # fmt: skip


def _frames(market: MadeMarket, until_us: int) -> Iterator[tuple[int, bytes]]:
    while market.now_us < until_us:
        yield from market.advance(min(until_us, market.now_us + STEP_US))
