"""Reports of dropped and added symbols, to readers of any speed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from serving.bars.live_bars import LiveBars
from serving.websocket.endpoint import StreamedSymbols


class Reader:
    """Takes frames or not, as a test says."""

    def __init__(self) -> None:
        self.is_slow = False
        self.told: list[dict[str, Any]] = []
        self.calls: list[Callable[[], None]] = []

    def is_writable(self) -> bool:
        return not self.is_slow

    def write_frames(self, frames: bytes) -> None:
        self.told.append(json.loads(frames[frames.index(b"{") :]))

    def call_when_writable(self, call: Callable[[], None]) -> None:
        self.calls.append(call)


def test_slow_reader_gets_only_the_last_list_of_its_streamed_symbols() -> None:
    live_bars = LiveBars(_never, lambda _symbol, _newest: ((), (), ()))
    reader = Reader()
    symbols = StreamedSymbols(live_bars, reader, {"BTCUSDT", "ETHUSDT"}.__contains__)

    def list_(dropped: set[str], taken_up: set[str]) -> None:
        for tell in list(live_bars.on_streamed_changed):
            tell(frozenset(dropped), frozenset(taken_up))

    list_({"BTCUSDT", "XRPUSDT"}, set())
    list_({"XRPUSDT"}, {"LTCUSDT"})
    assert reader.told == [{"type": "streamed", "taken_up": [], "dropped": ["BTCUSDT"]}]
    reader.is_slow = True
    list_({"ETHUSDT"}, set())
    list_(set(), {"BTCUSDT", "ETHUSDT"})
    list_({"BTCUSDT"}, set())
    assert (len(reader.told), len(reader.calls)) == (1, 1)
    reader.is_slow = False
    reader.calls.pop()()
    assert reader.told[1:] == [
        {"type": "streamed", "taken_up": ["ETHUSDT"], "dropped": ["BTCUSDT"]}
    ]
    symbols.leave()
    list_({"ETHUSDT"}, set())
    assert len(reader.told) == 2


def _never() -> Any:
    raise AssertionError("nobody watches")
