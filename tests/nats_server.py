"""A real NATS server in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.ports import steady_port

PROGRAM = Path(sys.executable).parent / "nats-server"
MAX_START_S = 30


class NatsServer:
    """Can be killed, held, and started again on the same port."""

    def __init__(self, options: Sequence[str] = (), *, scheme: str = "nats") -> None:
        self.port = steady_port()
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
            [PROGRAM, "-a", "127.0.0.1", "-p", str(self.port), *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(MAX_START_S):
            while True:
                assert self._process.poll() is None, "the NATS server has ended"
                try:
                    with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                        return
                except OSError:
                    await asyncio.sleep(0.02)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hold(self) -> None:
        """It stays, and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def let_go(self) -> None:
        """Resume it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def nats_server(
    options: Sequence[str] = (), *, scheme: str = "nats"
) -> AsyncIterator[NatsServer]:
    """A server that is started, and killed at the end."""
    server = NatsServer(options, scheme=scheme)
    await server.start()
    try:
        yield server
    finally:
        server.kill()
