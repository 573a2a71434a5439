"""The chart page at ``/`` and the API's description at ``/api/v1/docs``: our files, and the scripts
of two libraries from their wheels."""

from __future__ import annotations

import functools
from hashlib import blake2b
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.problems import Problem, shown, unknown

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[2] / "page"
LIBRARIES = {
    "lightweight-charts.js": ("lightweight_charts", "js/lightweight-charts.js"),
    "swagger-ui.js": ("fastapi_offline", "static/swagger-ui-bundle.js"),
    "swagger-ui.css": ("fastapi_offline", "static/swagger-ui.css"),
}
"""Package and file of each part that is not ours."""
PAGES = frozenset({"index.html", "docs.html"})
"""Parts with an address of their own."""
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
TYPES = {
    name: KINDS[Path(name).suffix]
    for name in (*(one.name for one in FOLDER.iterdir()), *LIBRARIES)
    if Path(name).suffix in KINDS
}
"""Media type of each part; no other file is served."""
# Allow nothing from other sites, nothing inline, and no framing. style-src does not concern styles
# that a script sets on elements.
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return _answer(request, "index.html")


@router.get("/api/v1/docs")
async def docs(request: Request) -> Response:
    """Every request of the API, to read and to try out."""
    return _answer(request, "docs.html")


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """A part of the page."""
    if name not in TYPES or name in PAGES:
        raise unknown(f"the page has no part {shown(name)}")
    return _answer(request, name)


# --- inside


def _answer(request: Request, name: str) -> Response:
    body = _contents(name)
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = SECURITY | {"etag": etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers | {"content-type": TYPES[name]})


@functools.cache
def _contents(name: str) -> bytes:
    """Read a file once."""
    return (_of_library(name) if name in LIBRARIES else FOLDER / name).read_bytes()


def _of_library(name: str) -> Path:
    """Locate a library's file without importing its package, whose dependencies are absent."""
    package, file = LIBRARIES[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"{name} is not installed: pip install --no-deps -r serving/page.txt",
        )
    return Path(spec.origin).parent / file
