"""Recorded frames as blocks of WebSocket bytes: encoded once, sent in large writes.

A block has the combined form of some thousand frames back to back. Connections get slices of it:
whole runs of frames in combined form, payloads with new headers in raw form.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulator.market.noise import IntArray
from simulator.market.trades.columns import BoolArray
from simulator.replay.recorded_frames import RecordedFrame, event_time_us
from simulator.streams.hub import encode_text_frame

BLOCK_BYTES: Final = 256 << 10
"""Size at which a block is complete."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive frames of a recording.

    Attributes:
        wire: the combined form of all frames as WebSocket frames, back to back.
        bounds: start of each frame in `wire`, and the end of the last.
        payloads, sizes: start of each payload (`data`) in `wire`, and its bytes.
        streams: number of each frame's stream.
        last_event_us: highest event time; 0 if no frame has one.
    """

    wire: bytes
    bounds: IntArray
    payloads: IntArray
    sizes: IntArray
    streams: IntArray
    last_event_us: int

    def __len__(self) -> int:
        return len(self.streams)

    @property
    def memory_bytes(self) -> int:
        """Memory that the block uses."""
        columns = (self.bounds, self.payloads, self.sizes, self.streams)
        return len(self.wire) + sum(column.nbytes for column in columns)

    def chosen(self, is_wanted: BoolArray) -> BoolArray:
        """Return which frames belong to wanted streams.

        Args:
            is_wanted: one value per stream number.
        """
        rows: BoolArray = is_wanted[self.streams]
        return rows

    def encoded(self, rows: BoolArray, *, combined: bool) -> bytes:
        """Return the chosen frames as WebSocket bytes, in order."""
        if not combined:
            return b"".join(self._raw_parts(np.flatnonzero(rows)))
        # A run of chosen frames is one slice; if all are chosen, it is the block itself.
        edges = np.flatnonzero(np.diff(rows, prepend=False, append=False))
        begins, ends = self.bounds[edges[::2]].tolist(), self.bounds[edges[1::2]].tolist()
        return b"".join([self.wire[a:b] for a, b in zip(begins, ends, strict=True)])

    def _raw_parts(self, rows: IntArray) -> Iterator[bytes]:
        wire = self.wire
        heads = {size: _head(size) for size in np.unique(self.sizes[rows]).tolist()}
        for begin, size in zip(
            self.payloads[rows].tolist(), self.sizes[rows].tolist(), strict=True
        ):
            yield heads[size]
            yield wire[begin : begin + size]


def _head(size: int) -> bytes:
    """Return the header of an unmasked text frame with a payload of `size` bytes."""
    frame = encode_text_frame(bytes(size))
    return frame[: len(frame) - size]


class BlockBuilder:
    """Collects frames into blocks.

    Args:
        numbers: numbers of the streams; missing ones are added.
    """

    def __init__(self, numbers: dict[str, int]) -> None:
        self._numbers = numbers
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytes] = []
        self._bounds = array("q", (0,))
        self._payloads = array("q")
        self._sizes = array("q")
        self._streams = array("q")
        self._last_event_us = 0

    def add(self, frame: RecordedFrame, event_us: int) -> None:
        """Append a frame with its event time."""
        encoded = encode_text_frame(frame.frame)
        begin = self._bounds[-1]
        self._parts.append(encoded)
        self._bounds.append(begin + len(encoded))
        # The payload is the last value in nearly all frames; rindex finds it in any.
        self._payloads.append(begin + encoded.rindex(frame.payload))
        self._sizes.append(len(frame.payload))
        self._streams.append(self._numbers.setdefault(frame.stream, len(self._numbers)))
        if event_us > self._last_event_us:
            self._last_event_us = event_us

    @property
    def is_empty(self) -> bool:
        return not self._parts

    @property
    def is_full(self) -> bool:
        return self._bounds[-1] >= BLOCK_BYTES

    def take(self) -> Block:
        """Return the frames since the last block."""
        block = Block(
            wire=b"".join(self._parts),
            bounds=_column(self._bounds),
            payloads=_column(self._payloads),
            sizes=_column(self._sizes),
            streams=_column(self._streams),
            last_event_us=self._last_event_us,
        )
        self._begin()
        return block


def _column(values: array[int]) -> IntArray:
    return np.array(values, dtype=np.int64)


def make_blocks(frames: Iterable[RecordedFrame], numbers: dict[str, int]) -> Iterator[Block]:
    """Yield all frames as blocks; the last one is shorter."""
    maker = BlockBuilder(numbers)
    for frame in frames:
        maker.add(frame, event_time_us(frame))
        if maker.is_full:
            yield maker.take()
    if not maker.is_empty:
        yield maker.take()
