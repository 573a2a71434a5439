"""Waits between tries, and tries that end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.backoff import Backoff, RetryLoop, retried, retried_async
from include.errors import PermanentError, RateLimitedError, TransientError


def upper(_low: float, high: float) -> float:
    return high


class Clock:
    """Time that passes only while sleeping."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


@pytest.mark.parametrize(
    ("failures", "bound_s"), [(0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (10**9, 30.0)]
)
def test_bound_doubles_up_to_the_maximum(failures: int, bound_s: float) -> None:
    assert Backoff(first_s=1.0, max_s=30.0, uniform=upper).wait_s(failures) == bound_s


def test_waits_spread_over_the_whole_range_below_the_bound() -> None:
    backoff = Backoff(first_s=1.0, max_s=30.0, min_s=0.05)
    waits = [backoff.wait_s(4) for _ in range(400)]
    assert 0.05 <= min(waits) < 2 < 6 < max(waits) <= 8


def test_no_wait_is_shorter_than_the_minimum() -> None:
    backoff = Backoff(first_s=0.01, max_s=0.01, min_s=0.2)
    assert {backoff.wait_s(failures) for failures in range(5)} == {0.2}


def test_retry_after_is_waited_in_full() -> None:
    backoff = Backoff(first_s=1.0, max_s=30.0)
    waits = [backoff.wait_s(1, RateLimitedError("429", retry_after_s=37)) for _ in range(100)]
    assert 37 <= min(waits) < max(waits) <= 38


def test_call_is_retried_until_it_succeeds_and_each_wait_is_reported() -> None:
    clock, told = Clock(), []
    answer = retried(
        failing(TransientError("one"), TransientError("two")),
        backoff=Backoff(first_s=1.0, max_s=30.0, uniform=upper),
        attempts=3,
        on_retry=lambda **fields: told.append(fields),
        sleep=clock.sleep,
        clock=clock,
    )
    assert answer == "done"
    assert told == [
        {"attempt": 1, "retry_in_s": 1.0, "error": "one"},
        {"attempt": 2, "retry_in_s": 2.0, "error": "two"},
    ]
    assert clock.slept == [1.0, 2.0]


@pytest.mark.parametrize(
    ("limits", "slept"),
    [
        ({"attempts": 2}, [1.0]),
        ({"attempts": 1}, []),
        ({"attempts": 100, "max_elapsed_s": 4.0}, [1.0, 2.0]),  # 4 s more would end after 7 s
    ],
)
def test_retries_end_by_number_or_time_with_the_last_error(
    limits: dict[str, float], slept: list[float]
) -> None:
    clock = Clock()
    with pytest.raises(TransientError, match=f"try {len(slept) + 1}"):
        retried(
            failing(*[TransientError(f"try {number}") for number in range(1, 200)]),
            backoff=Backoff(first_s=1.0, max_s=30.0, uniform=upper),
            on_retry=lambda **_: None,
            sleep=clock.sleep,
            clock=clock,
            **limits,  # type: ignore[arg-type]
        )
    assert clock.slept == slept


@pytest.mark.parametrize(
    "error", [PermanentError("no"), RateLimitedError("later", retry_after_s=1), ZeroDivisionError()]
)
def test_permanent_errors_and_long_waits_are_raised_immediately(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        retried(
            failing(error),
            backoff=Backoff(first_s=1.0, max_s=1.0),
            attempts=5,
            unless=(RateLimitedError,),
            on_retry=lambda **_: None,
            sleep=clock.sleep,
            clock=clock,
        )
    assert clock.slept == []


async def test_async_call_is_retried_only_after_the_given_errors() -> None:
    clock, retries = Clock(), []

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)

    async def run(*errors: Exception) -> str:
        call = failing(*errors)

        async def once() -> str:
            return call()

        return await retried_async(
            once,
            backoff=Backoff(first_s=1.0, max_s=30.0, uniform=upper),
            attempts=3,
            retry_on=(KeyError,),
            on_retry=lambda **fields: retries.append(fields["attempt"]),
            sleep=sleep,
        )

    assert await run(KeyError(), KeyError()) == "done"
    with pytest.raises(KeyError):
        await run(*[KeyError()] * 3)
    with pytest.raises(TransientError):
        await run(TransientError("not given"))
    assert clock.slept == [1.0, 2.0, 1.0, 2.0]
    assert retries == [1, 2, 1, 2]


class Step:
    """A step of a loop, which fails as told and then hangs the loop up."""

    def __init__(self, *results: Exception | None) -> None:
        self.results = list(results)
        self.clock = Clock()
        self.retries: list[dict[str, object]] = []
        self.cleaned = 0

    async def __call__(self) -> None:
        result = self.results.pop(0)
        if result is not None:
            raise result

    async def clean(self) -> None:
        self.cleaned += 1

    async def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    def loop(self) -> RetryLoop:
        return RetryLoop(
            Backoff(first_s=1.0, max_s=30.0, uniform=upper),
            on_failure=self.clean,
            on_retry=lambda **fields: self.retries.append(fields),
            timeout_text="no answer",
            sleep=self.sleep,
        )


async def test_loop_waits_longer_with_each_failure_until_a_success() -> None:
    away = TransientError("away")
    step = Step(away, TimeoutError(), None, away, PermanentError("wrong password"))
    with pytest.raises(PermanentError, match="wrong password"):
        await step.loop().run(step)
    assert step.clock.slept == [1.0, 2.0, 1.0]
    assert step.retries == [
        {"attempt": 1, "retry_in_s": 1.0, "error": "away"},
        {"attempt": 2, "retry_in_s": 2.0, "error": "no answer"},
        {"attempt": 1, "retry_in_s": 1.0, "error": "away"},
    ]
    assert step.cleaned == 3


async def test_endless_step_can_report_its_success() -> None:
    step = Step(TransientError("away"), TransientError("away"), PermanentError("end"))
    loop = step.loop()

    async def deliver() -> None:
        loop.succeeded()
        await step()

    with pytest.raises(PermanentError):
        await loop.run(deliver)
    assert step.clock.slept == [1.0, 1.0]
