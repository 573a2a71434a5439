"""REST of one market: `/api/v3/…` (spot) or `/fapi/v1/…` (USD-M).

Every request is weighed before it is read, so a malformed one costs as much. Answers are made in
a thread, since folding days of trades must not hold up the streams.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.clock import DAY_US, SECOND_US
from simulator.market.intervals import SPOT_INTERVALS, UM_INTERVALS, Interval, parse_interval
from simulator.rest.limits import Verdict, WeightLimiter
from simulator.rest.parameters import INTEGER, ApiError, Parameters
from simulator.rest.venue import UnavailableError, Venue, rate_limits, symbol_entry
from simulator.wire.frames import US_PER_MS

_SYMBOL = re.compile(r"[A-Z0-9-_.]{1,40}\Z|[^\x00-\x7f]")
_UM_AGG_TRADES_SPAN_US = 2 * DAY_US
_HOUR_US = 3_600 * SECOND_US
_MAX_LIMITS = {"spot": 1_000, "um": 1_500}


Handler = Callable[[Parameters, int], Any]


class RestApi:
    """The endpoints of one market.

    Args:
        limiter: the market's request weight.
    """

    def __init__(self, venue: Venue, limiter: WeightLimiter) -> None:
        self._venue = venue
        self._limiter = limiter
        self._is_um = venue.name == "um"

    def routes(self) -> list[Route]:
        """Routes of all endpoints under the market's prefix."""
        prefix = "/fapi/v1" if self._is_um else "/api/v3"
        common = ("symbol",)
        table: list[tuple[str, Handler, tuple[str, ...], Callable[[Mapping[str, str]], int]]] = [
            ("ping", lambda _params, _unit: {}, (), lambda _query: 1),
            ("time", self._time, (), lambda _query: 1),
            (
                "exchangeInfo",
                self._exchange_info,
                (*common, "symbols", "permissions", "showPermissionSets", "symbolStatus"),
                lambda _query: 1 if self._is_um else 20,
            ),
            (
                "klines",
                self._klines,
                (*common, "interval", "startTime", "endTime", "limit", "timeZone"),
                self._klines_weight,
            ),
            (
                "aggTrades",
                self._agg_trades,
                (*common, "fromId", "startTime", "endTime", "limit"),
                lambda _query: 20 if self._is_um else 4,
            ),
            (
                "trades",
                self._trades,
                (*common, "limit"),
                lambda _query: 5 if self._is_um else 25,
            ),
            (
                "historicalTrades",
                self._trades,
                (*common, "limit", "fromId"),
                lambda _query: 20 if self._is_um else 25,
            ),
            ("ticker/24hr", self._ticker, (*common, "symbols", "type"), self._ticker_weight),
        ]
        return [
            Route(f"{prefix}/{path}", self._endpoint(handler, known, weigh), methods=["GET"])
            for path, handler, known, weigh in table
        ]

    def _endpoint(
        self,
        handler: Handler,
        known: tuple[str, ...],
        weigh: Callable[[Mapping[str, str]], int],
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            address = request.client.host if request.client is not None else "?"
            verdict = self._limiter.charge(address, weigh(request.query_params))
            if verdict.status != 200:
                return self._refusal(verdict)
            try:
                unit_us = self._unit_us(request)
                params = Parameters(request.query_params, known, is_strict=not self._is_um)
                body = await asyncio.to_thread(handler, params, unit_us)
            except ApiError as error:
                return self._json(error.body(), verdict, status=error.status)
            except UnavailableError as error:
                return self._json({"code": -1000, "msg": str(error)}, verdict, status=400)
            return self._json(body, verdict)

        return answer

    def _unit_us(self, request: Request) -> int:
        header = request.headers.get("x-mbx-time-unit")
        if header is None or self._is_um:
            return US_PER_MS
        match header.upper():
            case "MICROSECOND":
                return 1
            case "MILLISECOND":
                return US_PER_MS
        raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or "
                       "MILLISECOND.")  # fmt: skip

    def _json(
        self,
        body: Any,
        verdict: Verdict,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        used = {"x-mbx-used-weight-1m": str(verdict.used)}
        if not self._is_um:
            used["x-mbx-used-weight"] = str(verdict.used)
        return Response(
            msgspec.json.encode(body),
            status_code=status,
            media_type="application/json",
            headers=used | (headers or {}),
        )

    def _refusal(self, verdict: Verdict) -> Response:
        if verdict.status == 418:
            until_ms = verdict.banned_until_us // US_PER_MS
            text = f"Way too much request weight used; IP banned until {until_ms}."
        else:
            text = (
                f"Too much request weight used; current limit is {self._limiter.limit} request "
                "weight per 1 MINUTE."
            )
        headers = {"retry-after": str(verdict.retry_after_s)}
        body = {"code": -1003, "msg": text}
        return self._json(body, verdict, status=verdict.status, headers=headers)

    # --- weights

    def _klines_weight(self, query: Mapping[str, str]) -> int:
        if not self._is_um:
            return 2
        text = query.get("limit", "500")
        limit = int(text) if INTEGER.match(text) else 500
        for weight, bound in ((1, 100), (2, 500), (5, 1_000)):
            if limit <= bound:
                return weight
        return 10

    def _ticker_weight(self, query: Mapping[str, str]) -> int:
        if "symbol" in query:
            return 1 if self._is_um else 2
        if self._is_um:
            return 40
        if "symbols" not in query:
            return 80
        named = query["symbols"].count(",") + 1
        return 2 if named <= 20 else 40 if named <= 100 else 80

    # --- endpoints

    def _time(self, _params: Parameters, unit_us: int) -> Any:
        return {"serverTime": self._venue.now_us() // unit_us}

    def _symbol(self, params: Parameters) -> str:
        symbol = params.required("symbol")
        if not _SYMBOL.search(symbol):
            raise ApiError(
                -1100,
                "Illegal characters found in parameter 'symbol'; "
                "legal range is '^[A-Z0-9-_.]{1,20}$'.",
            )
        if all(instrument.symbol != symbol for instrument in self._venue.listed()):
            raise ApiError(-1121, "Invalid symbol.")
        return symbol

    def _named(self, params: Parameters) -> list[str] | None:
        """Symbols of `symbol` or `symbols`; None where neither was sent."""
        if params.text("symbol") is not None:
            if params.text("symbols") is not None:
                raise ApiError(-1128, "Combination of optional parameters invalid.")
            return [self._symbol(params)]
        text = params.text("symbols")
        if text is None:
            return None
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ApiError(-1100, "Illegal characters found in parameter 'symbols'.")
        listed = {instrument.symbol for instrument in self._venue.listed()}
        if not listed.issuperset(names):
            raise ApiError(-1121, "Invalid symbol.")
        return names

    def _exchange_info(self, params: Parameters, unit_us: int) -> Any:
        names = self._named(params)
        wanted_status = params.text("symbolStatus") or "TRADING"
        chosen = [
            symbol_entry(self._venue, instrument)
            for instrument in self._venue.listed()
            if (names is None or instrument.symbol in names) and wanted_status == "TRADING"
        ]
        return {
            "timezone": "UTC",
            "serverTime": self._venue.now_us() // unit_us,
            "rateLimits": rate_limits(self._venue.name, self._limiter.limit),
            "exchangeFilters": [],
            "symbols": chosen,
        }

    def _interval(self, params: Parameters) -> Interval:
        name = params.required("interval")
        if name not in (UM_INTERVALS if self._is_um else SPOT_INTERVALS):
            raise ApiError(-1120, "Invalid interval.")
        zone = "0" if self._is_um else params.text("timeZone") or "0"
        try:
            return parse_interval(name, time_zone=zone)
        except ValueError as error:
            raise ApiError(-1130, "Data sent for parameter 'timeZone' is not valid.") from error

    def _klines(self, params: Parameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        interval = self._interval(params)
        limit = params.limit(
            default=500, maximum=_MAX_LIMITS[self._venue.name], is_strict=self._is_um
        )
        start_us, end_us = params.time_us("startTime"), params.time_us("endTime", is_end=True)
        return self._venue.klines(symbol, interval, start_us, end_us, limit, unit_us=unit_us)

    def _agg_trades(self, params: Parameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        from_id = params.integer("fromId")
        start_us, end_us = params.time_us("startTime"), params.time_us("endTime", is_end=True)
        if from_id is not None and (start_us is not None or end_us is not None):
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        limit = params.limit(default=500, maximum=1_000, is_strict=self._is_um)
        spans_too_much = (
            start_us is not None
            and end_us is not None
            # an end in ms takes in its whole millisecond, which the exchange does not count here
            and end_us - start_us >= _HOUR_US + US_PER_MS
        )
        if self._is_um and spans_too_much:
            raise ApiError(-1127, "More than 1 hours between startTime and endTime.")
        rows = self._venue.agg_trades(
            symbol,
            from_id=from_id,
            start_us=start_us,
            end_us=end_us,
            limit=limit,
            unit_us=unit_us,
        )
        asked = from_id is not None or start_us is not None or end_us is not None
        if self._is_um and asked and rows:
            oldest_us = (self._venue.now_us() - _UM_AGG_TRADES_SPAN_US) // unit_us
            if int(rows[0]["T"]) < oldest_us:
                raise ApiError(-4166, "Search window is restricted to recent 2 days.")
        return rows

    def _trades(self, params: Parameters, unit_us: int) -> Any:
        symbol = self._symbol(params)
        limit = params.limit(default=500, maximum=1_000, is_strict=self._is_um)
        return self._venue.trades(
            symbol, from_id=params.integer("fromId"), limit=limit, unit_us=unit_us
        )

    def _ticker(self, params: Parameters, unit_us: int) -> Any:
        names = self._named(params)
        if params.text("symbol") is not None and names is not None:
            return self._venue.ticker(names[0], unit_us=unit_us)
        chosen = names or [instrument.symbol for instrument in self._venue.listed()]
        return [self._venue.ticker(symbol, unit_us=unit_us) for symbol in chosen]
