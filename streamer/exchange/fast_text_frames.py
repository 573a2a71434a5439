"""A WebSocket that splits a read into text messages itself, many at a time.

An exchange sends almost only unfragmented text frames, a thousand and more in one read of a busy
socket. This module finds them by their headers. Everything else goes to the library, one complete
frame at a time: handshake, pings, close, fragments, and protocol errors, which end the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Limit against a broken peer; a normal frame has a few hundred bytes."""
MAX_HEADERS_BYTES = 64 * 1024
HEADERS_END = b"\r\n\r\n"
TEXT = 0x81
"""First byte of an unfragmented text frame. The second byte is the length; 126 or 127 mean that the
length is in the next two or eight bytes, larger values that the frame is masked."""
LONG_TEXT = TEXT << 8 | 126

_read_long_head = struct.Struct(">HH").unpack_from


class FastTextConnection(ClientConnection):
    """Passes text messages to ``on_texts``, in order, as soon as their bytes have arrived.

    Attributes:
        on_texts: called with the messages of each read; must not raise. None discards them.
    """

    on_texts: Callable[[list[bytes]], None] | None = None
    _unread = b""
    _has_headers = False
    _parts: list[bytes] | None = None
    """Fragments of an unfinished message."""

    def data_received(self, data: bytes) -> None:
        """Handle the bytes of one read."""
        if self._unread:
            data = self._unread + data
            self._unread = b""
        if not self._has_headers:
            end = data.find(HEADERS_END) + len(HEADERS_END)
            if end < len(HEADERS_END) and len(data) < MAX_HEADERS_BYTES:
                self._unread = data
                return
            self._has_headers = True
            super().data_received(data[:end])
            data = data[end:]
        at = 0
        while at < len(data) and self.protocol.state is OPEN:
            at = self._pass_texts(data, at)
            if at == len(data):
                return
            frame_end = self._end_of_frame(data, at)
            if frame_end is None:
                self._unread = data[at:]
                return
            super().data_received(data[at:frame_end])
            at = frame_end
        if at < len(data):
            super().data_received(data[at:])

    def _pass_texts(self, data: bytes, at: int) -> int:
        """Pass on the text messages that start here; return the position of the next frame."""
        if self._parts is not None:
            return at
        texts: list[bytes] = []
        size = len(data)
        while at + 4 <= size:
            head, length = _read_long_head(data, at)
            if head == LONG_TEXT:
                begin = at + 4
            elif head >> 8 == TEXT and head & 0xFF < 126:
                begin, length = at + 2, head & 0xFF
            else:
                break
            if begin + length > size:
                break
            at = begin + length
            texts.append(data[begin:at])
        if texts and self.on_texts is not None:
            self.on_texts(texts)
        return at

    def _end_of_frame(self, data: bytes, at: int) -> int | None:
        """Return the end of a frame for the library; None while it is incomplete.

        A frame that the library will reject is passed on incomplete.
        """
        left = len(data) - at
        if left < 2:
            return None
        length = data[at + 1] & 0x7F
        head = 2 + (4 if data[at + 1] & 0x80 else 0)
        if length >= 126:
            width = 2 if length == 126 else 8
            head += width
            if left < head:
                return None
            length = int.from_bytes(data[at + 2 : at + 2 + width])
        if head + length <= left:
            return at + head + length
        return len(data) if length > MAX_FRAME_BYTES else None

    def process_event(self, event: Any) -> None:
        """Handle a frame that the library has parsed."""
        if type(event) is not WireFrame or self.response is None:
            super().process_event(event)
        elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._join(event)
        else:
            super().process_event(event)

    def _join(self, frame: WireFrame) -> None:
        """Assemble a message from its fragments."""
        if frame.opcode is not Opcode.CONT:
            self._parts = []
        if self._parts is None:
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message, self._parts = b"".join(self._parts), None
            if self.on_texts is not None:
                self.on_texts([message])
