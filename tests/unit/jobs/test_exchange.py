"""The shared budget waits as the ledger says, and lives on a reserve while it is away."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from include.binance.rest.weights import WEIGHT_LIMITS, LocalBudget
from include.config import Settings
from include.domain.instruments import Market
from include.errors import RateLimitedError, TransientError
from include.jobs import exchange
from include.jobs.exchange import SharedBudget
from include.store.ledgers.files import WeightGrant


class Reserve:
    def __init__(self) -> None:
        self.taken: list[int] = []
        self.reports: list[tuple[int | None, float | None]] = []

    def take(self, weight: int) -> None:
        self.taken.append(weight)

    def report(self, used: int | None, *, retry_after_s: float | None = None) -> None:
        self.reports.append((used, retry_after_s))


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers of ``acquire_weight`` in turn, and what was reported."""
    state: dict[str, Any] = {"grants": [], "reported": [], "opened": []}

    def take(_connection: object, host: str, weight: int, *, weight_limit: int) -> WeightGrant:
        assert (host, weight_limit) == ("api.test", 4_500)
        answer = state["grants"].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report(_connection: object, host: str, **values: object) -> None:
        state["reported"].append((host, values))

    monkeypatch.setattr(exchange, "acquire_weight", take)
    monkeypatch.setattr(exchange, "report_weight", report)
    return state


def budget(ledger: dict[str, Any], **options: float) -> tuple[SharedBudget, Reserve, list[float]]:
    reserve, slept = Reserve(), []

    def connect() -> Any:
        if ledger.get("away"):
            raise TransientError("the database is away")
        ledger["opened"].append(Connection())
        return ledger["opened"][-1]

    made = SharedBudget(
        connect, host="api.test", limit=4_500, reserve=reserve, sleep=slept.append, **options
    )
    return made, reserve, slept


GRANTED = WeightGrant(True, 2, 0)


def test_budget_waits_as_long_as_the_ledger_says(ledger: dict[str, Any]) -> None:
    ledger["grants"] = [WeightGrant(False, 4_500, 2_000), GRANTED]
    made, reserve, slept = budget(ledger)
    made.take(2)
    assert len(slept) == 1
    assert 2 <= slept[0] <= 2.25
    assert (reserve.taken, len(ledger["opened"])) == ([], 1)


def test_too_long_wait_raises(ledger: dict[str, Any]) -> None:
    ledger["grants"] = [WeightGrant(False, 0, 3_600_000)]
    made, _, slept = budget(ledger, max_wait_s=100)
    with pytest.raises(RateLimitedError):
        made.take(2)
    assert slept == []


def test_reserve_is_used_while_the_database_is_unavailable(ledger: dict[str, Any]) -> None:
    ledger["away"] = True
    made, reserve, _ = budget(ledger)
    made.take(2)
    made.take(3)
    assert reserve.taken == [2, 3]


def test_broken_connection_is_closed_and_the_reserve_used(ledger: dict[str, Any]) -> None:
    ledger["grants"] = [GRANTED, TransientError("broken")]
    made, reserve, _ = budget(ledger)
    made.take(2)
    made.take(5)
    assert (reserve.taken, ledger["opened"][0].closed) == ([5], True)


def test_headers_reach_the_ledger_and_the_reserve(ledger: dict[str, Any]) -> None:
    made, reserve, _ = budget(ledger)
    made.report(41, retry_after_s=1.5)
    made.report(None)
    assert ledger["reported"] == [
        ("api.test", {"used": 41, "retry_after_ms": 1_500, "window": None})
    ]
    assert reserve.reports == [(41, 1.5), (None, None)]


def test_header_reaches_the_ledger_with_the_minute_of_its_request(ledger: dict[str, Any]) -> None:
    minutes = [datetime(2026, 11, 21, 12, minute, tzinfo=UTC) for minute in (0, 1)]
    ledger["grants"] = [WeightGrant(True, 2, 0, minute) for minute in minutes]
    made, _, _ = budget(ledger)
    for used in (7, 8):
        made.take(2)
        made.report(used)
    assert [told["window"] for _, told in ledger["reported"]] == minutes


@pytest.mark.parametrize("market", list(Market))
def test_reserves_of_all_processes_fit_beside_the_shared_budget(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waited(Exception):
        pass

    def wait(_seconds: float) -> None:
        raise Waited

    monkeypatch.setattr(
        exchange, "LocalBudget", partial(LocalBudget, sleep=wait, clock=lambda: 0.0)
    )
    settings = Settings(_env_file=None, rest_weight_share=0.75)
    used = 0
    for _ in range(exchange.MAX_PROCESSES):
        reserve = exchange._reserve(settings, market)
        with suppress(Waited):
            for _ in range(WEIGHT_LIMITS[market]):
                reserve.take(2)
        used += reserve.used
    assert 0 < used <= WEIGHT_LIMITS[market] / 4
