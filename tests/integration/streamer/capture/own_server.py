"""A PostgreSQL that a test may kill."""

from __future__ import annotations

from pathlib import Path

from deploy.local.postgres import EmbeddedPostgres
from include.store.migrate import migrate
from tests.ports import steady_port

SETTINGS = {"fsync": "off", "shared_buffers": "32MB"}


class Server:
    """A PostgreSQL of this test's own, which may die and come back on the same port."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running = EmbeddedPostgres(home, port=steady_port(), settings=SETTINGS)
        self._running.start()
        self.url = self._running.create_database("capture")
        migrate(self.url)

    def kill(self) -> None:
        self._running.kill()

    def start_again(self) -> None:
        self._running = EmbeddedPostgres(self._home, port=self._running.port, settings=SETTINGS)
        self._running.start()

    def stop(self) -> None:
        self._running.stop()
