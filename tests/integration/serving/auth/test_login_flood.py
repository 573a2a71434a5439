"""A flood of logins from one network, and a login from another: a real server and database."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from serving.auth import service as module
from serving.auth.login_queue import TURN_TIMEOUT_S
from tests.integration.serving.auth.test_middleware import (
    ANNA,
    accounts_url,
    change,
    open_to,
)

__all__ = ["accounts_url"]  # a fixture

HASHING_S = 0.02
"""Stands for the sixth of a second of a real hash."""


@pytest.fixture(autouse=True)
def _slow_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_password(password: str, password_hash: str | None) -> bool:
        time.sleep(HASHING_S)
        return password_hash is not None and password == ANNA["password"]

    monkeypatch.setattr(module, "is_password", is_password)


def client_at(address: str, host: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(
        local_address=host, limits=httpx.Limits(max_connections=None)
    )
    return httpx.AsyncClient(base_url=address, timeout=60, transport=transport)


async def logins(address: str, host: str, *, number: int, headers: dict[str, str]) -> list[int]:
    wrong = ANNA | {"password": "wrong horse"}
    async with client_at(address, host) as client:
        answers = [client.post("/api/v1/login", json=wrong, headers=headers) for _ in range(number)]
        return [one.status_code for one in await asyncio.gather(*answers)]


async def test_flood_from_one_network_does_not_delay_a_login_from_another(
    accounts_url: str,
) -> None:
    async with open_to(accounts_url, is_required=False) as address:
        flood = asyncio.gather(
            *(logins(address, f"127.0.1.{i}", number=10, headers={}) for i in range(1, 31))
        )
        async with client_at(address, "127.0.2.1") as anna:
            await asyncio.sleep(3 * HASHING_S)
            began_s = time.monotonic()
            answer = await anna.post("/api/v1/login", json=ANNA)
            took_s = time.monotonic() - began_s
        statuses = {status for some in await flood for status in some}
    assert answer.status_code == 200, (answer.text, statuses)
    assert took_s < TURN_TIMEOUT_S  # also on a machine with other work
    assert statuses <= {401, 429}


async def test_forged_header_does_not_make_further_addresses(
    accounts_url: str,
) -> None:
    async with open_to(accounts_url, is_required=False) as address:
        found = []
        for i in range(25):
            header = {"x-forwarded-for": f"10.{i}.0.1", "forwarded": f"for=10.{i}.0.1"}
            found += await logins(address, "127.0.0.1", number=1, headers=header)
    assert 10 <= found.count(401) < 20  # one more every six seconds
    assert set(found) == {401, 429}
    seen: Any = change(
        accounts_url,
        lambda c: c.execute("SELECT DISTINCT network::text FROM accounts.logins").fetchall(),
    )
    assert seen == [("127.0.0.1/32",)]


async def test_trusted_proxy_names_the_client(accounts_url: str) -> None:
    """The last address that is no trusted proxy's: a client can write what it likes before it."""
    proxies = ("127.0.0.0/8", "10.0.0.0/8")
    server = open_to(accounts_url, is_required=False, trusted_proxies=proxies)
    async with server as address:
        for forwarded in (
            "192.0.2.1",
            "203.0.113.9, 192.0.2.1",
            "203.0.113.9, 192.0.2.1, 10.0.0.1",
            "127.0.0.1, 192.0.2.1, 127.0.0.2",
        ):
            await logins(address, "127.0.0.1", number=1, headers={"x-forwarded-for": forwarded})
    seen: Any = change(
        accounts_url,
        lambda c: c.execute(
            "SELECT network::text, count(*) FROM accounts.logins GROUP BY network"
        ).fetchall(),
    )
    assert seen == [("192.0.2.1/32", 4)]
