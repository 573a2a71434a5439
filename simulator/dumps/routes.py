"""HTTP routes of the dump site: listings and files, with active faults."""

import asyncio
import hashlib
import re
from datetime import UTC

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from simulator.clock import from_us
from simulator.dumps.contents import PublishedFile
from simulator.dumps.faults import (
    AbortDownload,
    MissingChecksum,
    RefuseFile,
    RefuseListing,
    SlowDownload,
)
from simulator.dumps.site import SimulatedDumpSite
from simulator.http.broken_answers import AbortedResponse, SlowResponse

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_ZIP, _PLAIN, _XML = "application/zip", "binary/octet-stream", "application/xml"


def dump_routes(site: SimulatedDumpSite) -> list[Route]:
    """Return the listing at `/` and `/data.binance.vision`, and files under `/data/`.

    `/sim/altered?path=data/…` returns the rows of a file that differ from the truth.
    """

    async def listing(request: Request) -> Response:
        query = request.query_params
        prefix = query.get("prefix", "")
        refused = site.faults.of(RefuseListing, prefix)
        if refused:
            return _error(refused[0].status, "InternalError", "We encountered an internal error.")
        try:
            body = await asyncio.to_thread(
                site.listing,
                prefix=prefix,
                delimiter=query.get("delimiter", ""),
                marker=query.get("marker", ""),
            )
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        return Response(body, media_type=_XML)

    async def file(request: Request) -> Response:
        path = "data/" + request.path_params["path"]
        wants_checksum = path.endswith(".zip.CHECKSUM")
        path = path.removesuffix(".CHECKSUM")
        refused = site.faults.of(RefuseFile, path)
        if refused:
            return _error(refused[0].status, "SlowDown", "Please reduce your request rate.")
        found = await asyncio.to_thread(site.find, path)
        if found is None or (wants_checksum and site.faults.of(MissingChecksum, path)):
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        if wants_checksum:
            content = await asyncio.to_thread(site.checksum, found)
            return Response(content, media_type=_PLAIN, headers=_headers(site, found))
        content = await asyncio.to_thread(site.read, found)
        return _download(site, found, content, request.headers)

    async def altered(request: Request) -> Response:
        path = request.query_params.get("path", "").removeprefix("/")
        rows = await asyncio.to_thread(site.altered_rows, path)
        return Response(msgspec.json.encode(rows), media_type="application/json")

    return [
        Route("/sim/altered", altered, methods=["GET"]),
        Route("/", listing, methods=["GET"]),
        Route("/data.binance.vision", listing, methods=["GET"]),
        Route("/data/{path:path}", file, methods=["GET", "HEAD"]),
    ]


def _headers(site: SimulatedDumpSite, file: PublishedFile) -> dict[str, str]:
    modified = from_us(site.modified_us(file)).astimezone(UTC)
    return {"last-modified": modified.strftime("%a, %d %b %Y %H:%M:%S GMT")}


def _download(
    site: SimulatedDumpSite, file: PublishedFile, content: bytes, asked: Headers
) -> Response:
    """Return the zip, or the requested range of it, as S3 does."""
    tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
    headers = {**_headers(site, file), "etag": tag, "accept-ranges": "bytes"}
    status = 200
    found = _RANGE.fullmatch(asked.get("range", ""))
    if found and asked.get("if-range", tag) in (tag, headers["last-modified"]):
        begin, size = int(found[1]), len(content)
        end = min(int(found[2] or size), size - 1) + 1
        if begin >= end:
            return _error(416, "InvalidRange", "The requested range is not satisfiable")
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
        content, status = content[begin:end], 206
    cuts = site.faults.of(AbortDownload, file.path)
    if cuts:
        return AbortedResponse(
            content,
            keep_percent=cuts[0].keep_percent,
            media_type=_ZIP,
            headers=headers,
            status_code=status,
        )
    waits = site.faults.of(SlowDownload, file.path)
    if waits:
        seconds = sum(wait.seconds for wait in waits)
        return SlowResponse(
            content, seconds=seconds, media_type=_ZIP, headers=headers, status_code=status
        )
    return Response(content, media_type=_ZIP, headers=headers, status_code=status)


def _error(status: int, code: str, message: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return Response(body, status_code=status, media_type=_XML)
