"""Query parameters of REST requests, with the exchange's errors."""

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import QueryParams

from simulator.wire.payloads import US_PER_MS

INTEGER = re.compile(r"-?[0-9]{1,19}\Z")
_NOT_NEGATIVE = re.compile(r"[0-9]{1,19}\Z")
# Times of at least 1e14 are µs: 1e14 ms is the year 5138.
MICROSECONDS_FROM = 10**14


class ApiError(Exception):
    """An error answer of the exchange."""

    def __init__(self, code: int, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    def body(self) -> dict[str, Any]:
        """Return `{"code", "msg"}`."""
        return {"code": self.code, "msg": str(self)}


class QueryParameters:
    """Query parameters of one request. Methods raise the exchange's errors.

    Args:
        known: all parameters of the endpoint.
        is_strict: refuse unknown parameters, as spot does; USD-M ignores them.
    """

    def __init__(
        self, query: Mapping[str, str], known: tuple[str, ...], *, is_strict: bool
    ) -> None:
        self._query = query
        sent = list(query.multi_items()) if isinstance(query, QueryParams) else list(query.items())
        if len(sent) > len(query):
            raise ApiError(-1101, "Duplicate values for a parameter detected.")
        unread = [name for name in query if name not in known]
        if unread and is_strict:
            raise ApiError(
                -1104,
                f"Not all sent parameters were read; read '{len(query) - len(unread)}' "
                f"parameter(s) but was sent '{len(query)}'.",
            )
        for name in known:
            if query.get(name) == "":
                raise ApiError(-1105, f"Parameter '{name}' was empty.")

    def text(self, name: str) -> str | None:
        """Return a parameter unchanged; None if it was not sent."""
        return self._query.get(name)

    def required(self, name: str) -> str:
        """Return a mandatory parameter."""
        value = self._query.get(name)
        if value is None:
            raise ApiError(
                -1102,
                f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.",
            )
        return value

    def integer(self, name: str) -> int | None:
        """Return an integer of zero or more; None if it was not sent."""
        value = self._query.get(name)
        if value is None:
            return None
        if not _NOT_NEGATIVE.match(value):
            raise ApiError(
                -1100,
                f"Illegal characters found in parameter '{name}'; "
                "legal range is '^[0-9]{1,20}$'.",
            )
        return int(value)

    def time_us(self, name: str, *, is_end: bool = False) -> int | None:
        """Return a time sent in ms or µs; an end in ms includes its whole millisecond."""
        value = self.integer(name)
        if value is None:
            return None
        if value >= MICROSECONDS_FROM:
            return value
        return value * US_PER_MS + (US_PER_MS - 1 if is_end else 0)

    def names(self, name: str) -> list[str] | None:
        """Return a JSON list of strings, or one bare name."""
        text = self._query.get(name)
        if text is None:
            return None
        if not text.startswith("["):
            return [text]
        try:
            names = json.loads(text)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
            raise ApiError(-1100, f"Illegal characters found in parameter '{name}'.")
        return names

    def limit(
        self,
        *,
        default: int,
        maximum: int,
        is_strict: bool,
        allowed: tuple[int, ...] | None = None,
    ) -> int:
        """Return `limit`. Above the maximum USD-M refuses; spot is assumed to clamp (unverified).

        Args:
            allowed: the only accepted values.
        """
        value = self.integer("limit")
        if value is None:
            return default
        if allowed is not None and value not in allowed:
            raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
        if value < 1 or (value > maximum and is_strict):
            raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(value, maximum)
