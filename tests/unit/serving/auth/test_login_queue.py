"""Turns of logins from several networks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from serving.auth.client_network import ClientNetwork, network_of
from serving.auth.login_queue import LoginQueue, LoginRefusedError

ATTACKER = network_of("192.0.2.1")
SAME_SITE = network_of("192.0.2.200")
ELSEWHERE = network_of("198.51.100.1")


class Turns:
    """Logins that end when the test says so."""

    def __init__(self, queue: LoginQueue) -> None:
        self.queue = queue
        self.order: list[str] = []
        self.refused: list[str] = []
        self.end = asyncio.Semaphore(0)
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, *logins: tuple[str, ClientNetwork]) -> None:
        for name, network in logins:
            self.tasks.append(asyncio.create_task(self._log_in(name, network)))
            await asyncio.sleep(0)

    async def finish(self) -> list[str]:
        for _ in self.tasks:
            self.end.release()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 10)
        assert len(self.queue) == 0
        return self.order

    async def _log_in(self, name: str, network: ClientNetwork) -> None:
        try:
            async with self.queue.turn(network):
                self.order.append(name)
                await self.end.acquire()
        except LoginRefusedError:
            self.refused.append(name)


def flood(number: int, network: ClientNetwork = ATTACKER) -> Sequence[tuple[str, ClientNetwork]]:
    return [(f"flood {i}", network) for i in range(number)]


async def test_login_of_another_network_waits_for_one_turn_of_a_flood() -> None:
    turns = Turns(LoginQueue())
    await turns.begin(*flood(60), ("anna", ELSEWHERE))
    order = await turns.finish()
    assert order.index("anna") <= 2
    assert len(order) == 61


async def test_networks_of_one_site_share_its_turns() -> None:
    turns = Turns(LoginQueue())
    many = [(f"flood {i}", network_of(f"192.0.2.{i}")) for i in range(50)]
    await turns.begin(*many, ("anna", ELSEWHERE), ("bob", ELSEWHERE))
    order = await turns.finish()
    assert order.index("anna") <= 2
    assert order.index("bob") <= 4


async def test_network_is_not_kept_waiting_by_another_of_its_site() -> None:
    turns = Turns(LoginQueue())
    await turns.begin(*flood(50), ("anna", SAME_SITE))
    assert (await turns.finish()).index("anna") <= 2


async def test_full_queue_refuses_the_newest_login_of_the_flood() -> None:
    turns = Turns(LoginQueue(max_waiting=5))
    await turns.begin(*flood(6), ("anna", ELSEWHERE), ("bob", SAME_SITE), ("carol", ELSEWHERE))
    order = await turns.finish()
    assert {"anna", "bob", "carol"} <= set(order)
    assert turns.refused == ["flood 5", "flood 4", "flood 3"]


async def test_flood_cannot_refuse_those_who_wait() -> None:
    turns = Turns(LoginQueue(max_waiting=3))
    await turns.begin(("first", ELSEWHERE), ("anna", ELSEWHERE), *flood(40))
    assert "anna" in await turns.finish()
    assert len(turns.refused) == 38


async def test_long_wait_ends_with_a_refusal() -> None:
    queue = LoginQueue()
    async with queue.turn(ATTACKER):
        with pytest.raises(LoginRefusedError):
            async with queue.turn(ELSEWHERE, timeout_s=0.01):
                pass
        assert len(queue) == 0


async def test_cancelled_logins_give_up_their_turn() -> None:
    turns = Turns(LoginQueue())
    await turns.begin(("first", ATTACKER), ("waits", ATTACKER), ("last", ATTACKER))
    turns.tasks.pop(1).cancel()
    assert await turns.finish() == ["first", "last"]
    # The turn is given and the login cancelled in the same round of the loop.
    queue = LoginQueue()
    async with queue.turn(ATTACKER):
        waiting = asyncio.create_task(queue._wait(ELSEWHERE, 10))
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with queue.turn(ATTACKER, timeout_s=0.01):
        pass


async def test_failed_login_gives_up_its_turn() -> None:
    queue = LoginQueue()
    with pytest.raises(ZeroDivisionError):
        async with queue.turn(ATTACKER):
            raise ZeroDivisionError
    async with queue.turn(ELSEWHERE, timeout_s=0.01):
        pass
