"""HTTP of uvicorn with bounds for what comes before an answer can.

Uvicorn keeps whatever a client sends as URL and headers, and waits for the rest of a request as
long as the connection lasts: a few clients could fill the memory, or hold every connection.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEAD_BYTES = 64 << 10
"""Of a request's line and headers, or of the headers behind its body."""
REQUEST_TIMEOUT_S = 10.0
"""For a request, from its first byte to its last; the first one of a connection has them from the
connection's start."""


class _TooLongError(Exception):
    """The parser's to pass on: what came is longer than it may be."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection: 431 beyond ``MAX_HEAD_BYTES``, and its end where a request takes too long.

    Between requests it may be idle for as long as uvicorn lets it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._is_within = False
        """Something of a request has come, and not all of it."""
        self._head_bytes = 0
        """That came behind the last body or request."""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, and should ask."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left, or was left."""
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, of the end of one and the begin of the next, or of several."""
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
        """The parser's: a request begins."""
        super().on_message_begin()
        self._is_within = True

    def on_headers_complete(self) -> None:
        """The parser's: URL and headers are whole; what came in one piece is counted here."""
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > MAX_HEAD_BYTES:
            self._head_bytes = length
            raise _TooLongError
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The parser's: a body is the application's to bound; it is read no faster than taken."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser's: the request is whole."""
        self._is_within = False
        self._head_bytes = 0
        self._forget_deadline()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """The parser does not go on: it makes nothing of what came, or we let it have no more."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_length()
        else:
            super().send_400_response(msg)

    def _refuse_length(self) -> None:
        self._forget_deadline()
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # nothing may come into another answer
            return
        self.transport.write(
            STATUS_LINE[HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE]
            + b"connection: close\r\ncontent-length: 0\r\n\r\n"
        )
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether a request that came whole is being answered."""
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
        if self._is_answering():  # the next request may come once the answer is there
            self._await_request()
        else:
            self.transport.abort()
