"""REST of one market: `/api/v3/…` (spot), `/fapi/v1/…` (USD-M) or `/dapi/v1/…` (COIN-M).

Weight is charged before parameters are read, so a malformed request costs as much as a valid one.
Answers are computed in a thread, because aggregating days of trades must not delay the streams.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.clock import MINUTE_US, SimulatedClock
from simulator.http.broken_answers import AbortedResponse
from simulator.market.instruments import MarketName
from simulator.rest.endpoints import FUTURES_DATA, RestEndpoint, RestEndpoints
from simulator.rest.faults import (
    AbortConnection,
    AddVoidRows,
    DelayAnswer,
    DropLastRows,
    LoseRows,
    MalformBody,
    RefuseRequest,
    RepeatRows,
    RequestEffect,
    RestFaults,
    TruncateBody,
    default_error,
    with_lost_rows,
    with_repeated_rows,
    with_void_rows,
)
from simulator.rest.limits import POOLS, WEIGHTS, Weigh, WeightCharge, WeightLimiter
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import UnavailableError, Venue
from simulator.wire.payloads import US_PER_MS

_MEDIA_TYPE = "application/json;charset=UTF-8"
_DEFAULT_RETRY_S = {429: 60, 418: 120}
_DEFAULT_ROWS = 500
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]
_MAX_ROWS = 1_000  # of aggTrades
CROSS_ORIGIN = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, OPTIONS",
}
"""Headers of every answer of REST, as recorded: web pages may read the exchange."""
_NOT_FOUND = """<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8">
  <title>Binance</title>
</head>
<body>
  <h3>404</h3>
  <p>The page you are looking for does not exist.</p>
</body>
</html>
"""
_ROOTS: dict[MarketName, str] = {"spot": "/api", "um": "/fapi", "cm": "/dapi"}
_UM_VERSIONS = {"ticker/price": ("v1", "v2")}


Answer = Callable[[Request], Awaitable[Response]]


async def unknown_path(_request: Request) -> Response:
    """Answer a path that the exchange does not have: a page for browsers, not JSON.

    A path with another method gets the same page. Nothing is charged.
    """
    return Response(_NOT_FOUND, status_code=404, media_type="text/html", headers=CROSS_ORIGIN)


class RestApi:
    """The endpoints of one market.

    Args:
        limiter: the market's request weight.
        faults: fault rules.
    """

    def __init__(
        self,
        venue: Venue,
        limiter: WeightLimiter,
        clock: SimulatedClock,
        *,
        faults: RestFaults | None = None,
    ) -> None:
        self._venue = venue
        self._limiter = limiter
        self._faults = faults or RestFaults()
        self._is_spot = venue.name == "spot"
        self._pools = {
            pool: WeightLimiter(pool.limit, clock, period_us=pool.period_us) for pool in POOLS
        }
        self._endpoints = RestEndpoints(venue, clock, weight_limit=limiter.limit)

    def routes(self) -> list[Route]:
        """Return the routes of all endpoints under the market's prefix."""
        name = self._venue.name
        weights, root = WEIGHTS[name], _ROOTS[name]
        routes = []
        for endpoint in self._endpoints.table():
            if endpoint.name.startswith(FUTURES_DATA):
                continue
            versions: tuple[str, ...] = ("v3",) if name == "spot" else ("v1",)
            if name == "um":
                versions = _UM_VERSIONS.get(endpoint.name, versions)
            answer = self._answer(endpoint, weights[endpoint.name])
            paths = [f"{root}/{version}/{endpoint.name}" for version in versions]
            routes += [Route(path, answer, methods=["GET"]) for path in paths]
        return [*routes, Route(f"{root}/{{path:path}}", unknown_path, methods=METHODS)]

    def futures_data(self) -> dict[str, Answer]:
        """Return the answers under `/futures/data`, which both futures markets have."""
        weights = WEIGHTS[self._venue.name]
        return {
            endpoint.name: self._answer(endpoint, weights[endpoint.name])
            for endpoint in self._endpoints.table()
            if endpoint.name.startswith(FUTURES_DATA)
        }

    def lists(self, name: str) -> bool:
        """Whether the market lists a symbol or pair."""
        return any(name in (one.symbol, one.pair) for one in self._venue.listed())

    def _answer(self, endpoint: RestEndpoint, weigh: Weigh) -> Answer:
        pool = next((self._pools[pool] for pool in POOLS if pool.has(endpoint.name)), None)

        async def answer(request: Request) -> Response:
            address = request.client.host if request.client is not None else "?"
            verdict = self._limiter.charge(address, weigh(request.query_params))
            effects = self._faults.effects(
                self._venue.name, endpoint.name, request.query_params.get("symbol", "")
            )
            for effect in effects:
                if isinstance(effect, DelayAnswer):
                    await asyncio.sleep(effect.seconds)
            if verdict.status != 200:
                return self._limit_passed(verdict)
            counted = None if pool is None else pool.charge(address, 1)
            if pool is not None and counted is not None and counted.status != 200:
                return self._requests_passed(pool, counted, verdict)
            for effect in effects:
                if isinstance(effect, RefuseRequest):
                    return self._refused(effect, verdict)
            try:
                body = await self._body(endpoint, request)
            except ApiError as error:
                return self._json(error.body(), verdict, status=error.status)
            except UnavailableError as error:
                return self._json({"code": -1000, "msg": str(error)}, verdict, status=400)
            if not effects:
                return self._json(body, verdict)
            voids = sum(effect.rows for effect in effects if isinstance(effect, AddVoidRows))
            if voids and endpoint.name == "aggTrades":
                limit = int(request.query_params.get("limit", _DEFAULT_ROWS))
                body = with_void_rows(body, voids, limit=min(limit, _MAX_ROWS))
            return self._damaged(body, effects, verdict)

        return answer

    async def _body(self, endpoint: RestEndpoint, request: Request) -> Any:
        if endpoint.needs_key and not request.headers.get("x-mbx-apikey"):
            raise ApiError(-2014, "API-key format invalid.", status=401)
        unit_us = self._unit_us(request)
        params = QueryParameters(request.query_params, endpoint.known, is_strict=self._is_spot)
        return await asyncio.to_thread(endpoint.handler, params, unit_us)

    def _unit_us(self, request: Request) -> int:
        header = request.headers.get("x-mbx-time-unit")
        if header is None or not self._is_spot:
            return US_PER_MS
        match header.upper():
            case "MICROSECOND":
                return 1
            case "MILLISECOND":
                return US_PER_MS
        raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or "
                       "MILLISECOND.")  # fmt: skip

    # --- answers

    def _used(self, verdict: WeightCharge) -> dict[str, str]:
        used = CROSS_ORIGIN | {"x-mbx-used-weight-1m": str(verdict.used)}
        if self._is_spot:
            used["x-mbx-used-weight"] = str(verdict.used)
        return used

    def _json(
        self,
        body: Any,
        verdict: WeightCharge,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return Response(
            msgspec.json.encode(body),
            status_code=status,
            media_type=_MEDIA_TYPE,
            headers=self._used(verdict) | dict(headers or {}),
        )

    def _limit_passed(self, verdict: WeightCharge) -> Response:
        if verdict.status == 418:
            until_ms = verdict.banned_until_us // US_PER_MS
            text = (
                f"Way too much request weight used; IP banned until {until_ms}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
        else:
            text = (
                f"Too much request weight used; current limit is {self._limiter.limit} request "
                "weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid "
                "polling the API."
            )
        headers = {"retry-after": str(verdict.retry_after_s)}
        body = {"code": -1003, "msg": text}
        return self._json(body, verdict, status=verdict.status, headers=headers)

    def _requests_passed(
        self, pool: WeightLimiter, counted: WeightCharge, verdict: WeightCharge
    ) -> Response:
        """Refuse a request beyond the number that some endpoints share."""
        minutes = pool.period_us // MINUTE_US
        text = f"Too many requests; current limit is {pool.limit} requests per {minutes} MINUTE."
        if counted.status == 418:
            until_ms = counted.banned_until_us // US_PER_MS
            text = f"Way too many requests; IP banned until {until_ms}."
        headers = {"retry-after": str(counted.retry_after_s)}
        body = {"code": -1003, "msg": text}
        return self._json(body, verdict, status=counted.status, headers=headers)

    # --- faults

    def _refused(self, effect: RefuseRequest, verdict: WeightCharge) -> Response:
        headers = {}
        retry_s = effect.retry_after_s
        if retry_s is None:
            retry_s = _DEFAULT_RETRY_S.get(effect.status)
        if retry_s is not None:
            headers["retry-after"] = str(retry_s)
        if effect.body is not None:
            return Response(
                effect.body,
                status_code=effect.status,
                media_type="text/html",
                headers=self._used(verdict) | headers,
            )
        body = default_error(effect.status, now_us=self._venue.now_us())
        if effect.code is not None:
            body["code"] = effect.code
        if effect.message is not None:
            body["msg"] = effect.message
        return self._json(body, verdict, status=effect.status, headers=headers)

    def _damaged(self, body: Any, effects: list[RequestEffect], verdict: WeightCharge) -> Response:
        """Apply the effects of faults to a good answer, in the order of their rules."""
        missing = sum(effect.rows for effect in effects if isinstance(effect, DropLastRows))
        if missing:
            rows = msgspec.json.decode(msgspec.json.encode(body))
            body = rows[:-missing] if isinstance(rows, list) else rows
        for effect in effects:
            if isinstance(effect, LoseRows | RepeatRows):
                rows = msgspec.json.decode(msgspec.json.encode(body))
                change = with_lost_rows if isinstance(effect, LoseRows) else with_repeated_rows
                body = change(rows, effect.rows) if isinstance(rows, list) else rows
        content, media_type = msgspec.json.encode(body), _MEDIA_TYPE
        for effect in effects:
            if isinstance(effect, MalformBody):
                content, media_type = effect.body.encode(), "text/html"
            elif isinstance(effect, TruncateBody):
                content = content[: len(content) * effect.keep_percent // 100]
            elif isinstance(effect, AbortConnection):
                return AbortedResponse(
                    content,
                    keep_percent=effect.keep_percent,
                    media_type=media_type,
                    headers=self._used(verdict),
                )
        return Response(content, media_type=media_type, headers=self._used(verdict))
