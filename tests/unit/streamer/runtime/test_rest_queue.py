"""When a failed REST call is repeated, and when it is given up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial

import psycopg
import pytest

from include.backoff import Backoff
from include.domain.instruments import Market
from include.errors import PermanentError, RefusedAddressError, TransientError
from include.store.postgres.pools import translated
from streamer.runtime.refusals import Refusals
from streamer.runtime.rest_queue import (
    Failures,
    GiveUpError,
    RestCalls,
    RestQueue,
    RestRequest,
    RetryLaterError,
)

QUICK = Backoff(first_s=1.0, max_s=4.0, uniform=lambda _least, most: most)
SLOW = Backoff(first_s=600.0, max_s=600.0, uniform=lambda _least, most: most)


def calls(*, slow: Backoff | None = SLOW, refusals: Refusals | None = None) -> RestCalls:
    return RestCalls(
        name="test", timeout_s=30, backoff=QUICK, quick_attempts=3,
        slow_backoff=slow, refusals=refusals,
    )  # fmt: skip


def failing(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


async def failure_of(
    one: RestCalls, error: Exception, failures: Failures, *, is_past: bool = False
) -> RetryLaterError | GiveUpError:
    with pytest.raises((RetryLaterError, GiveUpError)) as caught:
        await one.call(failing(error), failures, market=Market.SPOT, is_past=lambda: is_past)
    assert isinstance(caught.value, RetryLaterError | GiveUpError)
    return caught.value


async def test_successful_call_returns_its_value_and_ends_a_database_outage() -> None:
    failures = Failures(exchange=2, database=5)
    assert await calls().call(lambda: 7, failures, market=Market.SPOT) == 7
    assert failures == Failures(exchange=2, database=0)


async def test_exchange_is_retried_quickly_then_slowly_and_overdue_is_reported_once() -> None:
    failures, one = Failures(), calls()
    found = [await failure_of(one, TransientError("503"), failures) for _ in range(5)]
    assert all(isinstance(retry, RetryLaterError) for retry in found)
    waits = [(retry.wait_s, retry.is_overdue) for retry in found]  # type: ignore[union-attr]
    assert waits == [(1.0, False), (2.0, False), (600.0, True), (600.0, False), (600.0, False)]


@pytest.mark.parametrize("slow", [None, SLOW])
async def test_request_is_given_up_after_the_quick_attempts_without_slow_ones(
    slow: Backoff | None,
) -> None:
    failures, one = Failures(exchange=1), calls(slow=slow)
    assert isinstance(
        await failure_of(one, TransientError("503"), failures, is_past=True), RetryLaterError
    )
    last = await failure_of(one, TransientError("503"), failures, is_past=True)
    assert isinstance(last, GiveUpError)
    assert str(last) == "503"


async def test_failures_of_the_database_use_up_no_attempt() -> None:
    with pytest.raises(TransientError) as away, translated("postgresql://me@here/candles"):
        raise psycopg.OperationalError("connection refused")
    failures, one = Failures(exchange=2), calls(slow=None)
    for _ in range(20):
        assert isinstance(await failure_of(one, away.value, failures), RetryLaterError)
    assert failures == Failures(exchange=2, database=20)


async def test_refusal_pauses_the_market_and_is_final_without_a_gate() -> None:
    refusals, failures = Refusals(), Failures()
    retry = await failure_of(calls(refusals=refusals), RefusedAddressError("403"), failures)
    assert isinstance(retry, RetryLaterError)
    assert (retry.is_refused, retry.is_overdue, failures.exchange) == (True, True, 0)
    now_s = asyncio.get_running_loop().time()
    assert refusals.at(Market.SPOT, now_s) is not None
    await calls(refusals=refusals).call(lambda: None, failures, market=Market.SPOT)
    assert refusals.at(Market.SPOT, now_s) is None
    assert isinstance(await failure_of(calls(), RefusedAddressError("403"), failures), GiveUpError)


async def test_unserved_request_is_given_up_at_the_first_failure() -> None:
    error = await failure_of(calls(), PermanentError("no such method"), Failures())
    assert isinstance(error, GiveUpError)


async def test_hanging_call_counts_as_a_failure() -> None:
    ended, failures, one = threading.Event(), Failures(), calls()
    one.timeout_s = 0.02
    with pytest.raises(RetryLaterError, match=r"hangs for 0\.02 s"):
        await one.call(lambda: ended.wait(30), failures, market=Market.SPOT)
    ended.set()
    assert failures.exchange == 1


async def test_queue_runs_at_most_max_calls_at_a_time_and_reports_idle_once() -> None:
    running, most, fetched, idle = 0, 0, list[int](), 0
    lock = threading.Lock()

    def fetch(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return number

    async def on_idle() -> None:
        nonlocal idle
        idle += 1

    left = list(range(6))

    def take_due(_now_s: float) -> RestRequest[int] | None:
        if not left:
            return None
        return RestRequest(
            Market.SPOT,
            Failures(),
            fetch=partial(fetch, left.pop(0)),
            on_fetched=fetched.append,
            on_retry=lambda retry: pytest.fail(str(retry)),
            on_given_up=pytest.fail,
        )

    queue = RestQueue(calls(), take_due, poll_s=0.005, max_calls=2, on_idle=on_idle)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(30):
        while len(fetched) < 6 or not idle:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.03)
    task.cancel()
    assert (sorted(fetched), most, idle) == ([0, 1, 2, 3, 4, 5], 2, 1)


async def test_request_is_put_back_if_the_queue_stops_during_its_call() -> None:
    begun, ended, put_back = threading.Event(), threading.Event(), list[str]()
    requests = [
        RestRequest(
            Market.SPOT,
            Failures(),
            fetch=lambda: (begun.set(), ended.wait(30)),
            on_fetched=lambda _value: pytest.fail("it hangs"),
            on_retry=lambda retry: pytest.fail(str(retry)),
            on_given_up=pytest.fail,
            on_cancelled=lambda: put_back.append("request"),
        )
    ]
    queue = RestQueue(calls(), lambda _now_s: requests.pop() if requests else None, poll_s=0.005)
    task = asyncio.create_task(queue.run())
    async with asyncio.timeout(30):
        while not begun.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    ended.set()
    assert put_back == ["request"]
