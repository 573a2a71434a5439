"""Authenticates requests and refuses anonymous ones where accounts are required."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.errors import PermanentError, TransientError
from serving.auth.service import AuthService, Principal
from serving.problems import Problem, answer

COOKIE = "candelabra_session"
OPEN_PATHS = frozenset({"/", "/api/v1/health", "/api/v1/login", "/api/v1/logout"})
"""Open to everyone: the page with the login form, the login, and the health probe."""
OPEN_FOLDER = "/page/"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
ENDED = 4401
"""Close code of a WebSocket whose session or token has ended."""
CLOSE_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 60.0
LOGIN_HINT = "log in at /api/v1/login, or send a token as `authorization: Bearer …`"


class AuthMiddleware:
    """Sets ``state.principal`` of each request: None if it is anonymous."""

    def __init__(self, app: ASGIApp, auth: AuthService) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by the server."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._admitted(scope)
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        if principal is None or scope["type"] == "http":
            is_private = self._auth.is_required and scope["type"] == "http"
            await self._app(scope, receive, _private(send) if is_private else send)
        else:
            await self._while_valid(principal, scope, receive, send)

    async def _admitted(self, scope: Scope) -> Principal | None:
        """Authenticate a request; None if it is anonymous and allowed.

        Raises:
            Problem: it is refused.
        """
        connection = HTTPConnection(scope)
        if scope["type"] == "http" and scope["method"] not in SAFE:
            _check_origin(connection.headers)
        is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER)
        bearer = bearer_of(connection.headers.get("authorization", ""))
        secret = connection.cookies.get(COOKIE, "") if bearer is None else bearer
        principal = None
        reads = scope["type"] == "websocket" or scope["method"] in SAFE
        if secret and not (is_open and reads):
            try:
                principal = await self._auth.principal(secret)
            except (TransientError, PermanentError, TimeoutError) as error:
                if self._auth.is_required or bearer is not None or not reads:
                    raise Problem(
                        HTTPStatus.SERVICE_UNAVAILABLE,
                        "the accounts cannot be read at present; try again",
                        headers={"retry-after": "2"},
                    ) from error
                # Anonymous readers may read this, so a principal may as well.
        is_wrong = bearer is not None and principal is None
        if not is_open and principal is None and (self._auth.is_required or is_wrong):
            raise unauthenticated("this token is unknown or has ended" if is_wrong else "")
        return principal

    async def _while_valid(
        self, principal: Principal, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a WebSocket until its session or token ends."""
        with self._auth.stay(principal) as open_connection:
            serving = asyncio.ensure_future(self._app(scope, receive, send))
            ending = asyncio.ensure_future(open_connection.over.wait())
            works = {serving, ending}
            try:
                done: set[asyncio.Future[Any]] = set()
                while not done:
                    done, _ = await asyncio.wait(
                        works, timeout=POLL_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
                    )
                if serving in done:
                    serving.result()
                    return
                message = {"type": "websocket.close", "code": ENDED, "reason": "log in again"}
                # The client just left or reads nothing; the connection ends with the application.
                with contextlib.suppress(RuntimeError, OSError, TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await send(message)
            finally:
                for work in works:
                    work.cancel()
                await asyncio.wait(works, timeout=POLL_INTERVAL_S)


def principal_of(request: Request) -> Principal:
    """The principal of a request that needs one.

    Raises:
        Problem: the request is anonymous.
    """
    found: Principal | None = request.state.principal
    if found is None:
        raise unauthenticated("this needs an account")
    return found


def unauthenticated(why: str) -> Problem:
    """The problem of a request that must authenticate."""
    detail = f"{why}: {LOGIN_HINT}" if why else LOGIN_HINT
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"www-authenticate": "Bearer"})


def bearer_of(header: str) -> str | None:
    """The token of an ``Authorization`` header; None if it has none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def host_of(origin: str) -> str | None:
    """Host and port of an ``Origin`` header; None if it is not a URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as "http://[", which programs can send
        return None


# --- inside


def _check_origin(headers: Headers) -> None:
    """Refuse requests that a page of another site sends with the user's cookie.

    The cookie's SameSite blocks other sites already, but not other ports of this host.
    """
    origin = headers.get("origin")
    is_foreign = origin is not None and host_of(origin) != headers.get("host", "")
    if is_foreign or headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        raise Problem(HTTPStatus.FORBIDDEN, "only pages of this server and programs may send this")


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":  # before it is accepted: the library answers 403
        await send({"type": "websocket.close", "code": 1008, "reason": "log in"})
        return
    response = answer(problem.status, problem.detail, headers=problem.headers)
    await response(scope, receive, send)


def _private(send: Send) -> Send:
    """Forbid shared caches to store responses to authenticated requests."""

    async def send_private(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            if "public" in (cache_control := headers.get("cache-control", "")):
                headers["cache-control"] = cache_control.replace("public", "private")
        await send(message)

    return send_private
