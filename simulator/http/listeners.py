"""Listening sockets and the simulator's HTTP server."""

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class PortTakenError(OSError):
    """A requested port is in use."""


class HttpConnection(HttpToolsProtocol):
    """HTTP connection that a response can reset with `scope["state"]["abort"]()`."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["abort"] = self.transport.abort


class HttpServer(uvicorn.Server):
    """Uvicorn without signal handlers: the surrounding program handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 lets the system choose.

    Raises:
        PortTakenError: the port is in use.
    """
    # asyncio sets TCP_NODELAY on accepted sockets only if the protocol is given.
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
