from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.backoff import Backoff
from include.binance.streams.connect_budget import CONNECT_WINDOW_S, ConnectBudget

HOST = "stream.example:9443"
EXCHANGE_LIMIT = 300


def test_attempts_beyond_the_limit_get_a_wait() -> None:
    budget = ConnectBudget(limit=2, window_s=300)
    assert [budget.take(HOST, now) for now in (0.0, 10.0)] == [0.0, 0.0]
    assert budget.left(HOST, 11.0) == 0
    assert budget.take(HOST, 100.0) == 200.0
    assert budget.take(HOST, 299.0) == 1.0
    assert budget.take(HOST, 300.0) == 0.0
    assert budget.take(HOST, 300.0) == 10.0


def test_hosts_are_counted_apart() -> None:
    budget = ConnectBudget(limit=1)
    assert budget.take(HOST, 0) == 0.0
    assert budget.take("fstream.example:443", 0) == 0.0
    assert budget.take(HOST, 0) > 0
    assert budget.left("a third", 0) == 1


def test_empty_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        ConnectBudget(limit=0)


@settings(max_examples=30)
@given(
    connections=st.integers(1, 60),
    delays=st.lists(st.floats(0, 10), min_size=20, max_size=20),
    lives=st.lists(st.floats(0, 40), min_size=20, max_size=20),
)
def test_connections_that_all_fail_for_an_hour_stay_below_the_exchanges_limit(
    connections: int, delays: list[float], lives: list[float]
) -> None:
    budget = ConnectBudget()
    backoff = Backoff(first_s=1.0, max_s=30.0, min_s=0.05)
    due = [(0.0, number, 0) for number in range(connections)]
    arrivals: list[float] = []
    turn = 0
    while due and due[0][0] < 3_600:
        now_s, number, failures = heapq.heappop(due)
        wait_s = budget.take(HOST, now_s)
        if wait_s == 0:
            turn += 1
            arrivals.append(now_s + delays[turn % 20])  # each may be long on the way
            lived_s = lives[turn % 20]
            failures = 0 if lived_s > 30 else failures + 1
            wait_s = lived_s + backoff.wait_s(failures)
        heapq.heappush(due, (now_s + wait_s, number, failures))
    arrivals.sort()
    first = 0
    for last, arrived_s in enumerate(arrivals):
        while arrived_s - arrivals[first] > CONNECT_WINDOW_S:
            first += 1
        assert last - first + 1 < EXCHANGE_LIMIT
    assert len(arrivals) >= connections  # each had its turn
