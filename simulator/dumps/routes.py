"""The dump site's HTTP side: listings and files, with the faults that are active."""

import asyncio
from datetime import UTC

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from simulator.broken_answers import CutAnswer, SlowAnswer
from simulator.clock import from_us
from simulator.dumps.contents import DumpFile
from simulator.dumps.faults import (
    CutDownload,
    NoChecksum,
    RefuseFile,
    RefuseListing,
    SlowDownload,
)
from simulator.dumps.site import DumpSite

_ZIP, _PLAIN, _XML = "application/zip", "binary/octet-stream", "application/xml"


def dump_routes(site: DumpSite) -> list[Route]:
    """The listing at `/` and at `/data.binance.vision`, files under `/data/`.

    `/sim/altered?path=data/…` tells the rows of a file that are not what happened.
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
        if found is None or (wants_checksum and site.faults.of(NoChecksum, path)):
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        if wants_checksum:
            content = await asyncio.to_thread(site.checksum, found)
            return Response(content, media_type=_PLAIN, headers=_headers(site, found))
        content = await asyncio.to_thread(site.read, found)
        return _download(site, found, content)

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


def _headers(site: DumpSite, file: DumpFile) -> dict[str, str]:
    modified = from_us(site.modified_us(file)).astimezone(UTC)
    return {"last-modified": modified.strftime("%a, %d %b %Y %H:%M:%S GMT")}


def _download(site: DumpSite, file: DumpFile, content: bytes) -> Response:
    headers = _headers(site, file)
    cuts = site.faults.of(CutDownload, file.path)
    if cuts:
        return CutAnswer(
            content, keep_percent=cuts[0].keep_percent, media_type=_ZIP, headers=headers
        )
    waits = site.faults.of(SlowDownload, file.path)
    if waits:
        seconds = sum(wait.seconds for wait in waits)
        return SlowAnswer(content, seconds=seconds, media_type=_ZIP, headers=headers)
    return Response(content, media_type=_ZIP, headers=headers)


def _error(status: int, code: str, message: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return Response(body, status_code=status, media_type=_XML)
