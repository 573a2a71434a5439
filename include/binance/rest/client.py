"""REST client of one market: public data only, within a request weight budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Self, TypeVar

import httpx
import msgspec
import structlog

from include.backoff import Backoff, retried
from include.binance.endpoints import Endpoints
from include.binance.rest.answers import UNREADABLE, error_of, used_weight
from include.binance.rest.depth import (
    DEPTH_ANSWER,
    DEPTH_LEVELS,
    DEPTH_WEIGHT,
    book_snapshot_of,
)
from include.binance.rest.klines import (
    KLINE_ROWS,
    KlinePage,
    KlineRow,
    final_until,
    page_of,
)
from include.binance.rest.listing import (
    DELIVERY_PRICES,
    EXCHANGE_INFO,
    ListedInstruments,
    instruments_of,
)
from include.binance.rest.newest_first import oldest_rows
from include.binance.rest.weights import (
    AGG_TRADES_WEIGHT,
    BEST_KLINES,
    DELIVERY_PRICE_WEIGHT,
    EXCHANGE_INFO_WEIGHT,
    HISTORICAL_TRADES_WEIGHT,
    MAX_KLINES,
    TICKERS_24H_WEIGHT,
    TIME_WEIGHT,
    WeightBudget,
    klines_weight,
)
from include.binance.streams.messages import microseconds
from include.binance.tls import trusted
from include.domain.books.order_book import BookSnapshot
from include.domain.instruments import Instrument, Market, symbol_of
from include.domain.timeframes import Timeframe, timeframe
from include.errors import PermanentError, RateLimitedError, TransientError

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

TIMEOUT_S = 20.0
ATTEMPTS = 5
BACKOFF = Backoff(first_s=0.5, max_s=20.0)
SERVER_TIME_LASTS_S = 60.0
"""Maximum age of a known server time for pages of long-closed bars."""

MAX_TRADES = 1_000
"""Maximum rows of a page of trades or aggregate trades."""


class AggTradeRow(msgspec.Struct, frozen=True, gc=False):
    """One aggregate trade of ``GET …/aggTrades``."""

    id: int = msgspec.field(name="a")
    price: Decimal = msgspec.field(name="p")
    quantity: Decimal = msgspec.field(name="q")
    first_trade_id: int = msgspec.field(name="f")
    last_trade_id: int = msgspec.field(name="l")
    trade_time: int = msgspec.field(name="T")  # ms or µs
    is_buyer_maker: bool = msgspec.field(name="m")

    @property
    def is_void(self) -> bool:
        """Whether this is a duplicate that the exchange marked: price and quantity 0, ids −1."""
        return self.first_trade_id < 0 or not self.quantity


class TradeRow(msgspec.Struct, frozen=True, gc=False):
    """One trade of ``GET …/historicalTrades``."""

    id: int
    price: Decimal
    quantity: Decimal = msgspec.field(name="qty")
    quote_quantity: Decimal = msgspec.field(name="quoteQty")
    trade_time: int = msgspec.field(name="time")  # ms or µs
    is_buyer_maker: bool = msgspec.field(name="isBuyerMaker")

    @property
    def is_void(self) -> bool:
        """Whether the exchange voided this trade."""
        return not self.price or not self.quantity


class _Time(msgspec.Struct, frozen=True):
    server_time: int = msgspec.field(name="serverTime")


class _Ticker(msgspec.Struct, frozen=True):
    symbol: str
    quote_volume: Decimal | None = msgspec.field(name="quoteVolume", default=None)
    # COIN-M, which has no quote volume:
    base_volume: Decimal = msgspec.field(name="baseVolume", default=Decimal(0))
    average_price: Decimal = msgspec.field(name="weightedAvgPrice", default=Decimal(0))

    @property
    def amount(self) -> Decimal:
        """What was traded, in the quote asset; on COIN-M rounded by the average price."""
        if self.quote_volume is None:
            return self.base_volume * self.average_price
        return self.quote_volume


_TIME = msgspec.json.Decoder(_Time)
_TICKERS = msgspec.json.Decoder(list[_Ticker])
_AGG_TRADES = msgspec.json.Decoder(list[AggTradeRow])
_TRADES = msgspec.json.Decoder(list[TradeRow])


class BinanceRest:
    """Public REST methods of one market.

    Network errors, 5xx and the exchange's own timeouts are retried with full-jitter backoff a
    bounded number of times. 429 and 418 raise immediately: continuing would get the address banned.

    Args:
        endpoints: base URL and path prefix.
        budget: grants weight before each request, and receives the headers of each answer.
        timeout_s: seconds for connecting, and for each read.
        proxy: URL of an HTTP proxy; empty for none.
        attempts: maximum tries of one request.
        sleep: waits between attempts.
        transport: None for the network.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        budget: WeightBudget,
        timeout_s: float = TIMEOUT_S,
        proxy: str = "",
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.market = endpoints.market
        self._prefix = endpoints.rest_prefix
        self._budget = budget
        self._attempts = attempts
        self._sleep = sleep
        is_spot = endpoints.market is Market.SPOT
        self._http = httpx.Client(
            base_url=endpoints.rest_url,
            timeout=timeout_s,
            proxy=proxy or None,
            trust_env=False,
            verify=trusted(),
            transport=transport,
            # Futures do not support this header and always answer in milliseconds.
            headers={"X-MBX-TIME-UNIT": "MICROSECOND"} if is_spot else {},
        )
        self._host = self._http.base_url.netloc.decode()
        self._server_time_us = 0
        self._server_time_until_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def server_time_us(self) -> int:
        """Request the exchange's time."""
        moment = microseconds(self.get("time", {}, TIME_WEIGHT, _TIME).server_time)
        self._server_time_us = moment
        self._server_time_until_s = time.monotonic() + SERVER_TIME_LASTS_S
        return moment

    def exchange_info(self) -> list[Instrument]:
        """Return all instruments of the market, including those that no longer trade.

        Instruments without price and quantity steps, and refused ones, are omitted.
        """
        return self.listed().instruments

    def listed(self) -> ListedInstruments:
        """Return the instruments of the market as ``exchange_info``, and the refused ones."""
        weight = EXCHANGE_INFO_WEIGHT[self.market]
        return instruments_of(self.market, self.get("exchangeInfo", {}, weight, EXCHANGE_INFO))

    def delivery_prices(self, pair: str) -> dict[int, Decimal]:
        """Return the settlement prices of a pair of futures, by time of delivery (µs).

        Args:
            pair: the exchange's name, such as ``BTCUSD`` or ``BTCUSDT``.
        """
        found = self.get(
            "delivery-price",
            {"pair": pair},
            DELIVERY_PRICE_WEIGHT,
            DELIVERY_PRICES,
            prefix="/futures/data",
        )
        return {microseconds(one.delivery_time): one.price for one in found}

    def quote_volumes_24h(self) -> dict[str, Decimal]:
        """Return the traded amount of the last 24 hours in the quote asset, by platform symbol."""
        tickers = self.get("ticker/24hr", {}, TICKERS_24H_WEIGHT[self.market], _TICKERS)
        return {symbol_of(self.market, one.symbol): one.amount for one in tickers}

    def klines(
        self,
        exchange_symbol: str,
        interval: str,
        start_us: int | None = None,
        end_us: int | None = None,
        *,
        limit: int | None = None,
        with_next: bool = False,
    ) -> KlinePage:
        """Return one page of klines, oldest first.

        The server's time decides which rows are final, and is stored as their evidence. It is read
        from ``/time`` before the page, because the Date header has whole seconds and may come from
        a cache. A time before the page can only be too early, so a row never counts too soon. The
        time is read again if the last one is a minute old or too old for the requested end.

        Args:
            exchange_symbol: the exchange's name (``BTCUSDT``).
            start_us: first open time; None for the newest rows.
            end_us: rows open before this time; None for no bound.
            limit: rows of the page; None for the best ratio of rows to weight.
            with_next: also request the bar after ``end_us``. It is not part of the page's candles,
                but proves that the server is past them. It uses one of ``limit``.

        Raises:
            PermanentError: unknown symbol or interval, or a blocked region.
            RateLimitedError: 429 or 418.
            TransientError: no answer after all attempts.
        """
        bars = timeframe(interval)
        rows = limit or BEST_KLINES[self.market]
        if not 1 <= rows <= MAX_KLINES[self.market]:
            raise PermanentError(f"limit {rows} is not within 1..{MAX_KLINES[self.market]}")
        server_time_us = self._server_time_for(end_us)
        until_us = end_us
        if end_us is not None and with_next:
            until_us = bars.next_open_us(end_us)
        if self.market is Market.CM and start_us is not None:
            answer = self._oldest_klines(exchange_symbol, bars, start_us, until_us, rows)
        else:
            answer = self._klines(exchange_symbol, interval, start_us, until_us, rows)
        return page_of(
            answer,
            symbol=symbol_of(self.market, exchange_symbol),
            timeframe=bars,
            server_time_us=server_time_us,
            limit=rows,
            end_us=end_us,
        )

    def agg_trades(
        self,
        exchange_symbol: str,
        *,
        from_id: int | None = None,
        start_us: int | None = None,
        limit: int = MAX_TRADES,
    ) -> list[AggTradeRow]:
        """Return aggregate trades, oldest first; void ones are included so that paging can
        continue.

        Args:
            from_id: first id.
            start_us: first time, in place of an id. With neither, the newest trades are
                returned.

        Raises:
            PermanentError: futures serve only trades of the last 48 hours.
        """
        parameters: dict[str, Any] = {"symbol": exchange_symbol, "limit": limit}
        if from_id is not None:
            parameters["fromId"] = from_id
        if start_us is not None:
            parameters["startTime"] = -(-start_us // 1000)
        return self.get("aggTrades", parameters, AGG_TRADES_WEIGHT[self.market], _AGG_TRADES)

    def trades(
        self, exchange_symbol: str, *, from_id: int, limit: int = MAX_TRADES
    ) -> list[TradeRow]:
        """Return single spot trades from an id on. Futures require an API key for this method."""
        parameters = {"symbol": exchange_symbol, "fromId": from_id, "limit": limit}
        return self.get("historicalTrades", parameters, HISTORICAL_TRADES_WEIGHT, _TRADES)

    def depth(self, exchange_symbol: str) -> BookSnapshot:
        """Return the best ``DEPTH_LEVELS`` levels of each side of an order book.

        Raises:
            PermanentError: unknown symbol, or a number that no exchange sends.
        """
        parameters = {"symbol": exchange_symbol, "limit": DEPTH_LEVELS}
        answer = self.get("depth", parameters, DEPTH_WEIGHT[self.market], DEPTH_ANSWER)
        return book_snapshot_of(answer, symbol=exchange_symbol, limit=DEPTH_LEVELS)

    # --- inside

    def _klines(
        self,
        exchange_symbol: str,
        interval: str,
        start_us: int | None,
        until_us: int | None,
        rows: int,
    ) -> list[KlineRow]:
        parameters: dict[str, Any] = {
            "symbol": exchange_symbol,
            "interval": interval,
            "limit": rows,
        }
        if start_us is not None:
            parameters["startTime"] = -(-start_us // 1000)
        if until_us is not None:
            parameters["endTime"] = -(-until_us // 1000) - 1
        return self.get("klines", parameters, klines_weight(self.market, rows), KLINE_ROWS)

    def _oldest_klines(
        self,
        exchange_symbol: str,
        bars: Timeframe,
        start_us: int,
        until_us: int | None,
        rows: int,
    ) -> list[KlineRow]:
        now_us = self._server_time_us
        return oldest_rows(
            partial(self._klines, exchange_symbol),
            bars,
            start_us,
            now_us if until_us is None else min(until_us, now_us),
            rows,
        )

    def _server_time_for(self, end_us: int | None) -> int:
        is_old = time.monotonic() >= self._server_time_until_s
        if is_old or end_us is None or end_us > final_until(self._server_time_us):
            return self.server_time_us()
        return self._server_time_us

    def get(
        self,
        method: str,
        parameters: Mapping[str, Any],
        weight: int,
        decoder: msgspec.json.Decoder[Answer],
        *,
        prefix: str = "",
        pool: WeightBudget | None = None,
    ) -> Answer:
        """GET a method within the weight budget, with retries on transient errors.

        Args:
            prefix: of the path; empty for the market's.
            pool: budget of a number of requests that the method shares with others, besides the
                weight.

        Raises:
            PermanentError: the exchange refuses the request, or the answer has another structure.
            RateLimitedError: 429 or 418, or no budget for long.
            TransientError: no answer after all attempts.
        """

        def once() -> Answer:
            if pool is not None:
                pool.take(1)
            self._budget.take(weight)
            try:
                return self._once(f"{prefix or self._prefix}/{method}", parameters, decoder)
            except RateLimitedError as error:
                if pool is not None:
                    pool.report(None, retry_after_s=error.retry_after_s)
                raise

        return retried(
            once,
            backoff=BACKOFF,
            attempts=self._attempts,
            unless=(RateLimitedError,),
            on_retry=partial(log.info, "rest_retried", host=self._host, method=method),
            sleep=self._sleep,
        )

    def _once(
        self,
        path: str,
        parameters: Mapping[str, Any],
        decoder: msgspec.json.Decoder[Answer],
    ) -> Answer:
        symbol = str(parameters.get("symbol", ""))
        request = f"GET {path} {symbol}".rstrip()
        try:
            # Not answer.content: an answer of httpx refers to itself, and would hold a megabyte of
            # listings until the garbage collector runs, which is rare.
            with self._http.stream("GET", path, params=dict(parameters)) as answer:
                content = b"".join(answer.iter_bytes())
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = str(error) or type(error).__name__
            raise TransientError(f"no answer from {self._host} to {request}: {reason}") from error
        refusal = error_of(
            answer.status_code,
            answer.headers,
            content,
            host=self._host,
            request=request,
            symbol=symbol,
        )
        self._budget.report(
            used_weight(answer.headers),
            retry_after_s=refusal.retry_after_s if isinstance(refusal, RateLimitedError) else None,
        )
        if refusal is not None:
            raise refusal
        try:
            return decoder.decode(content)
        except msgspec.ValidationError as problem:
            raise PermanentError(
                f"{self._host} answered {request} with an undocumented structure: {problem}"
            ) from problem
        except UNREADABLE as problem:
            # A truncated answer, or a proxy's page instead of JSON.
            raise TransientError(
                f"{self._host} answered {request} with something other than JSON: {problem}"
            ) from problem
