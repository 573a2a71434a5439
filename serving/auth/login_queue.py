"""Serves concurrent logins in turns, so that no network waits for another's flood."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from include.errors import TransientError
from serving.auth.client_network import ClientNetwork

MAX_WAITING = 100
"""Logins that may wait. At a sixth of a second each, the last one waits for 17 s at most."""
TURN_TIMEOUT_S = 20.0
"""Longest wait for a turn: PostgreSQL may be slow to answer those before."""


class LoginRefusedError(TransientError):
    """Too many logins wait, or those before this one took too long."""


_Waiting = deque[asyncio.Future[None]]


class LoginQueue:
    """One login at a time: site after site, in each site network after network.

    A login waits for one login of every other site at most, and for those of its own site. If the
    queue is full, the newest login of the network and site with most of them is refused.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._sites: OrderedDict[str, OrderedDict[str, _Waiting]] = OrderedDict()
        self._waiting = 0
        self._is_busy = False

    def __len__(self) -> int:
        return self._waiting

    @asynccontextmanager
    async def turn(
        self, network: ClientNetwork, *, timeout_s: float = TURN_TIMEOUT_S
    ) -> AsyncGenerator[None, None]:
        """Wait for the turn of a login from this network; the turn lasts as long as the block.

        Raises:
            LoginRefusedError: too many logins wait, or this one waited too long.
        """
        await self._wait(network, timeout_s)
        try:
            yield
        finally:
            self._next()

    async def _wait(self, network: ClientNetwork, timeout_s: float) -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sites.setdefault(network.site, OrderedDict()).setdefault(
            network.name, deque()
        ).append(mine)
        self._waiting += 1
        if self._waiting > self._max_waiting:
            self._refuse_one(network)
        try:
            async with asyncio.timeout(timeout_s):
                await mine
        except TimeoutError:
            raise LoginRefusedError(
                f"logins before this one took more than {timeout_s:g} s; try again"
            ) from None
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._next()  # its turn came while it was cancelled
            raise
        finally:
            self._forget(network, mine)

    def _next(self) -> None:
        """Give the turn to the network that waits longest."""
        if not self._sites:
            self._is_busy = False
            return
        site, networks = self._sites.popitem(last=False)
        name, waiting = networks.popitem(last=False)
        mine = waiting.popleft()
        if waiting:
            networks[name] = waiting
        if networks:
            self._sites[site] = networks
        self._waiting -= 1
        mine.set_result(None)

    def _refuse_one(self, newest: ClientNetwork) -> None:
        """Refuse the newest login of who has most; the newest of all where several have as many."""
        counts = {site: sum(map(len, networks.values())) for site, networks in self._sites.items()}
        site = max(counts, key=lambda one: (counts[one], one == newest.site))
        networks = self._sites[site]
        name = max(networks, key=lambda one: (len(networks[one]), one == newest.name))
        refused = networks[name][-1]
        self._forget(ClientNetwork(name, site), refused)
        refused.set_exception(LoginRefusedError("too many concurrent logins; try again"))

    def _forget(self, network: ClientNetwork, mine: asyncio.Future[None]) -> None:
        networks = self._sites.get(network.site, OrderedDict())
        waiting = networks.get(network.name, deque())
        if mine not in waiting:
            return
        waiting.remove(mine)
        self._waiting -= 1
        if not waiting:
            del networks[network.name]
        if not networks:
            del self._sites[network.site]
