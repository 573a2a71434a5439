"""``/api/v1/login``, sessions, accounts and the watchlist."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from include.domain.accounts import AuthMethod, Identity, Role
from include.domain.timeframes import from_us
from include.errors import RejectedInputError
from include.store.accounts import watchlists
from include.store.accounts.users import end_session, list_users, sessions_of
from serving.auth.client_network import ClientNetwork, network_of
from serving.auth.login_queue import LoginRefusedError
from serving.auth.middleware import COOKIE, principal_of
from serving.auth.service import AuthService
from serving.http.context import context_of
from serving.http.formats import json, plain_json
from serving.http.login_limits import LoginLimits
from serving.http.parameters import unknown_symbol_text
from serving.problems import Problem, refused, shown, unknown

router = APIRouter(tags=["accounts"])

QUEUE_RETRY_S = 5.0
"""When a client may try again after a login for which there was no place in the queue."""
MAX_BODY_BYTES = 8_192
MAX_NAME = 64
"""Further characters are dropped: the names of accounts have 63 at most."""
NO_STORE = {"cache-control": "no-store"}
MAX_ID = 2**63 - 1

Body = TypeVar("Body")


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a login."""

    name: str
    password: str


LOGIN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["name", "password"],
                    "properties": {
                        "name": {"type": "string"},
                        "password": {"type": "string", "format": "password"},
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.post("/login", summary="Begin a session", openapi_extra=LOGIN_BODY)
async def login(request: Request) -> Response:
    """Sets the session's cookie: HttpOnly, SameSite=Strict, and Secure with TLS."""
    auth = _auth(request)
    credentials = await _body(request, Login)
    network = network_of(request.client.host if request.client else "")
    name = credentials.name.strip().lower()[:MAX_NAME]
    limits: LoginLimits = request.app.state.login_limits
    wait_s = limits.of_network(network, name)
    if not wait_s and (name_wait_s := limits.of_name(name)):
        wait_s = 0.0 if await auth.is_usual(name, network) else name_wait_s
    if wait_s:
        raise _too_many(auth, name, network, wait_s=wait_s)
    try:
        found = await auth.log_in(name, credentials.password, network)
    except LoginRefusedError:
        raise _too_many(auth, name, network, wait_s=QUEUE_RETRY_S) from None
    if found is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "name or password is wrong")
    secret, identity = found
    response = json(request, _identity_fields(identity), headers=NO_STORE)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=auth.seconds_left(identity),
        httponly=True,
        samesite="strict",
        secure=_is_tls(request),
    )
    return response


@router.post("/logout", summary="End the session", status_code=HTTPStatus.NO_CONTENT)
async def logout(request: Request) -> Response:
    """End the session immediately, everywhere; without a session nothing happens."""
    principal = request.state.principal
    if principal is not None and principal.identity.kind is AuthMethod.SESSION:
        one: Identity = principal.identity
        await _end(_auth(request), one.user_id, one.key_id)
    response = Response(status_code=HTTPStatus.NO_CONTENT, headers=NO_STORE)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_tls(request))
    return response


@router.get("/me", summary="Your account")
async def me(request: Request) -> Response:
    """`user` is null for an anonymous reader. `has_accounts`: whether anyone can log in; null while
    PostgreSQL does not answer.
    """
    auth: AuthService = context_of(request).auth
    principal = request.state.principal
    payload = _anonymous() if principal is None else _identity_fields(principal.identity)
    has_accounts = principal is not None or await auth.has_accounts()
    further = {"auth_required": auth.is_required, "has_accounts": has_accounts}
    return json(request, payload | further, headers=NO_STORE)


@router.get("/sessions", summary="Your sessions")
async def sessions(request: Request) -> Response:
    """Logins that have not ended, newest first."""
    one = principal_of(request).identity
    found = await _auth(request).call(partial(sessions_of, user_id=one.user_id))
    payload = [
        {
            "id": session.id,
            "created_at": plain_json(from_us(session.created_us)),
            "expires_at": plain_json(from_us(session.expires_us)),
            "is_this": one.kind is AuthMethod.SESSION and session.id == one.key_id,
        }
        for session in found
    ]
    return json(request, {"sessions": payload}, headers=NO_STORE)


@router.delete("/sessions/{session_id}", summary="End a session", status_code=HTTPStatus.NO_CONTENT)
async def leave(request: Request, session_id: Annotated[int, Path(ge=1, le=MAX_ID)]) -> Response:
    """One of your sessions; the operator ends anyone's with `candelabra user logout`."""
    one = principal_of(request).identity
    if not await _end(_auth(request), one.user_id, session_id):
        raise unknown(f"session {session_id}: not yours; GET /api/v1/sessions lists yours")
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=NO_STORE)


@router.get("/users", summary="All accounts (administrators)")
async def users(request: Request) -> Response:
    """Each account with its number of sessions, tokens and watched symbols."""
    if principal_of(request).identity.role is not Role.ADMIN:
        raise Problem(HTTPStatus.FORBIDDEN, "this is for administrators")
    payload = [
        {
            "name": one.name,
            "role": one.role.value,
            "created_at": plain_json(from_us(one.created_us)),
            "is_disabled": one.disabled_us is not None,
            "sessions": one.sessions,
            "tokens": one.tokens,
            "watched": one.watched,
        }
        for one in await _auth(request).call(list_users)
    ]
    return json(request, {"users": payload}, headers=NO_STORE)


# --- the market watch


@router.get("/watchlist", summary="Your watchlist")
async def watchlist(request: Request) -> Response:
    """Sorted by symbol; `is_streamed` turns true within seconds of adding one."""
    user_id = principal_of(request).identity.user_id
    live = frozenset(context_of(request).streamed())
    found = await _auth(request).call(partial(watchlists.watchlist, user_id=user_id))
    payload = [
        {
            "symbol": symbol,
            "added_at": plain_json(from_us(added_us)),
            "is_streamed": symbol in live,
        }
        for symbol, added_us in found
    ]
    return json(request, {"watchlist": payload}, headers=NO_STORE)


@router.put("/watchlist/{symbol}", summary="Add a symbol to the watchlist")
async def watch(request: Request, symbol: str) -> Response:
    """The streamer adds it within seconds. Adding a symbol again changes nothing."""
    user_id = principal_of(request).identity.user_id
    context = context_of(request)
    listed = {one.instrument.symbol for one in await context.listings() if not one.listed_to_us}
    known = listed | set(context.streamed())
    if symbol not in known:
        hint = "" if listed else "; no listings are known yet: run the DAG sync_instruments"
        raise unknown(unknown_symbol_text(symbol, known) + hint)
    auth = _auth(request)
    try:
        is_new = await auth.call(partial(watchlists.watch, user_id=user_id, symbol=symbol))
    except RejectedInputError as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from error
    await auth.publish_watchlist(user_id)
    return json(
        request,
        {"symbol": symbol, "is_new": is_new, "is_streamed": symbol in context.streamed()},
        headers=NO_STORE,
    )


@router.delete(
    "/watchlist/{symbol}",
    summary="Remove a symbol from the watchlist",
    status_code=HTTPStatus.NO_CONTENT,
)
async def unwatch(request: Request, symbol: str) -> Response:
    """The symbol stays streamed while another user watches it or the settings include it."""
    user_id = principal_of(request).identity.user_id
    auth = _auth(request)
    found = await auth.call(partial(watchlists.watchlist, user_id=user_id))
    if symbol not in {one for one, _ in found}:
        raise unknown(f"symbol: {shown(symbol)} is not on your watchlist")
    await auth.call(partial(watchlists.unwatch, user_id=user_id, symbol=symbol))
    await auth.publish_watchlist(user_id)
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=NO_STORE)


# --- inside


def _auth(request: Request) -> AuthService:
    """The accounts.

    Raises:
        Problem: there are none.
    """
    auth: AuthService = context_of(request).auth
    if not auth.has_database:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            "this server has no accounts: ACCOUNTS_DATABASE_URL is not set there",
        )
    return auth


def _too_many(auth: AuthService, name: str, network: ClientNetwork, *, wait_s: float) -> Problem:
    """Count a refused login; return its problem."""
    auth.refuse_login(name, network)
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too many logins; try again later",
        headers={"retry-after": str(int(wait_s) + 1)},
    )


async def _end(auth: AuthService, user_id: int, session_id: int) -> bool:
    """End a session: here before the response, elsewhere within moments."""
    was_there = await auth.call(partial(end_session, user_id=user_id, session_id=session_id))
    auth.forget()
    return was_there


async def _body(request: Request, kind: type[Body]) -> Body:
    """Decode a small JSON body; errors never repeat its values."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body should be JSON: application/json"
        )
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES:,} bytes"
            )
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = ", ".join(kind.__annotations__)
        raise refused(f"the body should be a JSON object of text: {fields}") from None


def _identity_fields(identity: Identity) -> dict[str, Any]:
    expires_us = identity.expires_us
    return {
        "user": identity.name,
        "role": identity.role.value,
        "by": identity.kind.value,
        "expires_at": None if expires_us is None else plain_json(from_us(expires_us)),
    }


def _anonymous() -> dict[str, Any]:
    return {"user": None, "role": None, "by": None, "expires_at": None}


def _is_tls(request: Request) -> bool:
    """Whether the browser uses TLS, to us or to a proxy in front."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
