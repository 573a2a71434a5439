"""Authentication of sessions and tokens, logins, and watchlists.

Sessions and tokens are cached for 30 s; a notification from PostgreSQL clears the cache earlier,
and open connections are then checked again. Nothing here waits for PostgreSQL if there are no
accounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import psycopg
import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.accounts import MAX_PASSWORD, Identity, LoginOutcome, is_name
from include.domain.timeframes import SECOND_US
from include.errors import PermanentError, TransientError
from include.store.accounts.credentials import is_password, new_session_secret, secret_hash
from include.store.accounts.logins import has_logged_in, record_logins
from include.store.accounts.notifications import notified_channels
from include.store.accounts.users import (
    begin_session,
    can_anyone_log_in,
    identities,
    password_of,
)
from include.store.accounts.watchlists import (
    ACCESS_CHANNEL,
    WATCHLISTS_CHANNEL,
    watchlist,
    watchlists_async,
)
from include.store.candles.merging import Connection
from serving.auth.client_network import ClientNetwork
from serving.auth.login_audit import LoginAudit
from serving.auth.login_queue import LoginQueue
from serving.read_pool import ReadPool

log = structlog.get_logger(__name__)

CACHE_TTL_S = 30.0
"""Cached sessions and tokens are valid this long, unless a notification ends them."""
OUTAGE_TTL_S = 600.0
"""The same while PostgreSQL is unreachable: sessions cannot be ended then, and data in memory
stays available.
"""
RETRY_INTERVAL_S = 5.0
MAX_CACHED = 10_000
MAX_SECRET = 200
"""Characters; ours have about fifty."""
READ_TIMEOUT_S = 10.0
ACCOUNTS_WAIT_S = 1.0
"""Longest wait for whether there are accounts: the page's log-in button does without."""
BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.1)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Principal:
    """Authenticated identity and the hash of its credential."""

    identity: Identity
    secret_hash: bytes


@dataclass(eq=False, slots=True)
class OpenConnection:
    """A long-lived connection and its principal.

    Attributes:
        over: set when the session or token has ended.
    """

    principal: Principal
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _CachedIdentity:
    """The identity of a credential when it was read, and how long it is valid."""

    identity: Identity | None
    read_s: float
    until_s: float


@dataclass(eq=False, slots=True)
class _WatchlistFollower:
    """A reader of a user's watchlist."""

    user_id: int
    symbols: tuple[str, ...] | None = None
    read: int = 0
    """Number of the read that the symbols come from."""
    is_due: bool = False
    """Send the symbols even if they have not changed."""
    mailbox: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, symbols: tuple[str, ...], read: int, *, force: bool = False) -> None:
        """Set the symbols, unless a later read has set them already."""
        if read > self.read:
            self.read, self.symbols = read, symbols
        self.is_due |= force
        self.mailbox.set()


class AuthService:
    """Accounts for a serving process.

    Args:
        url: of role candelabra_accounts; empty if there are no accounts.
        is_required: anonymous requests are refused.
        session_s: how long a login lasts.

    Raises:
        PermanentError: accounts are required, and there is no URL.
    """

    def __init__(
        self,
        url: str = "",
        *,
        is_required: bool = False,
        session_s: float = 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if is_required and not url:
            raise PermanentError(
                "AUTH_REQUIRED=true needs the accounts: set ACCOUNTS_DATABASE_URL or DATABASE_URL"
            )
        self.is_required = is_required
        self.session_s = session_s
        self._url = url
        self._clock = clock
        self._database = ReadPool(url) if url else None
        self._known: OrderedDict[bytes, _CachedIdentity] = OrderedDict()
        self._forgotten = 0
        """Number of times that the cache was cleared; reads that began before are not cached."""
        self._open_connections: set[OpenConnection] = set()
        self._followers: set[_WatchlistFollower] = set()
        self._readings = 0
        self._has_accounts: bool | None = None
        self._has_accounts_until_s = 0.0
        self._is_used = asyncio.Event()
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="passwords")
        self._queue = LoginQueue()
        self._audit = LoginAudit(
            lambda attempts: self.call(partial(record_logins, attempts=attempts))
        )

    @property
    def has_database(self) -> bool:
        """Whether the tables of accounts are configured."""
        return self._database is not None

    async def has_accounts(self) -> bool | None:
        """Whether anyone can log in, as of the last half minute; None if it cannot be read."""
        if self._database is None:
            return False
        if self._clock() >= self._has_accounts_until_s:
            ttl_s = CACHE_TTL_S
            try:
                async with asyncio.timeout(ACCOUNTS_WAIT_S):
                    self._has_accounts = await self.call(can_anyone_log_in)
            except (TransientError, PermanentError, TimeoutError) as error:
                log.debug("accounts_not_read", error=str(error) or "timeout")
                self._has_accounts, ttl_s = None, RETRY_INTERVAL_S
            self._has_accounts_until_s = self._clock() + ttl_s
        return self._has_accounts

    def open(self) -> None:
        """Start; connections are made later."""
        if self._database is not None:
            self._database.open()

    def close(self) -> None:
        """Stop."""
        self._checker.shutdown(wait=False, cancel_futures=True)
        if self._database is not None:
            self._database.close()

    async def call(self, call: Callable[[Connection], Result]) -> Result:
        """Read or write accounts in a thread.

        Raises:
            TransientError: PostgreSQL is unreachable or busy.
            PermanentError: there are no accounts.
        """
        if self._database is None:
            raise PermanentError("no accounts: ACCOUNTS_DATABASE_URL and DATABASE_URL are not set")
        return await self._database.call(call)

    # --- who asks

    async def principal(self, secret: str) -> Principal | None:
        """The principal of a session or token; None if it is unknown or has ended.

        Raises:
            TransientError: PostgreSQL is unreachable or busy.
        """
        if self._database is None or not secret or len(secret) > MAX_SECRET:
            return None
        self._is_used.set()
        hashed = secret_hash(secret)
        known = self._known.get(hashed)
        if known is None or known.until_s < self._clock():
            known = await self._read(hashed, known)
        if known.identity is None or self._left_s(known.identity) <= 0:
            return None
        return Principal(known.identity, hashed)

    async def _read(self, hashed: bytes, before: _CachedIdentity | None) -> _CachedIdentity:
        """Read an identity from the table; the cached one if that is unreachable."""
        now_s, forgotten = self._clock(), self._forgotten
        try:
            found = await self.call(partial(identities, hashes=[hashed]))
        except (TransientError, TimeoutError):
            if before is None or now_s > before.read_s + OUTAGE_TTL_S:
                raise
            before.until_s = now_s + RETRY_INTERVAL_S
            return before
        known = _CachedIdentity(found.get(hashed), read_s=now_s, until_s=now_s + CACHE_TTL_S)
        if forgotten == self._forgotten:
            self._known[hashed] = known
            self._known.move_to_end(hashed)
            if len(self._known) > MAX_CACHED:
                self._known.popitem(last=False)
        return known

    def forget(self) -> None:
        """Clear the cache: a session or token was ended here."""
        self._known.clear()
        self._forgotten += 1

    async def log_in(
        self, name: str, password: str, network: ClientNetwork
    ) -> tuple[str, Identity] | None:
        """Start a session; returns its secret, or None after the same work, whatever was wrong.

        Raises:
            TransientError: PostgreSQL is unreachable or busy.
            LoginRefusedError: too many logins are in progress.
        """
        async with self._queue.turn(network):
            return await self._log_in(name, password, network)

    def refuse_login(self, name: str, network: ClientNetwork) -> None:
        """Count a login that was refused in the audit log."""
        self._audit.count_refused(name, network)

    async def is_usual(self, name: str, network: ClientNetwork) -> bool:
        """Whether this account has logged in from this network before.

        Raises:
            TransientError: PostgreSQL is unreachable or busy.
        """
        if network.cidr is None or not is_name(name):
            return False
        return await self.call(partial(has_logged_in, name=name, network=network.cidr))

    async def _log_in(
        self, name: str, password: str, network: ClientNetwork
    ) -> tuple[str, Identity] | None:
        found = await self.call(partial(password_of, name=name)) if is_name(name) else None
        is_right = await asyncio.get_running_loop().run_in_executor(
            self._checker,
            is_password,
            password[:MAX_PASSWORD],
            None if found is None else found.password_hash,
        )
        secret, identity = new_session_secret(), None
        if found is not None and is_right and not found.is_disabled:
            identity = await self.call(
                partial(
                    begin_session,
                    login=found,
                    secret_hash=secret_hash(secret),
                    lifetime_s=self.session_s,
                )
            )
        outcome = LoginOutcome.FAILED if identity is None else LoginOutcome.SUCCEEDED
        await self._audit.record(outcome, name, network)
        return None if identity is None else (secret, identity)

    @contextlib.contextmanager
    def stay(self, principal: Principal) -> Iterator[OpenConnection]:
        """Register a long-lived connection; its ``over`` is set when the session or token ends."""
        open_connection = OpenConnection(principal)
        left_s = self._left_s(principal.identity)
        ending = asyncio.get_running_loop().call_later(max(0.0, left_s), open_connection.over.set)
        self._open_connections.add(open_connection)
        try:
            yield open_connection
        finally:
            ending.cancel()
            self._open_connections.discard(open_connection)

    async def watchlists(self, user_id: int) -> AsyncGenerator[tuple[str, ...], None]:
        """Yield the symbols on a user's watchlist, now and on each change; close it after use."""
        follower = _WatchlistFollower(user_id)
        self._followers.add(follower)
        self._is_used.set()
        sent: tuple[str, ...] | None = None
        try:
            await self._read_for(user_id, [follower])
            while True:
                if follower.symbols is not None and (follower.is_due or follower.symbols != sent):
                    follower.is_due = False
                    sent = follower.symbols
                    yield sent
                    continue
                follower.mailbox.clear()
                await follower.mailbox.wait()
        finally:
            self._followers.discard(follower)

    async def publish_watchlist(self, user_id: int) -> None:
        """Send a watchlist to all its readers, even if it has not changed.

        The client that changed it already shows the change; if another change reverts it, the list
        equals the last one sent, and the client must be corrected.
        """
        followers = [one for one in self._followers if one.user_id == user_id]
        if followers:
            await self._read_for(user_id, followers, force=True)

    async def _read_for(
        self, user_id: int, followers: list[_WatchlistFollower], *, force: bool = False
    ) -> None:
        read = self._next_reading()
        with contextlib.suppress(TransientError, PermanentError, TimeoutError):  # sent by run()
            found = await self.call(partial(watchlist, user_id=user_id))
            for one in followers:
                one.take(tuple(symbol for symbol, _ in found), read, force=force)

    def _next_reading(self) -> int:
        self._readings += 1
        return self._readings

    # --- what changes

    async def run(self) -> None:
        """Follow notifications of ended sessions and changed watchlists, until cancelled."""
        if self._database is None:
            return
        async with asyncio.TaskGroup() as works:
            works.create_task(self._audit.run(), name="login audit")
            works.create_task(self._follow(), name="access")

    async def _follow(self) -> None:
        await self._is_used.wait()
        channels = (ACCESS_CHANNEL, WATCHLISTS_CHANNEL)

        async def follow() -> None:
            notifications = notified_channels(
                self._url, channels, application_name="candelabra-access"
            )
            async with contextlib.aclosing(notifications):
                async for connection, notified in notifications:
                    await self._take(connection, notified)
                    loop.succeeded()

        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),
            on_retry=partial(log.warning, "accounts_not_heard"),
            timeout_text=f"no answer within {READ_TIMEOUT_S:g} s",
        )
        await loop.run(follow)

    async def _take(
        self, connection: psycopg.AsyncConnection[Any], channels: frozenset[str]
    ) -> None:
        if ACCESS_CHANNEL in channels:
            self.forget()
            await self._recheck_guests()
        if WATCHLISTS_CHANNEL in channels and self._followers:
            user_ids = {one.user_id for one in self._followers}
            read = self._next_reading()
            async with asyncio.timeout(READ_TIMEOUT_S):
                lists = await watchlists_async(connection, user_ids)
            for one in self._followers:
                if one.user_id in lists:
                    one.take(lists[one.user_id], read)

    async def _recheck_guests(self) -> None:
        guests = list(self._open_connections)
        if not guests:
            return
        hashes = {one.principal.secret_hash for one in guests}
        left = await self.call(partial(identities, hashes=hashes))
        for one in guests:
            if one.principal.secret_hash not in left:
                one.over.set()

    def seconds_left(self, identity: Identity) -> int:
        """Seconds until a session or token ends."""
        return max(0, round(self._left_s(identity)))

    def _left_s(self, identity: Identity) -> float:
        if identity.expires_us is None:
            return 365 * 86_400.0
        return identity.expires_us / SECOND_US - self._clock()
