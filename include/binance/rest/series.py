"""Derivative series by REST: price klines, funding rates, open interest and ratios.

Each request covers a range that fits its page, whichever end of the range a market answers from.
Numbers stay text until they are checked; rows that break a rule are returned with the reason, as
those of files are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from include.binance.rest.client import BinanceRest
from include.binance.rest.klines import final_until
from include.binance.rest.weights import BEST_KLINES, POOLED_WEIGHT, WeightBudget, klines_weight
from include.binance.streams.messages import microseconds
from include.domain.instruments import Market, exchange_symbol_of, pair_of
from include.domain.series.funding import MAX_DELAY_US, settles_at_us
from include.domain.series.kinds import PRICES, STATISTICS_STEP_US, TABLES, Series
from include.domain.series.points import PointValue, SeriesPoint, point_of
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, from_us

FUNDING_ROWS = 1_000
STATISTICS_ROWS = 500

STATISTICS_DAYS = 30
"""Older open interest and ratios are refused."""
STATISTICS_MARGIN_US = HOUR_US
"""Distance from that bound: the oldest rows leave the window while they are requested."""

REST_LAGS_US = DAY_US
"""REST may still lack rows younger than this, or return an open minute; older ones are final."""

_PRICE_METHODS = {
    Series.MARK: "markPriceKlines",
    Series.INDEX: "indexPriceKlines",
    Series.PREMIUM: "premiumIndexKlines",
}
_RATIO_METHODS = (
    ("topLongShortAccountRatio", "longShortRatio"),
    ("topLongShortPositionRatio", "longShortRatio"),
    ("globalLongShortAccountRatio", "longShortRatio"),
    ("takerlongshortRatio", "buySellRatio"),
)
"""Methods and fields of the four ratios, in the order of the table's columns."""

_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


class PriceRow(msgspec.Struct, frozen=True, array_like=True):
    """One price kline: an array of twelve values, of which the prices have a meaning."""

    open_time: int  # ms
    open: str
    high: str
    low: str
    close: str


class FundingRow(msgspec.Struct, frozen=True):
    """One settlement of ``fundingRate``."""

    funding_time: int = msgspec.field(name="fundingTime")  # ms
    funding_rate: str = msgspec.field(name="fundingRate")
    mark_price: str = msgspec.field(name="markPrice", default="")
    """Empty or absent for old settlements."""


class OpenInterestRow(msgspec.Struct, frozen=True):
    """One row of ``openInterestHist``."""

    timestamp: int  # ms
    open_interest: str = msgspec.field(name="sumOpenInterest")
    value: str = msgspec.field(name="sumOpenInterestValue")


class RatioRow(msgspec.Struct, frozen=True):
    """One row of the four ratios; each method has one of the fields."""

    timestamp: int  # ms
    long_short: str | None = msgspec.field(name="longShortRatio", default=None)
    buy_sell: str | None = msgspec.field(name="buySellRatio", default=None)


_PRICES = msgspec.json.Decoder(list[PriceRow])
_FUNDING = msgspec.json.Decoder(list[FundingRow])
_OPEN_INTEREST = msgspec.json.Decoder(list[OpenInterestRow])
_RATIOS = msgspec.json.Decoder(list[RatioRow])


class _WrongRowError(Exception):
    """A row breaks a rule; the message is the reason."""


@dataclass(frozen=True, slots=True)
class RejectedAnswerRow:
    """A row of an answer that breaks a rule.

    Attributes:
        request: method and symbol.
        number: of the row in the answer, from 1.
        raw: the row as JSON.
    """

    request: str
    number: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class SeriesPage:
    """The answer for a part of a range.

    Attributes:
        end_us: end of the part (exclusive); for a full page of funding, after its last row.
        points: usable rows that are final, ascending.
    """

    start_us: int
    end_us: int
    points: list[SeriesPoint]
    rejected: list[RejectedAnswerRow] = field(default_factory=list)


class SeriesRest:
    """Requests derivative series of one futures market.

    Args:
        rest: client of the market.
        funding_pool: budget of requests of ``fundingRate``.
        statistics_pool: budget of requests under ``/futures/data``.
    """

    def __init__(
        self, rest: BinanceRest, *, funding_pool: WeightBudget, statistics_pool: WeightBudget
    ) -> None:
        self._rest = rest
        self._funding_pool = funding_pool
        self._statistics_pool = statistics_pool

    @property
    def market(self) -> Market:
        """The futures market."""
        return self._rest.market

    def server_time_us(self) -> int:
        """Request the exchange's time."""
        return self._rest.server_time_us()

    def serves(self, series: Series) -> bool:
        """Whether REST has a series; COIN-M has other statistics, whose files are used alone."""
        return not TABLES[series].is_statistic or self.market is Market.UM

    def pages(
        self, series: Series, symbol: str, start_us: int, end_us: int, *, server_time_us: int
    ) -> Iterator[SeriesPage]:
        """Yield the pages of a range, ascending.

        Args:
            symbol: platform symbol.
            start_us, end_us: half-open range of the series' times.
            server_time_us: decides which minutes are final.

        Raises:
            PermanentError: unknown symbol, a range that the exchange does not serve, or a
                blocked region.
            RateLimitedError, TransientError: as ``BinanceRest.get``.
        """
        if series is Series.FUNDING:
            yield from self._funding(symbol, start_us, end_us)
            return
        table = TABLES[series]
        rows = STATISTICS_ROWS if table.is_statistic else BEST_KLINES[self.market] - 1
        step_us = table.step_us or MINUTE_US
        start_us = -(-start_us // step_us) * step_us
        for first_us in range(start_us, end_us, rows * step_us):
            until_us = min(end_us, first_us + rows * step_us)
            if series is Series.RATIOS:
                yield self._ratios(symbol, first_us, until_us)
            elif series is Series.OPEN_INTEREST:
                yield self._open_interest(symbol, first_us, until_us)
            else:
                yield self._prices(series, symbol, first_us, until_us, server_time_us)

    # --- the methods

    def _prices(
        self, series: Series, symbol: str, start_us: int, end_us: int, server_time_us: int
    ) -> SeriesPage:
        """Request minutes and the one after them, which proves that the server is past them.

        A server that lags returns its open minute as if it had ended.
        """
        method = _PRICE_METHODS[series]
        name = "pair" if series is Series.INDEX else "symbol"
        asked = pair_of(symbol) if series is Series.INDEX else exchange_symbol_of(symbol)
        limit = -(-(end_us - start_us) // MINUTE_US) + 1
        answer = self._rest.get(
            method,
            {name: asked, "interval": "1m", "limit": limit} | _times(start_us, end_us + MINUTE_US),
            klines_weight(self.market, limit),
            _PRICES,
        )
        newest_us = max((microseconds(row.open_time) for row in answer), default=0)
        if newest_us + MINUTE_US > server_time_us - REST_LAGS_US:
            newest_us -= MINUTE_US
        last_us = min(newest_us, final_until(server_time_us) - MINUTE_US)
        final = [row for row in answer if microseconds(row.open_time) <= last_us]
        return _page(
            f"{method} {asked}", start_us, end_us, final, lambda row: _price_point(series, row)
        )

    def _funding(self, symbol: str, start_us: int, end_us: int) -> Iterator[SeriesPage]:
        asked = exchange_symbol_of(symbol)
        while start_us < end_us:
            answer = self._rest.get(
                "fundingRate",
                {"symbol": asked, "limit": FUNDING_ROWS} | _times(start_us - MAX_DELAY_US, end_us),
                POOLED_WEIGHT,
                _FUNDING,
                pool=self._funding_pool,
            )
            until_us = end_us
            if len(answer) >= FUNDING_ROWS:
                until_us = microseconds(answer[-1].funding_time) + 1_000
            yield _page(f"fundingRate {asked}", start_us, until_us, answer, _funding_point)
            start_us = until_us

    def _open_interest(self, symbol: str, start_us: int, end_us: int) -> SeriesPage:
        rows = self._statistics("openInterestHist", symbol, start_us, end_us, _OPEN_INTEREST)
        request = f"openInterestHist {exchange_symbol_of(symbol)}"
        return _page(request, start_us, end_us, rows, _open_interest_point)

    def _ratios(self, symbol: str, start_us: int, end_us: int) -> SeriesPage:
        """Join the four ratios by time; a time that one of them lacks is partial."""
        found: dict[int, dict[str, Decimal]] = {}
        rejected: list[RejectedAnswerRow] = []
        for method, field_name in _RATIO_METHODS:
            rows = self._statistics(method, symbol, start_us, end_us, _RATIOS)
            request = f"{method} {exchange_symbol_of(symbol)}"
            page = _page(request, start_us, end_us, rows, _ratio_point(field_name))
            rejected += page.rejected
            for point in page.points:
                (value,) = point.values
                if isinstance(value, Decimal):
                    found.setdefault(point.time_us, {})[method] = value
        points = [
            point_of(
                TABLES[Series.RATIOS],
                time_us,
                tuple(known.get(method) for method, _ in _RATIO_METHODS),
            )
            for time_us, known in sorted(found.items())
        ]
        return SeriesPage(start_us, end_us, points, rejected)

    def _statistics(
        self,
        method: str,
        symbol: str,
        start_us: int,
        end_us: int,
        decoder: msgspec.json.Decoder[Any],
    ) -> Any:
        return self._rest.get(
            method,
            {"symbol": exchange_symbol_of(symbol), "period": "5m", "limit": STATISTICS_ROWS}
            | _times(start_us, end_us),
            POOLED_WEIGHT,
            decoder,
            prefix="/futures/data",
            pool=self._statistics_pool,
        )


def oldest_us(series: Series, server_time_us: int) -> int:
    """Return the oldest time (µs) that REST serves of a series; 0 for all."""
    if not TABLES[series].is_statistic:
        return 0
    first_us = server_time_us - STATISTICS_DAYS * DAY_US + STATISTICS_MARGIN_US
    return -(-first_us // STATISTICS_STEP_US) * STATISTICS_STEP_US


# --- rows


def _times(start_us: int, end_us: int) -> dict[str, object]:
    return {"startTime": -(-start_us // 1000), "endTime": -(-end_us // 1000) - 1}


def _page(
    request: str,
    start_us: int,
    end_us: int,
    rows: Iterable[Any],
    convert: Callable[[Any], SeriesPoint],
) -> SeriesPage:
    """Check rows; equal ones count once, contradictory ones are rejected."""
    points: dict[int, SeriesPoint] = {}
    rejected: list[RejectedAnswerRow] = []
    contradicted: set[int] = set()
    for number, row in enumerate(rows, 1):
        raw = msgspec.json.encode(row).decode()
        try:
            point = convert(row)
        except _WrongRowError as error:
            rejected.append(RejectedAnswerRow(request, number, str(error), raw))
            continue
        if points.setdefault(point.time_us, point) != point:
            contradicted.add(point.time_us)
            reason = "rows of one time contradict each other"
            rejected.append(RejectedAnswerRow(request, number, reason, raw))
    usable = [
        points[time_us]
        for time_us in sorted(points)
        if time_us not in contradicted and start_us <= time_us < end_us
    ]
    return SeriesPage(start_us, end_us, usable, rejected)


def _number(name: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise _WrongRowError(f"{name} is empty" if not text else f"{name} is no number: {text!r}")
    return Decimal(text)


def _amount(name: str, text: str) -> Decimal:
    value = _number(name, text)
    if value < 0:
        raise _WrongRowError(f"{name} is negative")
    return value


def _step_time(time_ms: int) -> int:
    time_us = microseconds(time_ms)
    if time_us % STATISTICS_STEP_US:
        raise _WrongRowError("timestamp is not a multiple of 5 minutes")
    return time_us


def _price_point(series: Series, row: PriceRow) -> SeriesPoint:
    time_us = microseconds(row.open_time)
    prices = tuple(_number(name, getattr(row, name)) for name in PRICES)
    _, high, low, _ = prices
    if time_us % MINUTE_US:
        raise _WrongRowError("open_time is not a full minute")
    if high < max(prices):
        raise _WrongRowError("high is below another price")
    if low > min(prices):
        raise _WrongRowError("low is above another price")
    if series is not Series.PREMIUM and low <= 0:
        raise _WrongRowError("a price is not positive")
    return SeriesPoint(time_us, prices)


def _funding_point(row: FundingRow) -> SeriesPoint:
    funding_us = microseconds(row.funding_time)
    settles_us = settles_at_us(funding_us)
    if settles_us is None:
        raise _WrongRowError("funding_time is not near a whole hour")
    rate = _number("funding_rate", row.funding_rate)
    if abs(rate) >= 1:
        raise _WrongRowError("funding_rate is not below 100 %")
    mark: PointValue = None
    if row.mark_price:
        mark = _amount("mark_price", row.mark_price) or None
    return SeriesPoint(settles_us, (rate, from_us(funding_us), mark, None))


def _open_interest_point(row: OpenInterestRow) -> SeriesPoint:
    values = (
        _amount("open_interest", row.open_interest),
        _amount("open_interest_value", row.value) if row.value else None,
    )
    return point_of(TABLES[Series.OPEN_INTEREST], _step_time(row.timestamp), values)


def _ratio_point(field_name: str) -> Callable[[RatioRow], SeriesPoint]:
    def convert(row: RatioRow) -> SeriesPoint:
        text = row.buy_sell if field_name == "buySellRatio" else row.long_short
        if text is None:
            raise _WrongRowError(f"{field_name} is missing")
        return SeriesPoint(_step_time(row.timestamp), (_amount(field_name, text),))

    return convert
