"""Stream control messages and stream names as pure functions: text in, answer out.

Every SUBSCRIBE is acknowledged, even for unknown streams, so an acknowledgement proves nothing.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from simulator.market.instruments import MarketName

MAX_STREAMS: Final = 1_024
_ID_TEXT = re.compile(r"[A-Za-z0-9_-]{1,36}\Z")
_UNKNOWN_PROPERTY, _NOT_BOOLEAN, _INVALID_REQUEST, _INVALID_JSON, _TOO_MANY = range(5)
# Streams of unrouted and /public USD-M connections; all others are on /market.
_PUBLIC_KINDS = ("depth", "bookTicker", "rpiDepth", "trade")


class PathError(ValueError):
    """The request target is not a stream endpoint. Carries the HTTP status of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """Parsed URL of a connection.

    Attributes:
        route: None on spot; `public`, `market` or `private` on USD-M (`public` if unrouted).
        unit_us: 1 with `timeUnit=MICROSECOND`, otherwise 1000.
    """

    combined: bool
    streams: tuple[str, ...]
    route: str | None
    unit_us: int

    def delivers(self, stream: str) -> bool:
        """Whether this connection's path carries the stream at all."""
        if self.route is None:
            return True
        if self.route == "private":
            return False  # user data, which does not exist here
        kind = stream[1:] if stream.startswith("!") else stream.partition("@")[2]
        return kind.startswith(_PUBLIC_KINDS) == (self.route == "public")


def _as_utf8(raw: str) -> str:
    """Decode a request target whose non-ASCII bytes are surrogates (symbols may have some)."""
    try:
        return raw.encode("ascii", "surrogateescape").decode()
    except UnicodeError:
        raise PathError(400, "the path is neither ASCII nor UTF-8") from None


def parse_target(market: MarketName, raw: str) -> StreamTarget:
    """Parse `/ws`, `/ws/<stream>[/<stream>…]`, `/stream?streams=a/b`, with USD-M's routes."""
    parts = urlsplit(_as_utf8(raw))
    query = parse_qs(parts.query, keep_blank_values=True)
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    route = None
    if market == "um":
        route = "public"
        if segments and segments[0] in ("public", "market", "private"):
            route = segments.pop(0)
    unit_us = 1_000
    if market == "spot" and "timeUnit" in query:
        unit = query["timeUnit"][-1].upper()
        if unit not in ("MILLISECOND", "MICROSECOND"):
            raise PathError(400, f"timeUnit is {unit!r}; it must be MILLISECOND or MICROSECOND")
        unit_us = 1 if unit == "MICROSECOND" else 1_000
    if segments[:1] == ["ws"]:
        return StreamTarget(False, tuple(segments[1:]), route, unit_us)
    if segments == ["stream"]:
        names = [name for text in query.get("streams", []) for name in text.split("/") if name]
        return StreamTarget(True, tuple(names), route, unit_us)
    raise PathError(404, f"no stream endpoint at {parts.path!r}; use /ws or /stream")


@dataclass(frozen=True, slots=True)
class ControlReply:
    """Answer to a control message and its effect.

    Attributes:
        text: the answer to send.
        added, removed: newly subscribed and unsubscribed streams.
        close: close the connection after the answer, with code 1008 and this reason.
    """

    text: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    close: str | None = None


@dataclass(slots=True)
class StreamSession:
    """Subscriptions and properties of one connection."""

    combined: bool
    max_streams: int = MAX_STREAMS
    streams: dict[str, None] = field(default_factory=dict)

    def add(self, names: Iterable[str]) -> tuple[str, ...]:
        """Subscribe and return the names that were not subscribed before."""
        new = tuple(dict.fromkeys(name for name in names if name not in self.streams))
        self.streams.update(dict.fromkeys(new))
        return new

    def handle(self, text: str | bytes) -> ControlReply:
        """Execute one control message."""
        try:
            message = json.loads(text)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}"
            return _error(_INVALID_JSON, f"Invalid JSON: expected value at {place}", None)
        except UnicodeDecodeError as error:
            place = f"column {error.start + 1}"
            return _error(_INVALID_JSON, f"Invalid JSON: invalid UTF-8 at {place}", None)
        if not isinstance(message, dict):
            return _error(_INVALID_REQUEST, "Invalid request: request must be an object", None)
        identity = message.get("id")
        if not _is_identity(identity):
            return _error(
                _INVALID_REQUEST,
                "Invalid request: request ID must be an unsigned integer or a string of up to "
                "36 characters",
                None,
            )
        unknown = set(message) - {"method", "params", "id"}
        if unknown:
            return _error(
                _INVALID_REQUEST, f"Invalid request: unknown field {min(unknown)!r}", identity
            )
        match message.get("method"):
            case "SUBSCRIBE" | "UNSUBSCRIBE" as method:
                return self._change(method, message.get("params"), identity)
            case "LIST_SUBSCRIPTIONS":
                return _result(list(self.streams), identity)
            case "SET_PROPERTY" | "GET_PROPERTY" as method:
                return self._property(method, message.get("params"), identity)
            case None:
                return _error(
                    _INVALID_REQUEST,
                    f"Invalid request: missing field `method` at line 1 column {len(text)}",
                    identity,
                )
            case other:
                return _error(_INVALID_REQUEST, _unknown_variant(other), identity)

    def _change(self, method: str, params: Any, identity: Any) -> ControlReply:
        if not isinstance(params, list) or not params:
            return _error(_INVALID_REQUEST, "Invalid request: no streams in `params`", identity)
        if not all(isinstance(name, str) for name in params):
            return _error(_INVALID_REQUEST, "Invalid request: stream must be a string", identity)
        if method == "UNSUBSCRIBE":
            removed = tuple(dict.fromkeys(name for name in params if name in self.streams))
            for name in removed:
                del self.streams[name]
            return _result(None, identity, removed=removed)
        new = dict.fromkeys(name for name in params if name not in self.streams)
        if len(self.streams) + len(new) > self.max_streams:
            reply = _error(_TOO_MANY, "Too many subscriptions", identity)
            return ControlReply(reply.text, close="Invalid request")
        return _result(None, identity, added=self.add(params))

    def _property(self, method: str, params: Any, identity: Any) -> ControlReply:
        wanted = 2 if method == "SET_PROPERTY" else 1
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            return _error(
                _INVALID_REQUEST, "Invalid request: property name must be a string", identity
            )
        if len(params) > wanted:
            return _error(_INVALID_REQUEST, "Invalid request: too many parameters", identity)
        if params[0] != "combined":
            return _error(_UNKNOWN_PROPERTY, "Unknown property", identity)
        if method == "GET_PROPERTY":
            return _result(self.combined, identity)
        if len(params) < 2 or not isinstance(params[1], bool):
            return _error(_NOT_BOOLEAN, "Invalid value type: expected Boolean", identity)
        self.combined = params[1]
        return _result(None, identity)


def _unknown_variant(method: Any) -> str:
    return (
        f"Invalid request: unknown variant `{method}`, expected one of `SUBSCRIBE`, "
        "`UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
    )


def _is_identity(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return isinstance(value, str) and _ID_TEXT.match(value) is not None


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _result(
    result: Any, identity: Any, *, added: tuple[str, ...] = (), removed: tuple[str, ...] = ()
) -> ControlReply:
    return ControlReply(_dump({"result": result, "id": identity}), added, removed)


def _error(code: int, message: str, identity: Any) -> ControlReply:
    return ControlReply(_dump({"error": {"code": code, "msg": message}, "id": identity}))
