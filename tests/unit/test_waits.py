"""Every wait of the streamer and of serving has a timeout, and every queue a bound."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for room in ("streamer", "serving") for path in (ROOT / room).rglob("*.py"))

IN_TIMED_WAIT = "one of several waits inside asyncio.wait with a timeout"
CANCELLED_AT_STOP = "runs until the streamer or server stops, which cancels it"
READER_WAITS = "a reader may wait for the next change without a limit"

ENDED_BY_CALLER = {
    ("serving/auth/login_audit.py", "run"): CANCELLED_AT_STOP,
    ("serving/auth/middleware.py", "_while_valid"): IN_TIMED_WAIT,
    ("serving/auth/service.py", "_follow"): CANCELLED_AT_STOP,
    ("serving/auth/service.py", "watchlists"): READER_WAITS,
    ("serving/bars/live_bars.py", "_follow"): CANCELLED_AT_STOP,
    ("serving/bars/live_bars.py", "_read_next"): CANCELLED_AT_STOP,
    ("serving/process.py", "serve"): IN_TIMED_WAIT,
    ("serving/sources/remote/ticks.py", "make_call"): CANCELLED_AT_STOP,
    ("streamer/app.py", "_no_readers"): CANCELLED_AT_STOP,
    ("streamer/app.py", "_follow_listings"): CANCELLED_AT_STOP,
    ("streamer/capture/app.py", "run"): CANCELLED_AT_STOP,
    ("streamer/capture/repair/resumption.py", "_check_back"): CANCELLED_AT_STOP,
    ("streamer/capture/spool/disk.py", "call"): IN_TIMED_WAIT,
    ("streamer/exchange/connection_pool.py", "run"): CANCELLED_AT_STOP,
    ("streamer/hub/mailbox.py", "changed"): READER_WAITS,
    ("streamer/hub/mailbox.py", "ready"): READER_WAITS,
    ("streamer/hub/mailbox.py", "room"): CANCELLED_AT_STOP,
    ("streamer/runtime/supervisor.py", "wait"): CANCELLED_AT_STOP,
    ("streamer/symbols/listings.py", "_follow_file"): CANCELLED_AT_STOP,
    ("streamer/symbols/startup.py", "_unless_stopped"): IN_TIMED_WAIT,
    ("streamer/symbols/startup.py", "attempt"): IN_TIMED_WAIT,
}
"""Waits without a timeout of their own, by module and function, and what ends them."""


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def has(call: ast.Call, keyword: str) -> bool:
    return any(one.arg == keyword and ast.unparse(one.value) != "None" for one in call.keywords)


def calls_of(tree: ast.AST, function: str = "", *, timed: bool = False) -> Iterator[tuple]:
    """Each call, the function that it is in, and whether that is within ``asyncio.timeout``."""
    for child in ast.iter_child_nodes(tree):
        inside, is_timed = function, timed
        if isinstance(child, ast.AsyncFunctionDef | ast.FunctionDef):
            inside, is_timed = child.name, False
        elif isinstance(child, ast.AsyncWith):
            is_timed = timed or any(
                ast.unparse(item.context_expr).startswith("asyncio.timeout(")
                for item in child.items
            )
        if isinstance(child, ast.Call):
            yield child, inside, is_timed
        yield from calls_of(child, inside, timed=is_timed)


def endless(source: str, module: str) -> list[str]:
    """Waits that may never end, and queues without a bound, by line."""
    return [line for _, line in endless_calls(source, module)]


def endless_calls(source: str, module: str) -> list[tuple[str, str]]:
    """The function of each such call, and a line that shows the call."""
    found = []
    for call, function, is_timed in calls_of(ast.parse(source)):
        name = name_of(call)
        is_wait = name == "in_thread" or (
            name.endswith((".wait", ".join", ".acquire")) and not call.args
        )
        if (
            (name == "asyncio.wait" and not has(call, "timeout"))
            or (is_wait and not (is_timed or has(call, "timeout")))
            or (name.endswith("Queue") and name.startswith("asyncio.") and not call.args
                and not has(call, "maxsize"))
        ):  # fmt: skip
            found.append((function, f"{module}:{call.lineno} {function}: {ast.unparse(call)}"))
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_wait_has_a_timeout_and_each_queue_a_bound(module: Path) -> None:
    name = module.relative_to(ROOT).as_posix()
    found = endless_calls(module.read_text(), name)
    assert [line for function, line in found if (name, function) not in ENDED_BY_CALLER] == []


def test_exceptions_name_existing_waits() -> None:
    found = set()
    for module in MODULES:
        name = module.relative_to(ROOT).as_posix()
        found |= {(name, function) for function, _ in endless_calls(module.read_text(), name)}
    assert sorted(ENDED_BY_CALLER.keys() - found) == []


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.wait({task})",
        "await asyncio.wait({task}, timeout=None)",
        "await self._wake.wait()",
        "thread.join()",
        "queue = asyncio.Queue()",
        "await in_thread(read, name='disk')",
        "async with lock:\n        await event.wait()",
    ],
)
def test_unbounded_waits_are_found(line: str) -> None:
    assert len(endless(f"async def work():\n    {line}\n", "x.py")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.wait({task}, timeout=1)",
        "async with asyncio.timeout(1):\n        await self._wake.wait()",
        "async with asyncio.timeout(1):\n        await in_thread(read, name='disk')",
        "queue = asyncio.Queue(maxsize=3)",
        "', '.join(names)",
    ],
)
def test_bounded_waits_are_accepted(line: str) -> None:
    assert endless(f"async def work():\n    {line}\n", "x.py") == []
