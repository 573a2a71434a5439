"""Open the exchange's REST and dump services from the settings, within the shared weight budget."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import structlog

from include.binance.endpoints import Endpoints
from include.binance.files.dumps import DumpSite
from include.binance.rest.client import BinanceRest
from include.binance.rest.series import SeriesRest
from include.binance.rest.weights import (
    FUNDING_REQUESTS,
    MAX_WAIT_S,
    POOL_MINUTES,
    STATISTICS_REQUESTS,
    WEIGHT_LIMITS,
    LocalBudget,
    WeightBudget,
    refuse_long_wait,
)
from include.config import Settings
from include.domain.instruments import Market
from include.errors import TransientError
from include.store.candles.merging import Connection
from include.store.ledgers.files import acquire_weight, report_weight
from include.store.postgres.pools import connect

log = structlog.get_logger(__name__)

APPLICATION_NAME = "candelabra-jobs"
RECONNECT_AFTER_S = 5.0
MAX_PROCESSES = 8
"""Expected concurrent REST clients: the streamer, the tasks of the pool and some commands."""

_JITTER_S = 0.25


def endpoints_of(settings: Settings, market: Market) -> Endpoints:
    """Return the addresses of a market's services."""
    if market is Market.UM:
        return Endpoints(market, settings.binance_um_ws_url, settings.binance_um_rest_url)
    if market is Market.CM:
        return Endpoints(market, settings.binance_cm_ws_url, settings.binance_cm_rest_url)
    return Endpoints(market, settings.binance_ws_url, settings.binance_rest_url)


def open_rest(
    settings: Settings, market: Market, *, budget: WeightBudget | None = None
) -> BinanceRest:
    """Open a REST client; use it in ``with``.

    Args:
        budget: request weight the client may use; None for this process's share of the weight
            outside the shared budget.
    """
    return BinanceRest(
        endpoints_of(settings, market),
        budget=budget or _reserve(settings, market),
        timeout_s=settings.http_timeout_s,
        proxy=settings.proxy_for(endpoints_of(settings, market).rest_url),
    )


@contextmanager
def open_shared_rest(
    settings: Settings, market: Market, database_url: str
) -> Iterator[BinanceRest]:
    """Open a REST client whose request weight is shared with all processes through the database."""
    budget = SharedBudget(
        lambda: connect(database_url, application_name=f"{APPLICATION_NAME}-budget"),
        host=urlsplit(endpoints_of(settings, market).rest_url).netloc,
        limit=round(WEIGHT_LIMITS[market] * settings.rest_weight_share),
        reserve=_reserve(settings, market),
    )
    try:
        with open_rest(settings, market, budget=budget) as rest:
            yield rest
    finally:
        budget.close()


@contextmanager
def open_series_rest(settings: Settings, market: Market, database_url: str) -> Iterator[SeriesRest]:
    """Open a client of the derivative series of a futures market; processes share its limits."""

    def pool(name: str, requests: int) -> SharedBudget:
        # By minute, so that no five minutes have more than the limit.
        limit = max(1, round(requests / POOL_MINUTES * settings.rest_weight_share))
        return SharedBudget(
            lambda: connect(database_url, application_name=f"{APPLICATION_NAME}-budget"),
            host=f"{urlsplit(endpoints_of(settings, market).rest_url).netloc} {name}",
            limit=limit,
            reserve=LocalBudget(limit, own_limit=max(1, limit // MAX_PROCESSES)),
        )

    with (
        open_shared_rest(settings, market, database_url) as rest,
        closing(pool("fundingRate", FUNDING_REQUESTS)) as funding,
        closing(pool("futures/data", STATISTICS_REQUESTS)) as statistics,
    ):
        yield SeriesRest(rest, funding_pool=funding, statistics_pool=statistics)


def open_dump_site(settings: Settings) -> DumpSite:
    """Open a client of the dump site; use it in ``with``."""
    return DumpSite(
        settings.binance_dump_url,
        settings.binance_dump_list_url,
        proxy=settings.proxy_for(settings.binance_dump_url),
    )


class SharedBudget:
    """Request weight shared by all processes through ``ops.acquire_weight``.

    While the database is unreachable, ``reserve`` is used instead.

    Args:
        connect: opens an autocommit connection.
        host: name of the budget: the service's address.
        limit: weight per minute for all processes together.
        reserve: budget of this process alone.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        host: str,
        limit: int,
        reserve: WeightBudget,
        max_wait_s: float = MAX_WAIT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect = connect
        self._host = host
        self._limit = limit
        self._reserve = reserve
        self._max_wait_s = max_wait_s
        self._sleep = sleep
        self._connection: Connection | None = None
        self._away_until_s = 0.0
        self._granted = threading.local()

    def take(self, weight: int) -> None:
        """Wait until this weight is available; see ``WeightBudget``."""
        waited_s = 0.0
        while True:
            connection = self._open()
            if connection is None:
                self._reserve.take(weight)
                self._granted.window = None
                return
            try:
                grant = acquire_weight(connection, self._host, weight, weight_limit=self._limit)
            except TransientError as error:
                self._disconnect(error)
                continue
            if grant.granted:
                self._granted.window = grant.window
                return
            wait_s = grant.wait_ms / 1000 + random.uniform(0, _JITTER_S)  # noqa: S311 - jitter
            waited_s += wait_s
            refuse_long_wait(waited_s, self._max_wait_s, wait_s)
            log.info("weight_awaited", host=self._host, used=grant.used, wait_s=round(wait_s, 1))
            self._sleep(wait_s)

    def report(self, used: int | None, *, retry_after_s: float | None = None) -> None:
        """Report the weight in the exchange's headers to all processes."""
        self._reserve.report(used, retry_after_s=retry_after_s)
        connection = self._open()
        if connection is None or (used is None and retry_after_s is None):
            return
        retry_after_ms = None if retry_after_s is None else round(retry_after_s * 1000)
        try:
            report_weight(
                connection,
                self._host,
                used=used or 0,
                retry_after_ms=retry_after_ms,
                window=getattr(self._granted, "window", None),
            )
        except TransientError as error:
            self._disconnect(error)

    def close(self) -> None:
        """Close the database connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> Connection | None:
        if self._connection is None and time.monotonic() >= self._away_until_s:
            try:
                self._connection = self._connect()
            except TransientError as error:
                self._disconnect(error)
        return self._connection

    def _disconnect(self, error: TransientError) -> None:
        self.close()
        self._away_until_s = time.monotonic() + RECONNECT_AFTER_S
        log.warning("weight_budget_away", host=self._host, error=str(error))


def _reserve(settings: Settings, market: Market) -> LocalBudget:
    """Return this process's share of the weight outside the shared budget.

    While the database is away, the exchange's headers are the only information about other
    processes. If the headers are missing too, all processes together stay within the unshared
    weight.
    """
    unshared = max(100, round(WEIGHT_LIMITS[market] * (1 - settings.rest_weight_share)))
    return LocalBudget(unshared, own_limit=unshared // MAX_PROCESSES)
