"""A client's requests are counted against its own bucket."""

from __future__ import annotations

from serving.http.limits import MAX_CLIENTS, RateLimiter


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_bucket_allows_a_burst_and_refills_evenly() -> None:
    clock = Clock()
    limit = RateLimiter(60, clock=clock)
    assert [limit.take("a")[0] for _ in range(61)] == [True] * 60 + [False]
    may, left, wait_s = limit.take("a")
    assert (may, left, wait_s) == (False, 0, 1.0)
    clock.now_s += 2.5
    assert [limit.take("a")[0] for _ in range(3)] == [True, True, False]
    clock.now_s += 3_600
    assert limit.take("a")[1] == 59


def test_clients_do_not_share_a_bucket() -> None:
    limit = RateLimiter(1, clock=Clock())
    assert limit.take("a")[0]
    assert not limit.take("a")[0]
    assert limit.take("b")[0]


def test_clients_are_bounded_and_the_idlest_is_forgotten() -> None:
    limit = RateLimiter(1, clock=Clock())
    limit.take("first")
    for index in range(MAX_CLIENTS - 1):
        limit.take(f"client {index}")
    assert not limit.take("first")[0]  # seen again: no longer the least recent
    limit.take("one more")
    assert limit.take("client 0")[0]  # was forgotten
    assert not limit.take("first")[0]
