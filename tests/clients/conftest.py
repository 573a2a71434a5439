"""Public client libraries in an environment of their own, pointed at a simulator."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from simulator.server import ExchangeThread
from tests.clients.exchanges import LIBRARIES, config

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT_S = 100


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Client libraries need an environment of their own: only `make test-all` makes it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def standing() -> Iterator[ExchangeThread]:
    """An exchange whose clock stands still 0.3 s after noon."""
    with ExchangeThread(config(speed=0)) as running:
        yield running


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """Each library in turn."""
    return str(request.param)


@pytest.fixture
def client(library: str) -> Callable[..., Any]:
    """Runs commands of the library's program by the clients' Python.

    `client(exchange, "klines", market="spot", …)` returns what the program printed.
    """
    if not PYTHON.exists():
        pytest.fail(f"no {PYTHON.relative_to(ROOT)}; run `make setup-clients`", pytrace=False)
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}

    def call(exchange: ExchangeThread, command: str, **arguments: Any) -> Any:
        arguments["urls"] = asdict(exchange.urls)
        done = subprocess.run(
            [PYTHON, PROGRAMS / f"{library}_client.py", command, json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment | {"NO_PROXY": "127.0.0.1"},
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{library} {command}:\n{done.stderr[-4_000:]}", pytrace=False)
        return json.loads(done.stdout)

    return call
