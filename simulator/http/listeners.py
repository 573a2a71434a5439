"""Listening sockets and the HTTP server of the simulator."""

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PortTakenError(OSError):
    """A port that was asked for is in use."""


class HttpConnection(HttpToolsProtocol):
    """Lets an answer drop its connection: `scope["state"]["abort"]()`, as some faults do."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["abort"] = self.transport.abort


class HttpServer(uvicorn.Server):
    """Uvicorn inside a larger program: signals are the program's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the system choose.

    Raises:
        PortTakenError: the port is in use.
    """
    # The protocol is named so that asyncio sets TCP_NODELAY on what is accepted.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1_024)
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"cannot listen on {host}:{port}: {error.strerror}; free the port or choose another "
            "(0 lets the system choose)"
        ) from error
    listener.setblocking(False)
    return listener
