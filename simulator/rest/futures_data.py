"""Endpoints under `/futures/data`, which both futures markets have, on separate hosts.

Here they share a host, so the pair decides: pairs of USD-M end with their margin asset.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.market.derivatives.prices import MARK_DECIMALS
from simulator.market.instruments import MarketName, decimal_formatter
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import MarketVenue, Venue
from simulator.wire.payloads import US_PER_MS

_FUTURES: tuple[MarketName, ...] = ("um", "cm")
_CROSS_ORIGIN = {"access-control-allow-origin": "*"}


def futures_data_routes(venues: Mapping[MarketName, Venue]) -> list[Route]:
    """Return `/futures/data/delivery-price`. Its weight is 0, so nothing is charged."""

    async def delivery_price(request: Request) -> Response:
        try:
            params = QueryParameters(request.query_params, ("pair",), is_strict=False)
            pair = params.required("pair")
            venue = _venue_of(venues, pair)
            body: Any = await asyncio.to_thread(_prices, venue, pair)
        except ApiError as error:
            return _json(error.body(), status=error.status)
        return _json(body)

    return [Route("/futures/data/delivery-price", delivery_price, methods=["GET"])]


def _venue_of(venues: Mapping[MarketName, Venue], pair: str) -> MarketVenue:
    for name in _FUTURES:
        venue = venues.get(name)
        if isinstance(venue, MarketVenue) and any(
            instrument.pair == pair for instrument in venue.market.instruments
        ):
            return venue
    raise ApiError(-1121, "Invalid pair.")


def _prices(venue: MarketVenue, pair: str) -> list[dict[str, Any]]:
    """Return the deliveries of a pair, the latest first; prices are numbers, as documented."""
    show = decimal_formatter(MARK_DECIMALS, MARK_DECIMALS)
    return [
        {
            "deliveryTime": delivery_us // US_PER_MS,
            "deliveryPrice": msgspec.Raw(show(price).encode()),
        }
        for delivery_us, price in venue.delivery_prices(pair)
    ]


def _json(body: Any, *, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers=_CROSS_ORIGIN,
    )
