"""What is written about logins, with a simulated table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from include.domain.accounts import LoginOutcome
from include.errors import TransientError
from include.store.accounts.logins import LoginAttempt
from serving.auth import login_audit as module
from serving.auth.client_network import network_of
from serving.auth.login_audit import MAX_COUNTED, LoginAudit

HOME = network_of("192.0.2.1")


class Table:
    def __init__(self) -> None:
        self.rows: list[LoginAttempt] = []
        self.is_away = False
        self.written = asyncio.Event()

    async def write(
        self, attempts: Sequence[LoginAttempt]
    ) -> list[tuple[LoginAttempt, str | None]]:
        if self.is_away:
            raise TransientError("away")
        self.rows += attempts
        self.written.set()
        return [(one, one.name if one.name == "anna" else None) for one in attempts]


async def test_checked_logins_are_reported_at_once() -> None:
    table = Table()
    audit = LoginAudit(table.write)
    with capture_logs() as logs:
        await audit.record(LoginOutcome.SUCCEEDED, "anna", HOME)
        await audit.record(LoginOutcome.FAILED, "correct horse", HOME)
    assert [one.outcome for one in table.rows] == [LoginOutcome.SUCCEEDED, LoginOutcome.FAILED]
    assert [(one["event"], one["log_level"], one["account"]) for one in logs] == [
        ("login_succeeded", "info", "anna"),
        ("login_failed", "warning", None),
    ]
    assert {one["network"] for one in logs} == {"192.0.2.1/32"}


async def test_name_of_no_account_is_never_logged() -> None:
    """It may be a password that was typed into the wrong field."""
    table = Table()
    audit = LoginAudit(table.write)
    with capture_logs() as logs:
        await audit.record(LoginOutcome.FAILED, "correct horse", HOME)
        audit.count_refused("correct horse", HOME)
        await audit.flush()
        table.is_away = True
        audit.count_refused("correct horse", HOME)
        await audit.flush()
    assert [one["event"] for one in logs] == [
        "login_failed", "login_refused", "logins_not_recorded",
    ]  # fmt: skip
    assert "correct horse" not in str(logs)


async def test_refused_logins_are_counted_and_written_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WRITE_INTERVAL_S", 0.01)
    table = Table()
    audit = LoginAudit(table.write)
    for _ in range(300):
        audit.count_refused("anna", HOME)
    running = asyncio.create_task(audit.run())
    await asyncio.wait_for(table.written.wait(), 10)
    running.cancel()
    assert table.rows == [LoginAttempt(LoginOutcome.REFUSED, "anna", "192.0.2.1/32", 300)]


async def test_counts_are_bounded_and_none_is_lost() -> None:
    table = Table()
    audit = LoginAudit(table.write)
    for i in range(3 * MAX_COUNTED):
        audit.count_refused(f"name {i}", HOME)
    await audit.flush()
    assert len(table.rows) == MAX_COUNTED + 1
    assert sum(one.attempts for one in table.rows) == 3 * MAX_COUNTED
