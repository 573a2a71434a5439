"""What the client programs share: one command in, one line of JSON out.

They run in the clients' environment, which has neither the project's packages nor pytest. The
whole library is used as it is installed; all that is set are base URLs.
"""

import asyncio
import inspect
import json
import sys
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from typing import Any

AGG_TRADE_KEYS = ("a", "p", "q", "f", "l", "T", "m")
BOOK_KEYS = ("u", "b", "B", "a", "A")
MINI_KEYS = ("E", "o", "h", "l", "c", "v", "q")
KLINE_KEYS = ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")
FAULTS = {"cut": "/sim/cut?market={}", "shutdown": "/sim/shutdown?market={}&seconds=0.2"}
"""What ends connections, besides the age limit."""

WAIT_S = 25.0
"""No phase of a program waits longer than this for what it expects."""


_commands: dict[str, Callable[..., Any]] = {}


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function a command of the program, under its own name."""
    _commands[function.__name__] = function
    return function


def run() -> None:
    """Carries out `program.py <command> <arguments as JSON>`."""
    _, name, arguments = sys.argv
    result = _commands[name](**json.loads(arguments))
    if inspect.isawaitable(result):
        result = asyncio.run(_awaited(result))
    json.dump(result, sys.stdout)


async def _awaited(work: Any) -> Any:
    return await work


async def end_connections(urls: Mapping[str, str], market: str, how: str) -> None:
    """Make the simulator end a market's connections: `cut`, `shutdown`, or `life` by itself."""
    if how != "life":
        await asyncio.to_thread(_post, urls["control_url"] + FAULTS[how].format(market))


def _post(url: str) -> None:
    with urllib.request.urlopen(url, data=b"", timeout=10) as answer:
        answer.read()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it did not become true; names it.
    """
    end = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(f"waited {WAIT_S} s for {what}")
        await asyncio.sleep(0.01)


DEEPEST = {"spot": 5_000, "um": 1_000}
"""Levels a side that a snapshot may have."""

_CHECKPOINTS = 5


class BookRecord:
    """A local book, recorded periodically.

    Args:
        wanted: updates after which the book has been watched for long enough.
        lowest, highest: all levels between these prices are known. A snapshot ends somewhere; only
            changes show what lies beyond.
    """

    def __init__(self, wanted: int, lowest: Any, highest: Any) -> None:
        self._wanted = wanted
        self._known = [str(lowest), str(highest)]
        self._checkpoints: list[Any] = []
        self.updates = 0

    @property
    def is_full(self) -> bool:
        """Whether there were as many updates as wanted."""
        return self.updates >= self._wanted

    def note(self, updates: int, update_id: int, sides: Callable[[], Iterable[Any]]) -> None:
        """Record the book after a number of updates; `sides` returns bids and asks."""
        self.updates = updates
        due = updates * _CHECKPOINTS >= (len(self._checkpoints) + 1) * self._wanted
        if due or self.is_full:
            levels = [[[str(price), str(left)] for price, left in side] for side in sides()]
            self._checkpoints.append([update_id, *levels])

    def result(self) -> dict[str, Any]:
        """Checkpoints are [update id, bids, asks]."""
        return {"updates": self.updates, "known": self._known, "checkpoints": self._checkpoints}
