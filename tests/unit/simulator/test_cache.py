"""The cache between threads: what it keeps, and how often it makes a value."""

import threading
import time

import pytest

from simulator.cache import BoundedCache


def test_the_least_recently_used_value_goes_first() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda: 0)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)


def test_weighed_values_share_the_size_and_the_last_one_stays_whatever_it_weighs() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(10, weigh=len)
    cache.get("a", lambda: b"1234")
    cache.get("b", lambda: b"123456")
    assert ("a" in cache, "b" in cache) == (True, True)
    cache.get("c", lambda: b"1")
    assert ("a" in cache, "b" in cache, "c" in cache) == (False, True, True)
    cache.get("d", lambda: bytes(99))
    assert ("b" in cache, "c" in cache, "d" in cache) == (False, False, True)


@pytest.mark.parametrize("workers", [4])
def test_threads_that_want_the_same_value_have_it_made_once(workers: int) -> None:
    cache: BoundedCache[str, int] = BoundedCache(4, makes_once=True)
    made: list[int] = []
    begun = threading.Barrier(workers)

    def make() -> int:
        made.append(1)
        time.sleep(0.05)  # long enough for the others to come
        return len(made)

    def ask() -> None:
        begun.wait(timeout=10)
        assert cache.get("a", make) == 1

    threads = [threading.Thread(target=ask) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert made == [1]


def test_a_failure_to_make_is_the_callers_and_is_not_kept() -> None:
    cache: BoundedCache[str, int] = BoundedCache(4, makes_once=True)

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get("a", fail)
    assert cache.get("a", lambda: 5) == 5
