"""Logins, tokens and watchlists as browsers and programs use them: a real server and database."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from include.domain.accounts import Role
from include.store.accounts import credentials
from include.store.accounts import users as accounts
from include.store.accounts.credentials import new_token, secret_hash
from include.store.accounts.watchlists import ACCESS_CHANNEL, WATCHLISTS_CHANNEL
from include.store.postgres.pools import connect
from serving import read_pool as history_module
from serving.app import create_app
from serving.auth.middleware import COOKIE, ENDED
from serving.auth.service import AuthService
from serving.bars.day_prices import DayPriceCache
from serving.bars.live_bars import LiveBars
from serving.http import login_limits as module
from serving.http.server import Place, serving
from serving.read_pool import ReadPool
from tests.integration.serving.http.api_client import NOW_US, Live

PASSWORD = "correct horse"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = CHEAP.hash(PASSWORD)
ANNA = {"name": "anna", "password": PASSWORD}
CLOSED = [
    "/api/v1/candles?symbol=BTCUSDT", "/api/v1/symbols", "/api/v1/prices", "/api/v1/me",
    "/api/v1/health/details", "/api/v1/openapi.json", "/api/v1/nothing", "/udf/config",
    "/udf/history?symbol=BTCUSDT&resolution=1&from=0&to=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _cheap_decoy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs is seen in tests/unit/store/accounts/test_credentials.py."""
    monkeypatch.setattr(credentials, "DECOY", CHEAP.hash("nobody's"))


@pytest.fixture
def accounts_url(stored_url: str) -> str:
    """A database with some minutes, and two accounts."""
    change(stored_url, lambda c: accounts.add_user(c, "anna", HASH, Role.READER))
    change(stored_url, lambda c: accounts.add_user(c, "root", HASH, Role.ADMIN))
    return stored_url


def change(url: str, call: Callable[[psycopg.Connection[Any]], Any]) -> Any:
    with connect(url, application_name="test") as connection:
        return call(connection)


def token_of(url: str, name: str) -> str:
    secret = new_token()
    change(url, lambda c: accounts.add_token(c, name, "test", secret_hash(secret), days=None))
    return secret


@asynccontextmanager
async def open_to(
    url: str, *, is_required: bool, session_s: float = 60, trusted_proxies: tuple[str, ...] = ()
) -> AsyncIterator[str]:
    """A server; its address with the scheme."""
    live_bars = LiveBars(Live, lambda _symbol, _newest: ((), (), ()), is_always_on=True)
    history, auth = ReadPool(url), AuthService(url, is_required=is_required, session_s=session_s)
    history.open()
    auth.open()
    app = create_app(
        live_bars,
        history,
        streamed=lambda: ["BTCUSDT"],
        now_us=lambda: NOW_US,
        newest=live_bars.newest,
        condition=lambda: {"status": "well"},
        prices=DayPriceCache(
            history, streamed=lambda: ["BTCUSDT"], newest=live_bars.newest, now_us=lambda: NOW_US
        ),
        auth=auth,
        requests_per_minute=10_000,
    )
    works = [asyncio.create_task(live_bars.run()), asyncio.create_task(auth.run())]
    try:
        place = Place(
            "127.0.0.1",
            0,
            has_websockets=True,
            max_connections=1_000,
            trusted_proxies=trusted_proxies,
        )
        async with serving(app, place) as address:
            yield address
    finally:
        for one in works:
            one.cancel()
        await asyncio.wait(works)
        history.close()
        auth.close()


@asynccontextmanager
async def browser(address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=address, timeout=20) as client:
        yield client


async def test_open_access_is_read_only(accounts_url: str) -> None:
    async with open_to(accounts_url, is_required=False) as address, browser(address) as client:
        assert (await client.get("/api/v1/candles?symbol=BTCUSDT")).status_code == 200
        me = (await client.get("/api/v1/me")).raise_for_status().json()
        assert (me["user"], me["auth_required"], me["has_accounts"]) == (None, False, True)
        for path in ("/api/v1/watchlist", "/api/v1/sessions", "/api/v1/users"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (
                401,
                "application/problem+json",
            )
        assert (await client.put("/api/v1/watchlist/BTCUSDT")).status_code == 401
        # A program that sends a token wants to be known by it.
        wrong = await client.get("/api/v1/prices", headers={"authorization": "Bearer nonsense"})
        assert wrong.status_code == 401
        # A browser whose session has ended reads on.
        client.cookies.set(COOKIE, "nonsense")
        assert (await client.get("/api/v1/prices")).status_code == 200


async def test_tables_without_an_enabled_account_are_no_accounts(stored_url: str) -> None:
    async with open_to(stored_url, is_required=False) as address, browser(address) as client:
        me = (await client.get("/api/v1/me")).raise_for_status().json()
        assert (me["user"], me["has_accounts"]) == (None, False)
    change(stored_url, lambda c: accounts.add_user(c, "anna", HASH, Role.READER))
    change(stored_url, lambda c: c.execute("UPDATE accounts.users SET disabled_at = now()"))
    async with open_to(stored_url, is_required=False) as address, browser(address) as client:
        me = (await client.get("/api/v1/me")).raise_for_status().json()
        assert me["has_accounts"] is False


async def test_client_that_leaves_within_a_body_is_no_error(
    accounts_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_to(accounts_url, is_required=False) as address, browser(address) as client:
        for _ in range(3):
            _, writer = await asyncio.open_connection(*address.removeprefix("http://").split(":"))
            writer.write(
                b"POST /api/v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b'content-length: 100\r\n\r\n{"name":'
            )
            await writer.drain()
            await client.get("/api/v1/health")  # the server has begun to read the body
            writer.close()
            await writer.wait_closed()
        with capture_logs() as logs:
            await client.get("/api/v1/health")
        await client.get("/api/v1/health")
    assert not [one for one in caplog.records if one.exc_info or one.levelname == "ERROR"]
    assert not [one for one in logs if one["log_level"] in {"warning", "error"}]


async def test_reads_survive_the_end_of_their_idle_sessions(accounts_url: str) -> None:
    """As after a restart or failover of PostgreSQL."""
    end = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'candelabra-serving' AND datname = current_database()"
    )
    async with open_to(accounts_url, is_required=False) as address, browser(address) as client:
        for _ in range(2):
            ended = change(accounts_url, lambda c: c.execute(end).fetchall())
            assert (await client.post("/api/v1/login", json=ANNA)).status_code == 200
            newest = await client.get("/api/v1/candles?symbol=BTCUSDT&limit=1&from=2020-01-01")
            assert newest.status_code == 200
        assert ended
        assert set(ended) == {(True,)}


async def test_required_accounts_refuse_anonymous_reads(accounts_url: str) -> None:
    async with open_to(accounts_url, is_required=True) as address, browser(address) as client:
        for path in CLOSED:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert "/api/v1/login" in answer.json()["detail"]
        for path in ("/", "/page/icon.svg", "/api/v1/health"):
            assert (await client.get(path)).status_code == 200, path
        with pytest.raises(InvalidStatus) as caught:
            await connect_socket(f"ws{address.removeprefix('http')}/api/v1/ws")
        assert caught.value.response.status_code == 403

        begun = await client.post("/api/v1/login", json=ANNA)
        assert begun.status_code == 200
        assert (begun.json()["user"], begun.json()["role"]) == ("anna", "reader")
        cookie = begun.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=60"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        for path in CLOSED:
            assert (await client.get(path)).status_code in {200, 404}, path
        past = {"symbol": "BTCUSDT", "from": 1_700_000_040_000, "to": 1_700_000_100_000}
        answer = await client.get("/api/v1/candles", params=past)
        assert answer.headers["cache-control"] == "private, max-age=60"
        assert (await client.get("/api/v1/me")).json()["by"] == "session"
        assert (await client.get("/api/v1/users")).status_code == 403

        assert (await client.post("/api/v1/logout")).status_code == 204
        client.cookies.set(COOKIE, cookie.partition("=")[2].partition(";")[0])
        assert (await client.get("/api/v1/me")).status_code == 401
        assert (await client.post("/api/v1/logout")).status_code == 204


async def test_token_is_valid_until_revoked_or_its_account_disabled(
    accounts_url: str,
) -> None:
    header = {"authorization": f"Bearer {token_of(accounts_url, 'root')}"}
    async with open_to(accounts_url, is_required=True) as address, browser(address) as client:
        assert (await client.get("/api/v1/prices", headers=header)).status_code == 200
        found = (await client.get("/api/v1/users", headers=header)).raise_for_status().json()
        assert [(one["name"], one["tokens"]) for one in found["users"]] == [
            ("anna", 0),
            ("root", 1),
        ]

        async def until_refused() -> None:
            async with asyncio.timeout(15):  # notified, long before the cache expires
                while (await client.get("/udf/time", headers=header)).status_code != 401:
                    await asyncio.sleep(0.02)

        change(accounts_url, lambda c: accounts.set_disabled(c, "root", is_disabled=True))
        await until_refused()
        change(accounts_url, lambda c: accounts.set_disabled(c, "root", is_disabled=False))
        header = {"authorization": f"Bearer {token_of(accounts_url, 'anna')}"}
        assert (await client.get("/udf/time", headers=header)).status_code == 200
        change(accounts_url, lambda c: accounts.revoke_token(c, "anna", "test"))
        await until_refused()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"name": "anna"}', 400),
        (b'{"name": "anna", "password": 7}', 400),
        (b'{"name": "anna", "password": "x", "role": "admin"}', 400),
        (b'{"name": "anna", "password": "\xff"}', 400),
        (b'{"name": "anna", "password": "\\ud800"}', 400),
        (b"x" * 10_000, 413),
        (b'{"name": "anna", "password": "wrong horse"}', 401),
        (b'{"name": "nobody", "password": "correct horse"}', 401),
        (b'{"name": "a\\u0000b", "password": "correct horse"}', 401),
        (b'{"name": "\' OR 1=1 --", "password": ""}', 401),
    ],
)
async def test_invalid_login_is_refused_without_repeating_its_input(
    accounts_url: str, body: bytes, status: int
) -> None:
    async with open_to(accounts_url, is_required=True) as address, browser(address) as client:
        answer = await client.post(
            "/api/v1/login", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == status, answer.text
        assert "set-cookie" not in answer.headers
        assert "horse" not in answer.text
        if status == 401:
            assert answer.json()["detail"] == "name or password is wrong"
        form = await client.post("/api/v1/login", data=ANNA)
        assert form.status_code == 415


async def test_logins_are_limited_by_address_and_by_name(
    accounts_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PER_NETWORK", 3)
    async with open_to(accounts_url, is_required=True) as address, browser(address) as client:
        answers = [
            await client.post("/api/v1/login", json={"name": f"name{n}", "password": "x"})
            for n in range(4)
        ]
        assert [one.status_code for one in answers] == [401, 401, 401, 429]
        assert int(answers[-1].headers["retry-after"]) > 0
    monkeypatch.setattr(module, "PER_NETWORK", 1_000)
    monkeypatch.setattr(module, "PER_NAME", 2)
    async with open_to(accounts_url, is_required=True) as address, browser(address) as client:
        tries = [ANNA | {"password": "x"}] * 2 + [ANNA, {"name": "root", "password": PASSWORD}]
        answers = [await client.post("/api/v1/login", json=one) for one in tries]
        assert [one.status_code for one in answers] == [401, 401, 429, 200]
        # root has logged in from here, so strangers cannot lock root out.
        answers = [await client.post("/api/v1/login", json=tries[3]) for _ in range(4)]
        assert [one.status_code for one in answers] == [200] * 4


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_cross_origin_page_can_change_nothing(
    accounts_url: str, headers: dict[str, str]
) -> None:
    async with open_to(accounts_url, is_required=False) as address, browser(address) as client:
        refused = await client.post("/api/v1/login", json=ANNA, headers=headers)
        assert refused.status_code == 403
        own = await client.post("/api/v1/login", json=ANNA, headers={"origin": address})
        assert own.status_code == 200
        for method, path in (
            ("PUT", "/api/v1/watchlist/BTCUSDT"),
            ("DELETE", "/api/v1/watchlist/BTCUSDT"),
            ("POST", "/api/v1/logout"),
        ):
            assert (await client.request(method, path, headers=headers)).status_code == 403
        assert (await client.get("/api/v1/me")).json()["user"] == "anna"


async def test_cookie_is_secure_behind_tls(accounts_url: str) -> None:
    behind = open_to(accounts_url, is_required=False, trusted_proxies=("127.0.0.1",))
    async with behind as address, browser(address) as client:
        host = {"host": "charts.example.org", "origin": "https://charts.example.org"}
        for headers in (host, {"x-forwarded-proto": "https"}):
            answer = await client.post("/api/v1/login", json=ANNA, headers=headers)
            assert "Secure" in answer.headers["set-cookie"].split("; "), headers


async def test_sessions_are_listed_and_ended_one_by_one(accounts_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(open_to(accounts_url, is_required=True))
        here, there, root = [await stack.enter_async_context(browser(address)) for _ in range(3)]
        for client in (here, there):
            (await client.post("/api/v1/login", json=ANNA)).raise_for_status()
        (await root.post("/api/v1/login", json=ANNA | {"name": "root"})).raise_for_status()
        found = (await here.get("/api/v1/sessions")).raise_for_status().json()["sessions"]
        assert [one["is_this"] for one in found] == [False, True]
        other = found[0]["id"]
        assert (await root.delete(f"/api/v1/sessions/{other}")).status_code == 404
        for wrong in ("0", "x", "9" * 30, "-1"):
            assert (await here.delete(f"/api/v1/sessions/{wrong}")).status_code == 400
        assert (await here.delete(f"/api/v1/sessions/{other}")).status_code == 204
        async with asyncio.timeout(15):
            while (await there.get("/api/v1/me")).status_code != 401:
                await asyncio.sleep(0.02)
        assert (await here.get("/api/v1/me")).status_code == 200


async def test_session_expires(accounts_url: str) -> None:
    serving_it = open_to(accounts_url, is_required=True, session_s=2)
    async with serving_it as address, browser(address) as client:
        begun = await client.post("/api/v1/login", json=ANNA)
        cookie = {"cookie": f"{COOKIE}={begun.cookies[COOKIE]}"}
        socket = await connect_socket(
            f"ws{address.removeprefix('http')}/api/v1/ws", additional_headers=cookie
        )
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionClosed):
                async for _ in socket:
                    pass
            await socket.wait_closed()
        assert socket.close_code == ENDED
        again = await client.get("/api/v1/me", headers=cookie)
        assert again.status_code == 401


async def test_watchlist_subscription_starts_on_connect_and_follows_changes(
    accounts_url: str,
) -> None:
    token = token_of(accounts_url, "anna")
    header = {"authorization": f"Bearer {token}"}
    serving_it = open_to(accounts_url, is_required=False)
    async with serving_it as address, browser(address) as client, contextlib.AsyncExitStack() as st:
        client.headers.update(header)
        (await client.put("/api/v1/watchlist/BTCUSDT")).raise_for_status()
        url = f"ws{address.removeprefix('http')}/api/v1/ws"
        socket = await st.enter_async_context(connect_socket(url, additional_headers=header))
        stranger = await st.enter_async_context(connect_socket(url))
        assert await next_of(socket) == {"type": "watchlist", "symbols": ["BTCUSDT"]}
        told_of = {"type": "subscribed", "channel": "price", "symbols": ["BTCUSDT"]}
        assert await next_of(socket) == told_of
        (price,) = (await next_of(socket, "price"))["data"]
        assert price["symbol"] == "BTCUSDT"
        # Not streamed yet: it is subscribed all the same.
        (await client.put("/api/v1/watchlist/ETHUSDT.P")).raise_for_status()
        assert (await next_of(socket))["symbols"] == ["BTCUSDT", "ETHUSDT.P"]
        assert (await next_of(socket, "subscribed"))["symbols"] == ["ETHUSDT.P"]
        (await client.delete("/api/v1/watchlist/BTCUSDT")).raise_for_status()
        while (await next_of(socket, "watchlist"))["symbols"] != ["ETHUSDT.P"]:
            pass  # a local change is sent twice: by this server and by PostgreSQL
        assert (await next_of(socket, "unsubscribed"))["symbols"] == ["BTCUSDT"]

        await stranger.send('{"type": "ping"}')
        assert await next_of(stranger) == {"type": "pong"}
        change(accounts_url, lambda c: accounts.revoke_token(c, "anna", "test"))
        async with asyncio.timeout(30):
            await socket.wait_closed()
        assert socket.close_code == ENDED


CONTROL = ("watchlist", "subscribed", "unsubscribed", "pong", "error")


async def next_of(socket: ClientConnection, *kinds: str) -> Any:
    """The next message of these kinds; of control without any."""
    async with asyncio.timeout(30):
        while (message := json.loads(await socket.recv()))["type"] not in (kinds or CONTROL):
            pass
    return message


async def test_logged_in_user_edits_a_watchlist(accounts_url: str) -> None:
    async with open_to(accounts_url, is_required=False) as address, browser(address) as client:
        (await client.post("/api/v1/login", json=ANNA)).raise_for_status()
        for symbol, is_new in (("BTCUSDT", True), ("ETHUSDT.P", True), ("BTCUSDT", False)):
            answer = await client.put(f"/api/v1/watchlist/{symbol}")
            assert answer.json() == {
                "symbol": symbol,
                "is_new": is_new,
                "is_streamed": symbol == "BTCUSDT",
            }
        found = (await client.get("/api/v1/watchlist")).json()["watchlist"]
        assert [(one["symbol"], one["is_streamed"]) for one in found] == [
            ("BTCUSDT", True),
            ("ETHUSDT.P", False),
        ]
        unknown = await client.put("/api/v1/watchlist/ETHUSDTP")
        assert (unknown.status_code, "did you mean" in unknown.text) == (404, True)
        for wrong in ("%00", "A" * 3_000, "*", "..%2f..%2fetc", "'%20OR%201=1", "%F0%9F%98%80"):
            assert (await client.put(f"/api/v1/watchlist/{wrong}")).status_code == 404, wrong
            assert (await client.delete(f"/api/v1/watchlist/{wrong}")).status_code == 404, wrong
        assert (await client.delete("/api/v1/watchlist/BTCUSDT")).status_code == 204
        assert (await client.delete("/api/v1/watchlist/BTCUSDT")).status_code == 404
        found = (await client.get("/api/v1/watchlist")).json()["watchlist"]
        assert [one["symbol"] for one in found] == ["ETHUSDT.P"]


async def test_unavailable_accounts_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "WAIT_S", 0.3)
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    async with open_to(nowhere, is_required=True) as address, browser(address) as client:
        header = {"authorization": "Bearer cdl_something"}
        for answer in await asyncio.gather(
            client.get("/api/v1/prices", headers=header),
            client.post("/api/v1/login", json=ANNA),
        ):
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        assert (await client.get("/api/v1/health")).status_code == 200
    async with open_to(nowhere, is_required=False) as address, browser(address) as client:
        client.cookies.set(COOKIE, "something")
        me = (await client.get("/api/v1/me")).raise_for_status().json()
        assert me["user"] is None


async def test_forged_notifications_end_no_session(accounts_url: str) -> None:
    """PostgreSQL lets everyone notify: listeners read the tables again, and believe no payload."""
    async with open_to(accounts_url, is_required=True) as address, browser(address) as client:
        (await client.post("/api/v1/login", json=ANNA)).raise_for_status()
        assert (await client.get("/api/v1/me")).json()["user"] == "anna"
        with connect(accounts_url, application_name="test") as reader:
            reader.execute("SET ROLE candelabra_reader")
            for i in range(1_000):
                for channel in (ACCESS_CHANNEL, WATCHLISTS_CHANNEL):
                    payload = f'{{"user": "anna", "symbols": ["X{i}"], "ended": true}}'
                    reader.execute("SELECT pg_notify(%s, %s)", (channel, payload))
        async with asyncio.timeout(5):
            for _ in range(20):
                assert (await client.get("/api/v1/me")).json()["user"] == "anna"
        assert (await client.get("/api/v1/watchlist")).json()["watchlist"] == []
