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
from tests.clients.exchanges import LIBRARIES, config, contracts_config

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
PYTHON_313 = ROOT / ".venv-bench" / "bin" / "python"  # of cryptofeed
PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT_S = 100
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")  # settings of an authority's file


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


@pytest.fixture(scope="session")
def contracts() -> Iterator[ExchangeThread]:
    """Futures markets whose clock stands still 0.3 s after noon."""
    with ExchangeThread(contracts_config(speed=0)) as running:
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
    python = PYTHON_313 if library == "cryptofeed" else PYTHON
    if not python.exists():
        if library == "cryptofeed":
            pytest.skip("no cryptofeed; `make setup-bench` installs it, with Python 3.13")
        pytest.fail(f"no {PYTHON.relative_to(ROOT)}; run `make setup-clients`", pytrace=False)
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}

    def call(exchange: ExchangeThread, command: str, **arguments: Any) -> Any:
        urls = exchange.urls
        trusted = {} if urls.tls_ca_file is None else dict.fromkeys(TRUST, urls.tls_ca_file)
        arguments["urls"] = asdict(urls)
        done = subprocess.run(
            [python, PROGRAMS / f"{library}_client.py", command, json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment | {"NO_PROXY": "127.0.0.1"} | trusted,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{library} {command}:\n{done.stderr[-4_000:]}", pytrace=False)
        return json.loads(done.stdout)

    return call
