"""Certificates of simulated exchanges, for the clients of this process."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from include.binance.tls import trusted

VARIABLE = "SSL_CERT_FILE"


class Trust:
    """Authorities that the clients of this process trust besides the usual ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usual = os.environ.get(VARIABLE)
        self._authorities: list[str] = []
        self._file: Path | None = None

    @contextmanager
    def of(self, authority: str | None) -> Iterator[None]:
        """Trust an authority for a while; each run of a thread has its own, or none."""
        if authority is None:
            yield
            return
        text = Path(authority).read_text()
        self._change(lambda: self._authorities.append(text))
        try:
            yield
        finally:
            self._change(lambda: self._authorities.remove(text))

    def _change(self, change: Callable[[], None]) -> None:
        with self._lock:
            change()
            before, self._file = self._file, self._written()
            if self._file is not None:
                os.environ[VARIABLE] = str(self._file)
            elif self._usual is not None:
                os.environ[VARIABLE] = self._usual
            else:
                os.environ.pop(VARIABLE, None)
            trusted.cache_clear()
            if before is not None:
                before.unlink()

    def _written(self) -> Path | None:
        if not self._authorities:
            return None
        usual = "" if self._usual is None else Path(self._usual).read_text()
        handle, name = tempfile.mkstemp(prefix="candelabra-chaos-", suffix=".pem")
        with os.fdopen(handle, "w") as file:
            file.write("\n".join([usual, *self._authorities]))
        return Path(name)


TRUST = Trust()
