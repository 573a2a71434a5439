"""No wait of the streamer is without an end, and no queue without a bound: read from its code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for room in ("streamer", "serving") for path in (ROOT / room).rglob("*.py"))

WAITS_FOR_ITS_CALLER = {
    ("streamer/app.py", "_no_readers"): "nothing is served; cancelled at the end",
    (
        "streamer/app.py",
        "_follow",
    ): "the streamer's stop is what it waits for; cancelled at the end",
    (
        "streamer/symbols/listings.py",
        "_reload_when_told",
    ): "the operator's word; cancelled at the end",
    ("streamer/hub/mailbox.py", "ready"): "a reader waits as long as it likes",
    ("streamer/hub/mailbox.py", "changed"): "a reader waits as long as it likes",
    ("streamer/hub/mailbox.py", "room"): "the subscriber; cancelled at the end",
    ("streamer/symbols/startup.py", "_unless_stopped"): "a part of asyncio.wait with a timeout",
    ("streamer/candles/connection_pool.py", "run"): "a part of asyncio.wait with a timeout",
    ("streamer/app.py", "_work"): "a part of asyncio.wait with a timeout",
    ("streamer/symbols/startup.py", "persist"): "a part of asyncio.wait with a timeout",
    ("streamer/capture/spool/disk.py", "call"): "a part of asyncio.wait with a timeout",
    ("streamer/capture/intake/feeds.py", "run"): "a part of asyncio.wait with a timeout",
    ("streamer/capture/app.py", "run"): "the streamer's stop is what it waits for; cancelled then",
    (
        "streamer/capture/repair/resumption.py",
        "_look_back",
    ): "symbols that join; cancelled at the end",
    ("serving/auth/service.py", "run"): "somebody with an account; cancelled at the end",
    ("serving/auth/service.py", "watchlists"): "a reader waits for news as long as it likes",
    ("serving/auth/middleware.py", "_while_valid"): "a part of asyncio.wait with a timeout",
    ("serving/bars/live_bars.py", "_follow"): "readers that come; cancelled at the end",
    ("serving/bars/live_bars.py", "_read"): "symbols that are watched; cancelled at the end",
    ("serving/process.py", "serve"): "a part of asyncio.wait with a timeout",
    ("streamer/hub/book_tickers.py", "run"): "a part of asyncio.wait with a timeout",
    ("serving/sources/remote/ticks.py", "_run_calls"): "readers that come; cancelled at the end",
}


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
    """Waits that may never end, and queues that may grow for ever."""
    found = []
    for call, function, is_timed in calls_of(ast.parse(source)):
        name = name_of(call)
        is_wait = name == "in_thread" or (
            name.endswith((".wait", ".join", ".acquire")) and not call.args
        )
        if (
            (name == "asyncio.wait" and not has(call, "timeout"))
            or (
                is_wait
                and not (is_timed or has(call, "timeout"))
                and (module, function) not in WAITS_FOR_ITS_CALLER
            )
            or (name.endswith("Queue") and name.startswith("asyncio.") and not call.args
                and not has(call, "maxsize"))
        ):  # fmt: skip
            found.append(f"{module}:{call.lineno} {function}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_wait_has_an_end_and_each_queue_a_bound(module: Path) -> None:
    assert endless(module.read_text(), module.relative_to(ROOT).as_posix()) == []


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
def test_what_has_no_end_is_found(line: str) -> None:
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
def test_what_has_an_end_is_let_pass(line: str) -> None:
    assert endless(f"async def work():\n    {line}\n", "x.py") == []
