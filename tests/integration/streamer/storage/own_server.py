"""A PostgreSQL that a test may kill."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate
from tests.ports import steady_port

SETTINGS = {"fsync": "off", "shared_buffers": "32MB"}


class Server:
    """A PostgreSQL of this test's own, which may die and come back on the same port.

    Attributes:
        url: of its first database.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running = EmbeddedPostgres(home, port=steady_port(), settings=SETTINGS)
        self._running.start()
        self.url = self.database("candles")

    def database(self, name: str) -> str:
        """The URL of a new, migrated database."""
        url = self._running.create_database(name)
        migrate(url)
        return url

    def kill(self) -> None:
        self._running.kill()

    def start_again(self) -> None:
        self._running = EmbeddedPostgres(self._home, port=self._running.port, settings=SETTINGS)
        self._running.start()

    def stop(self) -> None:
        self._running.stop()


@contextmanager
def own_server() -> Iterator[Server]:
    """A PostgreSQL server in a temporary folder, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="candelabra-server-") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "pg")
        try:
            yield server
        finally:
            server.stop()
