"""Errors as problem details (RFC 9457), without internal details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from include.counts import counted
from include.errors import PermanentError, TransientError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
SHOWN = 100
"""Characters of a value that an error repeats."""


class Problem(Exception):
    """An error response: what is wrong with a request, and what would be right.

    Args:
        status: HTTP status.
        detail: names the parameter, its value, and what would be right.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class ProblemDetails(msgspec.Struct, omit_defaults=True):
    """Build the body of an error."""

    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] = []


def refused(detail: str) -> Problem:
    """Return the problem of an invalid parameter."""
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def unknown(detail: str) -> Problem:
    """Return the problem of something that does not exist."""
    return Problem(HTTPStatus.NOT_FOUND, detail)


def shown(value: object) -> str:
    """Quote a value for a message, shortened to a useful length."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({counted(len(text), 'character')})"


def add_problems(app: FastAPI) -> None:
    """Answer every error of an application as a problem."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> Response:
        return answer(error.status, error.detail, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        detail = (
            f"there is nothing at {shown(request.url.path)}; /api/v1/docs lists what there is"
            if status is HTTPStatus.NOT_FOUND
            else f"{request.method} {shown(request.url.path)}: {error.detail}"
        )
        return answer(status, detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        found = [
            {
                "parameter": ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0]),
                "problem": str(one["msg"]),
                "value": shown(one.get("input")),
            }
            for one in error.errors()
        ]
        detail = "; ".join(f"{one['parameter']}: {one['problem']}" for one in found)
        return answer(HTTPStatus.BAD_REQUEST, detail, errors=found)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, _: ClientDisconnect) -> Response:
        log.debug("request_aborted", path=shown(request.url.path))
        return answer(HTTPStatus.BAD_REQUEST, "the body is incomplete")  # unread

    @app.exception_handler(TransientError)
    @app.exception_handler(TimeoutError)
    async def away(request: Request, error: Exception) -> Response:
        log.warning("history_not_read", error=str(error) or "timeout", is_passing=True)
        return answer(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the tables cannot be read at present; try again",
            headers={"retry-after": "2"},
        )

    @app.exception_handler(PermanentError)
    async def broken(_: Request, error: PermanentError) -> Response:
        log.warning("history_not_read", error=str(error), is_passing=False)
        return answer(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "the tables are missing or wrong: see the server's log, event history_not_read",
        )


def answer(
    status: HTTPStatus,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> Response:
    """Build the response of a problem."""
    body = ProblemDetails(status.phrase, status.value, detail, errors or [])
    return Response(
        msgspec.json.encode(body),
        status_code=status.value,
        media_type=MEDIA_TYPE,
        headers=dict(headers or {}),
    )
