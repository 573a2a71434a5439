"""The OpenAPI document: what FastAPI generates, and what applies to every route."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving.http.formats import Format
from serving.problems import MEDIA_TYPE

PROBLEM = {
    "title": "ProblemDetails",
    "description": "What is wrong, and what would be right (RFC 9457).",
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
PROBLEMS = {
    HTTPStatus.BAD_REQUEST: "A parameter cannot be.",
    HTTPStatus.UNAUTHORIZED: "Accounts are required, and the caller has said none.",
    HTTPStatus.FORBIDDEN: "The caller's role is not enough.",
    HTTPStatus.NOT_FOUND: "Nobody knows that symbol, or nothing is known of it.",
    HTTPStatus.NOT_ACCEPTABLE: "There is no such form.",
    HTTPStatus.TOO_MANY_REQUESTS: "More requests than a client may make; `retry-after` says when.",
    HTTPStatus.SERVICE_UNAVAILABLE: "The tables, or what is streamed, cannot be had now.",
}
TABLES = (
    "/symbols", "/symbols/{symbol}", "/prices", "/candles", "/candles/latest", "/trades",
    "/levels", "/indicators", "/coverage", "/gaps", "/volume-profile", "/footprint",
)  # fmt: skip
"""Endings of paths that return rows in any format."""


def describe(app: FastAPI) -> None:
    """Add problems and formats to an application's OpenAPI document."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    told = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = told.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["ProblemDetails"] = PROBLEM
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    return told


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's status for what is a 400 here
    told = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    for status, meaning in PROBLEMS.items():
        responses.setdefault(str(status.value), {"description": meaning, "content": told})
    if method == "get":
        responses.setdefault(
            "304", {"description": "The caller has it: its `If-None-Match` is the answer's ETag."}
        )
    else:
        responses["default"] = {"description": "Another problem.", "content": told}
    if path.endswith(TABLES) and "200" in responses:
        content = responses["200"].setdefault("content", {})
        for form in Format:
            content.setdefault(form.value, {})
