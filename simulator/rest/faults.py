"""Faults of the REST side: which requests go wrong, and how.

`RestFaults` is a switchboard: rules are added and removed while the servers run, by a fault plan
or by a test. Each rule names what it concerns (market, endpoint, symbol) and one effect.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from simulator.clock import SECOND_US
from simulator.http.fault_rules import (
    FaultRules,
    check_error_status,
    check_keep_percent,
    check_minimum,
    check_wait,
)
from simulator.market.instruments import MarketName


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayAnswer:
    """The answer comes late, by real seconds."""

    seconds: float

    def __post_init__(self) -> None:
        check_wait(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseRequest:
    """An error instead of the answer.

    Attributes:
        status: 400 to 599.
        code, message: of the body `{"code", "msg"}`; the exchange's own for the status if None.
        body: sent as it is in place of code and message, e.g. a gateway's HTML.
        retry_after_s: header `Retry-After`; sent with 429 and 418 even if None (60 and 120).
    """

    status: int
    code: int | None = None
    message: str | None = None
    body: str | None = None
    retry_after_s: int | None = None

    def __post_init__(self) -> None:
        check_error_status(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class KlineLag:
    """Klines leave out trades younger than this, in place of the configured lag.

    The last row is the minute that was open then, unfinished, though it may have ended since.
    """

    lag_us: int

    def __post_init__(self) -> None:
        check_minimum(0, lag_us=self.lag_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeLag:
    """aggTrades and trades younger than this are left out, in place of the configured lag."""

    lag_us: int

    def __post_init__(self) -> None:
        check_minimum(0, lag_us=self.lag_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncateBody:
    """The body ends early, with a content length that fits what is sent."""

    keep_percent: int = 60

    def __post_init__(self) -> None:
        check_keep_percent(self.keep_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformBody:
    """The body is text in place of the JSON, with status 200."""

    body: str = "<html><body>upstream connect error</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortConnection:
    """The connection breaks within the body; at 0 percent before any byte of the answer."""

    keep_percent: int = 50

    def __post_init__(self) -> None:
        check_keep_percent(self.keep_percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLastRows:
    """A list comes without its last rows, as from a replica that lags."""

    rows: int = 1

    def __post_init__(self) -> None:
        check_minimum(1, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVoidRows:
    """aggTrades with void rows (price and quantity 0, trade ids −1) before some true ones.

    The exchange marks historic duplicates so. A void row bears the id of the true one after it,
    since ids here have no holes to put it in.
    """

    rows: int = 1

    def __post_init__(self) -> None:
        check_minimum(1, rows=self.rows)


RequestEffect = (
    AddVoidRows
    | DelayAnswer
    | RefuseRequest
    | TruncateBody
    | MalformBody
    | AbortConnection
    | DropLastRows
)
RestEffect = RequestEffect | KlineLag | TradeLag


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRule:
    """What goes wrong with which requests.

    Attributes:
        market: `spot` or `um`; both if None.
        endpoint: glob over the path after the version, e.g. `klines` or `ticker/*`.
        symbol: glob over the parameter `symbol`; `*` also fits requests without one.
        times: the rule ends by itself after so many hits.
    """

    effect: RestEffect
    market: MarketName | None = None
    endpoint: str = "*"
    symbol: str = "*"
    times: int | None = None

    def __post_init__(self) -> None:
        if self.times is not None:
            check_minimum(1, times=self.times)

    def concerns(self, market: MarketName, endpoint: str, symbol: str) -> bool:
        """Whether a request is meant; `symbol` is empty where none was sent."""
        return (
            self.market in (None, market)
            and fnmatchcase(endpoint, self.endpoint)
            and fnmatchcase(symbol, self.symbol)
        )


class RestFaults(FaultRules[RestRule]):
    """All active rules of the REST servers of both markets."""

    def effects(self, market: MarketName, endpoint: str, symbol: str) -> list[RequestEffect]:
        """What happens to a request, lags left out; counts the rules as hit."""
        if self.is_idle:
            return []
        rules = self.matching(
            lambda rule: (
                not isinstance(rule.effect, KlineLag | TradeLag)
                and rule.concerns(market, endpoint, symbol)
            )
        )
        return [rule.effect for rule in rules if not isinstance(rule.effect, KlineLag | TradeLag)]

    def kline_lag_us(self, market: MarketName, symbol: str, default_us: int) -> int:
        """The greatest lag of klines that is in force for a symbol, or the default."""
        if self.is_idle:
            return default_us
        rules = self.matching(
            lambda rule: (
                isinstance(rule.effect, KlineLag) and rule.concerns(market, "klines", symbol)
            )
        )
        lags = [rule.effect.lag_us for rule in rules if isinstance(rule.effect, KlineLag)]
        return max(lags, default=default_us)

    def trade_lag_us(self, market: MarketName, symbol: str, default_us: int) -> int:
        """The greatest lag of trades that is in force for a symbol, or the default."""
        if self.is_idle:
            return default_us
        rules = self.matching(
            lambda rule: (
                isinstance(rule.effect, TradeLag) and rule.concerns(market, "aggTrades", symbol)
            )
        )
        lags = [rule.effect.lag_us for rule in rules if isinstance(rule.effect, TradeLag)]
        return max(lags, default=default_us)


def default_error(status: int, *, now_us: int) -> dict[str, Any]:
    """The body that the exchange sends with an error status."""
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
    """aggTrade rows with up to `wanted` void ones among the first half, at most `limit` in all.

    The last row is a true one, so that nobody who goes on from its id passes over a true trade;
    a page of one row therefore has no void one.
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
