"""Tells a reader of a WebSocket which of its symbols were dropped, or taken up again."""

from __future__ import annotations

from collections.abc import Callable

from serving.bars.live_bars import LiveBars
from serving.http.pushing import Frames
from serving.websocket import fragments
from serving.websocket.messages import told


class StreamedSymbols:
    """What one reader is told of that, at its own pace: of a symbol the last that happened.

    Args:
        to: takes what it is told.
        wants: whether it has subscribed a symbol.
    """

    def __init__(self, board: LiveBars, to: Frames, wants: Callable[[str], bool]) -> None:
        self._board = board
        self._to = to
        self._wants = wants
        self._waiting: dict[str, bool] = {}
        """Whether it is streamed, by symbol."""
        self._is_deferred = False
        board.on_listed.add(self._listed)

    def leave(self) -> None:
        """The reader is gone."""
        self._board.on_listed.discard(self._listed)
        self._waiting = {}

    def _listed(self, dropped: frozenset[str], taken_up: frozenset[str]) -> None:
        changed = dict.fromkeys(dropped, False) | dict.fromkeys(taken_up, True)
        self._waiting |= {name: value for name, value in changed.items() if self._wants(name)}
        self._send()

    def _send(self) -> None:
        if not self._waiting or self._is_deferred:
            return
        if not self._to.takes():
            self._is_deferred = True
            self._to.when_it_takes(self._go_on)
            return
        waiting, self._waiting = self._waiting, {}
        message = told(
            "streamed",
            taken_up=sorted(name for name, is_streamed in waiting.items() if is_streamed),
            dropped=sorted(name for name, is_streamed in waiting.items() if not is_streamed),
        )
        self._to.push(fragments.framed(fragments.TEXT, message.encode()))

    def _go_on(self) -> None:
        self._is_deferred = False
        self._send()
