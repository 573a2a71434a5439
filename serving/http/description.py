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
    "description": "The error and how to correct it (RFC 9457).",
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
    HTTPStatus.BAD_REQUEST: "A parameter is wrong.",
    HTTPStatus.UNAUTHORIZED: "Authentication is required.",
    HTTPStatus.FORBIDDEN: "The role has no access.",
    HTTPStatus.NOT_FOUND: "The symbol is unknown, or has no data.",
    HTTPStatus.NOT_ACCEPTABLE: "The format is not supported.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many requests; `retry-after` says when to continue.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Tables or live data are unavailable now.",
}
TABLES = (
    "/symbols", "/symbols/{symbol}", "/prices", "/candles", "/candles/latest", "/trades",
    "/liquidations", "/levels", "/indicators", "/coverage", "/gaps", "/volume-profile",
    "/footprint",
)  # fmt: skip
"""Endings of paths that return rows in any format."""


def describe(app: FastAPI) -> None:
    """Add problems and formats to an application's OpenAPI document."""

    def generate() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = generate  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["ProblemDetails"] = PROBLEM
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(path, method, operation)
    return document


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's status for what is a 400 here
    document = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    for status, meaning in PROBLEMS.items():
        responses.setdefault(str(status.value), {"description": meaning, "content": document})
    if method == "get":
        responses.setdefault(
            "304", {"description": "Not modified: `If-None-Match` equals the ETag."}
        )
    else:
        responses["default"] = {"description": "Another problem.", "content": document}
    if path.endswith(TABLES) and "200" in responses:
        content = responses["200"].setdefault("content", {})
        for form in Format:
            content.setdefault(form.value, {})
