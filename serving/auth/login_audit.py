"""Reports each login in the log and in the audit table; refused ones are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from include.domain.accounts import LoginOutcome
from include.errors import PermanentError, TransientError
from include.store.accounts.logins import LoginAttempt
from serving.auth.client_network import ClientNetwork

log = structlog.get_logger(__name__)

WRITE_INTERVAL_S = 10.0
"""Seconds for which refused logins are counted before they are written together."""
MAX_COUNTED = 100
"""Networks and names that are counted apart between two writes; further ones together."""
OTHERS = (None, "")

Write = Callable[[Sequence[LoginAttempt]], Awaitable[list[tuple[LoginAttempt, str | None]]]]


class LoginAudit:
    """The audit log of a serving process.

    Args:
        write: writes attempts to the table, and returns each with its account.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._refused: dict[tuple[str | None, str], int] = {}
        self._has_refused = asyncio.Event()

    async def record(self, outcome: LoginOutcome, name: str, network: ClientNetwork) -> None:
        """Report a login whose password was checked.

        Raises:
            TransientError: PostgreSQL is unreachable or busy.
        """
        await self._report([LoginAttempt(outcome, name, network.cidr)])

    def count_refused(self, name: str, network: ClientNetwork) -> None:
        """Count a login that was refused without a check of its password."""
        key = (network.cidr, name)
        if key not in self._refused and len(self._refused) >= MAX_COUNTED:
            key = OTHERS
        self._refused[key] = self._refused.get(key, 0) + 1
        self._has_refused.set()

    async def run(self) -> None:
        """Write the counts of refused logins at intervals, until cancelled."""
        while True:
            await self._has_refused.wait()
            await asyncio.sleep(WRITE_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Write the counts of refused logins now."""
        self._has_refused.clear()
        counted, self._refused = self._refused, {}
        attempts = [
            LoginAttempt(LoginOutcome.REFUSED, name, network, attempts=number)
            for (network, name), number in counted.items()
        ]
        try:
            await self._report(attempts)
        except (TransientError, PermanentError, TimeoutError) as error:
            # The names stay out of the log, because they may be passwords.
            log.warning(
                "logins_not_recorded",
                attempts=sum(counted.values()),
                networks=len({one.network for one in attempts}),
                error=str(error) or "timeout",
            )

    async def _report(self, attempts: Sequence[LoginAttempt]) -> None:
        for one, account in await self._write(attempts):
            fields = {"account": account, "network": one.network, "attempts": one.attempts}
            match one.outcome:
                case LoginOutcome.SUCCEEDED:
                    log.info("login_succeeded", **fields)
                case LoginOutcome.FAILED:
                    log.warning("login_failed", **fields)
                case LoginOutcome.REFUSED:
                    log.warning("login_refused", **fields)
