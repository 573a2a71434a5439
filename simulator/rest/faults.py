"""Faults of REST: which requests fail, and how.

A fault plan or a test adds and removes rules while the servers run. Each rule names the requests
that it matches (market, endpoint, symbol) and one effect.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args

from simulator.clock import SECOND_US
from simulator.http.fault_rules import CheckedFields, FaultRules
from simulator.market.instruments import MarketName


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayAnswer(CheckedFields):
    """The answer arrives late, by real seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseRequest(CheckedFields):
    """An error instead of the answer.

    Attributes:
        status: 400 to 599.
        code, message: of the body `{"code", "msg"}`; the exchange's own for the status if None.
        body: sent unchanged instead of code and message, e.g. a gateway's HTML.
        retry_after_s: header `Retry-After`; sent with 429 and 418 even if None (60 and 120).
    """

    status: int
    code: int | None = None
    message: str | None = None
    body: str | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineLag(CheckedFields):
    """Klines omit trades younger than this, in place of the configured lag.

    The last row is the minute that was open then, unfinished, even if it has ended since.
    """

    lag_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeLag(CheckedFields):
    """aggTrades and trades omit trades younger than this, in place of the configured lag."""

    lag_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLag(CheckedFields):
    """Derivative series omit rows younger than this: price klines, funding, open interest."""

    lag_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseRows(CheckedFields):
    """A list lacks some rows within it; the length of the list determines which ones."""

    rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatRows(CheckedFields):
    """A list has some rows twice; the length of the list determines which ones."""

    rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateBody(CheckedFields):
    """The body ends early, with a Content-Length that matches."""

    keep_percent: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformBody(CheckedFields):
    """The body is text instead of JSON, with status 200."""

    body: str = "<html><body>upstream connect error</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortConnection(CheckedFields):
    """The connection is reset within the body; at 0 percent before any byte of the answer."""

    keep_percent: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLastRows(CheckedFields):
    """A list lacks its last rows, as from a lagging replica."""

    rows: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVoidRows(CheckedFields):
    """aggTrades contain void rows (price and quantity 0, trade ids −1) before some true ones.

    The exchange marks historic duplicates like this. A void row has the id of the true row after
    it, because ids have no gaps to put it in.
    """

    rows: int = 1


RequestEffect = (
    AddVoidRows
    | DelayAnswer
    | RefuseRequest
    | TruncateBody
    | MalformBody
    | AbortConnection
    | DropLastRows
    | LoseRows
    | RepeatRows
)
RestEffect = RequestEffect | KlineLag | TradeLag | SeriesLag


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRule(CheckedFields):
    """An effect and the requests that it matches.

    Attributes:
        market: `spot` or `um`; both if None.
        endpoint: glob over the path after the version, e.g. `klines` or `ticker/*`.
        symbol: glob over the parameter `symbol`; `*` also matches requests without one.
        times: maximum number of hits.
    """

    effect: RestEffect
    market: MarketName | None = None
    endpoint: str = "*"
    symbol: str = "*"
    times: int | None = None

    def concerns(self, market: MarketName, endpoint: str, symbol: str) -> bool:
        """Whether the rule matches a request; `symbol` is empty if none was sent."""
        return (
            self.market in (None, market)
            and fnmatchcase(endpoint, self.endpoint)
            and fnmatchcase(symbol, self.symbol)
        )


class RestFaults(FaultRules[RestRule]):
    """Active rules of both markets' REST servers."""

    def effects(self, market: MarketName, endpoint: str, symbol: str) -> list[RequestEffect]:
        """Return the effects on a request, except lags; counts the rules as hit."""
        return self.matching_effects(
            get_args(RequestEffect), lambda rule: rule.concerns(market, endpoint, symbol)
        )

    def kline_lag_us(self, market: MarketName, symbol: str, default_us: int) -> int:
        """Return the greatest active lag of a symbol's klines, or the default."""
        lags = self.matching_effects(KlineLag, lambda rule: rule.concerns(market, "klines", symbol))
        return max((lag.lag_us for lag in lags), default=default_us)

    def trade_lag_us(self, market: MarketName, symbol: str, default_us: int) -> int:
        """Return the greatest active lag of a symbol's trades, or the default."""
        lags = self.matching_effects(
            TradeLag, lambda rule: rule.concerns(market, "aggTrades", symbol)
        )
        return max((lag.lag_us for lag in lags), default=default_us)

    def series_lag_us(self, market: MarketName, endpoint: str, symbol: str) -> int:
        """Return the greatest active lag of an endpoint of derivative series, or 0.

        Args:
            endpoint: the last part of its path.
        """
        lags = self.matching_effects(
            SeriesLag, lambda rule: rule.concerns(market, endpoint, symbol)
        )
        return max((lag.lag_us for lag in lags), default=0)


def with_lost_rows(rows: list[Any], wanted: int) -> list[Any]:
    """Return the rows without some of them, spread evenly."""
    lost = _spread(len(rows), wanted)
    return [row for number, row in enumerate(rows) if number not in lost]


def with_repeated_rows(rows: list[Any], wanted: int) -> list[Any]:
    """Return the rows, some of them twice, spread evenly."""
    twice = _spread(len(rows), wanted)
    return [row for number, row in enumerate(rows) for _ in range(2 if number in twice else 1)]


def _spread(count: int, wanted: int) -> set[int]:
    """Return up to `wanted` numbers below `count`, none of them the first if there are others."""
    picked = {1 + number * (count - 1) // wanted for number in range(wanted)} if count > 1 else {0}
    return {number for number in picked if number < count}


def default_error(status: int, *, now_us: int) -> dict[str, Any]:
    """Return the exchange's body of an error status."""
    until_ms = (now_us + 120 * SECOND_US) // 1_000
    known = {
        403: (-1000, "Request blocked."),
        418: (-1003, f"Way too much request weight used; IP banned until {until_ms}."),
        429: (-1003, "Too much request weight used."),
        503: (-1008, "Server is currently overloaded with other requests."),
        504: (-1007, "Timeout waiting for response from backend server."),
    }
    code, message = known.get(status, (-1001, "Internal error; unable to process your request."))
    return {"code": code, "msg": message}


def with_void_rows(rows: list[dict[str, Any]], wanted: int, *, limit: int) -> list[dict[str, Any]]:
    """Return aggTrade rows with up to `wanted` void ones in the first half, at most `limit` in all.

    The last row is a true one, so that clients that continue from its id miss no true trade. A page
    of one row therefore has no void one.
    """
    if limit < 2:
        return rows
    half = max(1, len(rows) // 2)
    chosen = {number * half // wanted for number in range(wanted)} if rows else set()
    mixed = []
    for number, row in enumerate(rows):
        if number in chosen:
            mixed.append(row | {"p": "0", "q": "0", "f": -1, "l": -1})
        mixed.append(row)
    return mixed[:limit]
