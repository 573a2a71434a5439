"""The dump site's HTTP side: listings and files, with the faults that are active."""

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from simulator.dumps.site import DumpSite


def dump_routes(site: DumpSite) -> list[Route]:
    """The listing at `/` and at `/data.binance.vision`, files under `/data/`."""

    async def listing(request: Request) -> Response:
        query = request.query_params
        try:
            body = await asyncio.to_thread(
                site.listing,
                prefix=query.get("prefix", ""),
                delimiter=query.get("delimiter", ""),
                marker=query.get("marker", ""),
            )
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        return Response(body, media_type="application/xml")

    async def file(request: Request) -> Response:
        path = "data/" + request.path_params["path"]
        wants_checksum = path.endswith(".zip.CHECKSUM")
        found = await asyncio.to_thread(site.find, path.removesuffix(".CHECKSUM"))
        if found is None:
            body = (
                '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
                "<Message>The specified key does not exist.</Message></Error>"
            )
            return Response(body, status_code=404, media_type="application/xml")
        if wants_checksum:
            content = await asyncio.to_thread(site.checksum, found)
            return Response(content, media_type="binary/octet-stream")
        content = await asyncio.to_thread(site.read, found)
        etag = (await asyncio.to_thread(site.checksum, found))[:32].decode()
        return Response(content, media_type="application/zip", headers={"etag": f'"{etag}"'})

    return [
        Route("/", listing, methods=["GET"]),
        Route("/data.binance.vision", listing, methods=["GET"]),
        Route("/data/{path:path}", file, methods=["GET", "HEAD"]),
    ]
