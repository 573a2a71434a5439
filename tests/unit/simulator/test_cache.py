"""The cache shared by threads: eviction, and computing values once."""

import threading
import time

import pytest

from simulator.cache import BoundedCache


def test_least_recently_used_value_is_evicted_first() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda: 0)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)


def test_weights_share_the_size_and_the_newest_value_always_stays() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(10, weigh=len)
    cache.get("a", lambda: b"1234")
    cache.get("b", lambda: b"123456")
    assert ("a" in cache, "b" in cache) == (True, True)
    cache.get("c", lambda: b"1")
    assert ("a" in cache, "b" in cache, "c" in cache) == (False, True, True)
    cache.get("d", lambda: bytes(99))
    assert ("b" in cache, "c" in cache, "d" in cache) == (False, False, True)


@pytest.mark.parametrize("workers", [4])
def test_threads_compute_the_same_value_once(workers: int) -> None:
    cache: BoundedCache[str, int] = BoundedCache(4, makes_once=True)
    made: list[int] = []
    begun = threading.Barrier(workers)

    def make() -> int:
        made.append(1)
        time.sleep(0.05)  # long enough for the other threads to arrive
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


def test_failed_computation_raises_and_is_not_cached() -> None:
    cache: BoundedCache[str, int] = BoundedCache(4, makes_once=True)

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get("a", fail)
    assert cache.get("a", lambda: 5) == 5
