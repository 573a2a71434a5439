"""An API asked what its own description allows, and what it does not."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from queue import Queue

import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as some
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.http.server import Place, serving

EXAMPLES = 12
"""Of each operation, and as many that its description does not allow."""
ALWAYS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
OF_MARTS = "/(levels|indicators|coverage|gaps|volume-profile|footprint)$"
"""Paths that need what dbt builds."""
START_TIMEOUT_S = 30.0


@contextmanager
def on_a_socket(application: Callable[[], AbstractAsyncContextManager[FastAPI]]) -> Iterator[str]:
    """An application behind a socket, in a separate thread with an event loop; its URL."""
    told: Queue[str | BaseException] = Queue()
    stop = threading.Event()

    async def serve() -> None:
        async with application() as app, serving(app, Place("127.0.0.1", 0)) as url:
            told.put(url)
            while not stop.is_set():
                await asyncio.sleep(0.02)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            told.put(error)
            raise

    thread = threading.Thread(target=run, name="api")
    thread.start()
    try:
        url = told.get(timeout=START_TIMEOUT_S)
        assert isinstance(url, str), url
        yield url
    finally:
        stop.set()
        thread.join(START_TIMEOUT_S)
    assert not thread.is_alive()


def ask_all(url: str, *, symbols: Sequence[str], only: str = "", but: str = "^$") -> int:
    """Ask every operation of the API at a URL; how many requests that took.

    Args:
        symbols: half of the requests are about one of these.
        only, but: patterns of paths to request and to leave out.
    """
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json")
    asked = 0
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if re.search(but, operation.path) or not re.search(only, operation.path):
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @seed(7)
                @settings(
                    max_examples=EXAMPLES,
                    database=None,
                    phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(
                    case=operation.as_strategy(generation_mode=mode),
                    symbol=some.none() | some.sampled_from(symbols),
                )
                def check(case: Case, symbol: str | None) -> None:
                    nonlocal asked
                    if symbol is not None:
                        for place in (case.path_parameters, case.query):
                            for name in {"symbol", "symbols"} & set(place or ()):
                                place[name] = symbol
                    asked += 1
                    answer = case.call(base_url=url, session=session, timeout=30)
                    case.validate_response(answer, checks=ALWAYS)

                try:
                    check()
                except Unsatisfiable:  # any text is allowed there, or there is nothing to say
                    if mode is GenerationMode.POSITIVE:
                        raise
    return asked
