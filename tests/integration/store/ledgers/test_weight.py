"""Request-weight budget shared by all processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from include.errors import PermanentError
from include.store.ledgers.weight import acquire_weight, report_weight

Connection = psycopg.Connection[Any]

HOST = "api.example.com"


def within_one_minute(connection: Connection, act: Callable[[str], Any]) -> Any:
    """Run against a fresh host; once more if the clock's minute changed meanwhile."""
    minute = "SELECT date_trunc('minute', clock_timestamp())"
    for host in ("first.example.com", "second.example.com"):
        before = connection.execute(minute).fetchone()
        result = act(host)
        if connection.execute(minute).fetchone() == before:
            return result
    raise AssertionError("two runs of a second met two ends of a minute")


def test_weight_is_granted_up_to_the_limit(connection: Connection) -> None:
    def act(host: str) -> list[Any]:
        return [acquire_weight(connection, host, weight, weight_limit=10) for weight in (6, 4, 1)]

    first, second, refused = within_one_minute(connection, act)

    assert [first.granted, second.granted, refused.granted] == [True, True, False]
    assert [first.used, second.used, refused.used] == [6, 10, 10]
    assert (first.wait_ms, 0 < refused.wait_ms <= 60_000) == (0, True)


def test_processes_together_never_use_more_than_the_limit(
    connection: Connection, connect_again: Callable[[str], Connection]
) -> None:
    connections = [connect_again(f"worker-{n}") for n in range(4)]

    def act(host: str) -> int:
        def ask(mine: Connection) -> int:
            return sum(acquire_weight(mine, host, 3, weight_limit=100).granted for _ in range(20))

        with ThreadPoolExecutor(4) as threads:
            return sum(threads.map(ask, connections, timeout=60))

    assert within_one_minute(connection, act) == 33


def test_new_minute_starts_a_new_window(connection: Connection) -> None:
    acquire_weight(connection, HOST, 10, weight_limit=10)
    connection.execute(
        "UPDATE ops.weight_budget SET window_start = window_start - interval '1 min'"
    )

    assert acquire_weight(connection, HOST, 10, weight_limit=10).granted


def test_each_host_has_its_own_budget(connection: Connection) -> None:
    acquire_weight(connection, HOST, 10, weight_limit=10)

    assert acquire_weight(connection, "fapi.example.com", 10, weight_limit=10).granted


def test_header_raises_the_used_weight_but_never_lowers_it(
    connection: Connection,
) -> None:
    def act(host: str) -> list[int]:
        used = [acquire_weight(connection, host, 5).used]
        for told in (40, 7):
            report_weight(connection, host, used=told)
            used.append(acquire_weight(connection, host, 0).used)
        return used

    assert within_one_minute(connection, act) == [5, 40, 40]


def test_header_of_the_former_minute_is_ignored(connection: Connection) -> None:
    def act(host: str) -> list[int]:
        grant = acquire_weight(connection, host, 5)
        assert grant.window is not None
        used = []
        for window in (grant.window - timedelta(minutes=1), grant.window):
            report_weight(connection, host, used=4_000, window=window)
            used.append(acquire_weight(connection, host, 1).used)
        return used

    assert within_one_minute(connection, act) == [6, 4_001]


def test_window_restarts_after_the_clock_was_set_back(
    connection: Connection,
) -> None:
    acquire_weight(connection, HOST, 10, weight_limit=10)
    connection.execute(
        "UPDATE ops.weight_budget SET window_start = window_start + interval '1 hour'"
    )

    grant = acquire_weight(connection, HOST, 10, weight_limit=10)

    assert (grant.granted, grant.used) == (True, 10)


def test_header_of_a_window_ahead_of_the_clock_is_ignored(
    connection: Connection,
) -> None:
    def act(host: str) -> list[int]:
        grant = acquire_weight(connection, host, 5)
        assert grant.window is not None
        ahead = grant.window + timedelta(hours=1)
        report_weight(connection, host, used=4_000, window=ahead)
        used = [acquire_weight(connection, host, 1).used]
        connection.execute("UPDATE ops.weight_budget SET window_start = %s", (ahead,))
        report_weight(connection, host, used=30, window=grant.window)
        used.append(acquire_weight(connection, host, 1).used)
        return used

    assert within_one_minute(connection, act) == [6, 31]


def test_retry_after_counts_for_any_window(connection: Connection) -> None:
    grant = acquire_weight(connection, HOST, 1)
    assert grant.window is not None
    ahead = grant.window + timedelta(hours=1)

    report_weight(connection, HOST, used=1, retry_after_ms=90_000, window=ahead)

    assert not acquire_weight(connection, HOST, 1).granted


def test_retry_after_blocks_all_requests(connection: Connection) -> None:
    report_weight(connection, HOST, used=1, retry_after_ms=90_000)
    report_weight(connection, HOST, used=1, retry_after_ms=1000)

    refused = acquire_weight(connection, HOST, 1)
    connection.execute("UPDATE ops.weight_budget SET blocked_until = clock_timestamp()")
    granted = acquire_weight(connection, HOST, 1)

    assert not refused.granted
    assert 60_000 < refused.wait_ms <= 90_000
    assert granted.granted


def test_weight_above_the_limit_is_refused(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="exceeds the limit"):
        acquire_weight(connection, HOST, 11, weight_limit=10)


def test_budget_is_refused_inside_a_transaction(connection: Connection) -> None:
    with connection.transaction(), pytest.raises(PermanentError, match="outside a transaction"):
        acquire_weight(connection, HOST, 1)
