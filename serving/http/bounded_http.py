"""Uvicorn's HTTP protocol with limits on the request.

Uvicorn stores a URL and headers of any size, and waits for the rest of a request as long as the
connection lasts: a few clients could fill the memory, or hold every connection.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
"""Limit of a request's line and headers, and of trailers after a body."""
REQUEST_TIMEOUT_S = 10.0
"""Time for a request, from its first byte to its last; for the first one, from the connection's
start.
"""


class _TooLongError(Exception):
    """Stops the parser: the request is too long."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 beyond ``MAX_HEAD_BYTES``, and closes connections whose request takes too long.

    Idle time between requests is limited by uvicorn.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_within = False
        """A request has started and is not complete."""
        self._head_bytes = 0
        """Bytes since the last body or request."""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first request."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes and pass them to the parser; they may hold parts of several requests."""
        self._is_within = True
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._is_within or self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_length()
        elif self._deadline is None:
            self._await_request()

    def on_message_begin(self) -> None:
        """Parser callback: a request starts."""
        super().on_message_begin()
        self._is_within = True

    def on_headers_complete(self) -> None:
        """Parser callback: URL and headers are complete; counts those that came in one piece."""
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEAD_BYTES:
            self._head_bytes = length
            raise _TooLongError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Parser callback: the application limits the body; it is read no faster than consumed."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser callback: the request is complete."""
        self._is_within = False
        self._head_bytes = 0
        self._forget_deadline()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Parser callback: the request is invalid or too long."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_length()
        else:
            super().send_400_response(msg)

    def _refuse_length(self) -> None:
        self._forget_deadline()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # a second response would corrupt the one in progress
            return
        self.transport.write(
            STATUS_LINE[HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE]
            + b"connection: close\r\ncontent-length: 0\r\n\r\n"
        )
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether a complete request is being answered."""
        cycle = self.cycle
        return cycle is not None and not cycle.more_body and not cycle.response_complete

    def _await_request(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S, self._end_waiting)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_waiting(self) -> None:
        self._deadline = None
        if self._is_answering():  # the next request may come after the response
            self._await_request()
        else:
            self.transport.abort()
