"""The control API under `/sim`, as Starlette routes."""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.clock import DAY_US, MINUTE_US, SECOND_US
from simulator.market.instruments import MarketName
from simulator.market.intervals import parse_interval
from simulator.replay.player import Replay
from simulator.rest.parameters import ApiError, QueryParameters
from simulator.rest.venue import KlineQuery, MarketVenue, UnavailableError, Venue
from simulator.streams.connections import StreamServer
from simulator.wire.derivatives import force_order_row
from simulator.wire.payloads import US_PER_MS

_ORACLE_PARAMETERS = ("market", "symbol", "interval", "startTime", "endTime")
_GRACE_S = 10.0
_MAX_SECONDS = 1e7
_BOOK_PARAMETERS = ("market", "symbol", "updateId")
_LIQUIDATION_PARAMETERS = ("market", "symbol", "startTime", "endTime")
_MAX_LIQUIDATION_SPAN_US = 2 * DAY_US


class ControlApi:
    """`/sim/…`: clock, oracle, and connection faults on demand.

    Args:
        venues: markets by name.
        stream_servers: WebSocket servers by market.
        replay: the replay that is served, if any.
    """

    def __init__(
        self,
        venues: Mapping[MarketName, Venue],
        stream_servers: Mapping[MarketName, StreamServer],
        replay: Replay | None = None,
    ) -> None:
        self._venues = venues
        self._replay = replay
        self._stream_servers = stream_servers

    def routes(self) -> list[Route]:
        """Return all control routes."""
        return [
            Route("/sim/clock", self._clock, methods=["GET"]),
            Route("/sim/klines", self._klines, methods=["GET"]),
            Route("/sim/depth", self._depth, methods=["GET"]),
            Route("/sim/liquidations", self._liquidations, methods=["GET"]),
            Route("/sim/connections", self._connections, methods=["GET"]),
            Route("/sim/replay", self._replay_state, methods=["GET"]),
            Route("/sim/cut", self._cut, methods=["POST"]),
            Route("/sim/stall", self._stall, methods=["POST"]),
            Route("/sim/shutdown", self._shutdown, methods=["POST"]),
        ]

    async def _clock(self, _request: Request) -> Response:
        return _json(
            {
                name: {"now_us": venue.now_us(), "now_ms": venue.now_us() // US_PER_MS}
                for name, venue in self._venues.items()
            }
        )

    async def _answer(
        self, request: Request, tell: Callable[[QueryParameters], Any], known: tuple[str, ...]
    ) -> Response:
        """Answer an oracle request, or explain what is wrong with its parameters."""
        try:
            params = QueryParameters(request.query_params, known, is_strict=True)
            return _json(await asyncio.to_thread(tell, params))
        except ApiError as error:
            return _json(error.body(), status=error.status)
        except (KeyError, ValueError, UnavailableError) as error:
            return _json({"code": -1100, "msg": f"bad request: {error}"}, status=400)

    def _venue(self, params: QueryParameters) -> Venue:
        name = params.text("market") or "spot"
        venue = next((venue for key, venue in self._venues.items() if key == name), None)
        if venue is None:
            raise ApiError(-1100, f"no market {name!r}; there are {', '.join(self._venues)}")
        return venue

    async def _klines(self, request: Request) -> Response:
        return await self._answer(request, self._true_klines, _ORACLE_PARAMETERS)

    def _true_klines(self, params: QueryParameters) -> Any:
        """Return all klines, in the exchange's text."""
        venue = self._venue(params)
        query = KlineQuery(
            symbol=params.required("symbol"),
            interval=parse_interval(params.text("interval") or "1m"),
            start_us=params.time_us("startTime"),
            end_us=params.time_us("endTime", is_end=True),
            is_oracle=True,
        )
        return venue.klines(query, unit_us=US_PER_MS)

    async def _depth(self, request: Request) -> Response:
        return await self._answer(request, self._book, _BOOK_PARAMETERS)

    def _book(self, params: QueryParameters) -> Any:
        """Return all levels at an update id, or now."""
        venue = self._venue(params)
        if not isinstance(venue, MarketVenue):
            raise UnavailableError("a recording has no order book")
        symbol = params.required("symbol")
        book = venue.market.book(symbol)
        latest = book.update_id(book.step_at(venue.now_us()))
        update_id = params.integer("updateId")
        if update_id is not None and update_id > latest:
            raise ApiError(-1100, f"updateId is {update_id}; the latest is {latest}")
        return venue.depth_at(symbol, latest if update_id is None else update_id)

    async def _liquidations(self, request: Request) -> Response:
        return await self._answer(request, self._true_liquidations, _LIQUIDATION_PARAMETERS)

    def _true_liquidations(self, params: QueryParameters) -> Any:
        """Return the liquidations that streams have sent: the last one of each second."""
        venue = self._venue(params)
        if not isinstance(venue, MarketVenue):
            raise UnavailableError("a recording has no list of liquidations")
        series = venue.market.derivatives(params.required("symbol"))
        history = series.history
        if not history.instrument.is_future:
            raise ValueError("spot has no liquidations; set market to a futures market")
        # a second's liquidation is known once the second is over
        known_us = venue.now_us() // SECOND_US * SECOND_US - 1
        end_us = min(known_us, params.time_us("endTime", is_end=True) or known_us)
        start_us = params.time_us("startTime")
        start_us = max(history.start_us, end_us - DAY_US if start_us is None else start_us)
        if end_us - start_us > _MAX_LIQUIDATION_SPAN_US:
            raise ValueError("the times are more than two days apart; ask for less at once")
        orders = [
            order
            for minute in range(start_us // MINUTE_US, end_us // MINUTE_US + 1)
            for order in series.liquidations(minute)
            if start_us <= order.time_us <= end_us
        ]
        return [force_order_row(history.instrument, order) for order in orders]

    def _chosen(self, request: Request) -> list[StreamServer]:
        market = request.query_params.get("market") or "all"
        chosen = [end for name, end in self._stream_servers.items() if market in (name, "all")]
        if not chosen:
            raise ValueError(
                f"market is {market!r}; it must be {', '.join(map(repr, self._stream_servers))} or "
                "'all', which it is if left out"
            )
        return chosen

    def _done(
        self, request: Request, answer: str, do: Callable[[StreamServer, float | None], int]
    ) -> Response:
        """Apply an action to the chosen servers and answer with the number of connections hit."""
        try:
            stream_servers, seconds = self._chosen(request), _seconds(request)
        except ValueError as error:
            return _json({"code": -1100, "msg": str(error)}, status=400)
        return _json({answer: sum(do(server, seconds) for server in stream_servers)})

    async def _connections(self, _request: Request) -> Response:
        return _json(
            {name: len(server.connections) for name, server in self._stream_servers.items()}
        )

    async def _replay_state(self, _request: Request) -> Response:
        replay = self._replay
        if replay is None:
            return _json({"code": -1000, "msg": "no recording is replayed"}, status=404)
        return _json(
            {
                "frames": replay.recording.frame_count,
                "played": replay.frames_played,
                "sent": replay.frames_sent,
                "finished": replay.is_finished,
            }
        )

    async def _cut(self, request: Request) -> Response:
        return self._done(request, "dropped", lambda server, _seconds: server.cut())

    async def _stall(self, request: Request) -> Response:
        return self._done(request, "stalled", lambda server, seconds: server.stall(seconds))

    async def _shutdown(self, request: Request) -> Response:
        return self._done(
            request,
            "announced",
            lambda server, seconds: server.announce_shutdown(
                _GRACE_S if seconds is None else seconds
            ),
        )


def _seconds(request: Request) -> float | None:
    text = request.query_params.get("seconds")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < _MAX_SECONDS:
        raise ValueError(f"seconds is {text!r}; it must be a number from 0 to {_MAX_SECONDS:g}")
    return value


def _json(body: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status_code=status, media_type="application/json")
