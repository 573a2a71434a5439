"""The exchange as the settings describe it, within the weight that all processes share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from include.binance.endpoints import Endpoints
from include.binance.rest import BinanceRest
from include.binance.weights import MOST_WAIT_S, WEIGHT_LIMITS, LocalBudget, refuse_long_wait
from include.config import Settings
from include.domain.instruments import Market
from include.errors import TransientError
from include.store.merging import Connection
from include.store.pools import connect
from include.store.weight import report_weight, take_weight

log = structlog.get_logger(__name__)

STREAMER_SHARE = 0.25
"""Part of the limit that one process may use by itself while PostgreSQL is away."""


def endpoints_of(settings: Settings, market: Market) -> Endpoints:
    """Where a market's services live."""
    if market is Market.UM:
        return Endpoints(market, settings.binance_um_ws_url, settings.binance_um_rest_url)
    return Endpoints(market, settings.binance_ws_url, settings.binance_rest_url)


class SharedBudget:
    """The weight budget in ``ops.take_weight``, shared by streamer, tasks and commands.

    While the database is away, a quarter of the exchange's limit is spent from memory: less
    than the exchange allows, whatever the others do.

    Args:
        database_url: of any role; opened when first needed.
        host: whose weight it is.
        limit: weight a minute that all processes together may use.
    """

    def __init__(
        self, database_url: str, host: str, limit: int, *, most_wait_s: float = MOST_WAIT_S
    ) -> None:
        self._url = database_url
        self._host = host
        self._limit = limit
        self._most_wait_s = most_wait_s
        self._alone = LocalBudget(int(limit * STREAMER_SHARE), most_wait_s=most_wait_s)
        self._connection: Connection | None = None

    def take(self, weight: int) -> None:
        """Wait for the weight; see ``WeightBudget``."""
        waited_s = 0.0
        while True:
            try:
                grant = take_weight(self._connected(), self._host, weight, weight_limit=self._limit)
            except TransientError as error:
                log.warning("weight_from_memory", host=self._host, error=str(error))
                self._disconnect()
                self._alone.take(weight)
                return
            if grant.granted:
                return
            wait_s = max(grant.wait_ms, 50) / 1000
            waited_s += wait_s
            refuse_long_wait(waited_s, self._most_wait_s, wait_s)
            time.sleep(wait_s)

    def report(self, used: int | None, *, retry_after_s: float | None = None) -> None:
        """Pass on what an answer's headers say; see ``WeightBudget``."""
        if used is None and retry_after_s is None:
            return
        self._alone.report(None, retry_after_s=retry_after_s)
        retry_ms = None if retry_after_s is None else int(retry_after_s * 1000)
        try:
            report_weight(self._connected(), self._host, used=used or 0, retry_after_ms=retry_ms)
        except TransientError as error:
            log.warning("weight_not_shared", host=self._host, error=str(error))
            self._disconnect()

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url, application_name="candelabra-weight")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()


@contextmanager
def open_rest(
    settings: Settings, market: Market, *, database_url: str = ""
) -> Iterator[BinanceRest]:
    """A REST client of the market for the time of a ``with`` block.

    Args:
        database_url: whose budget is shared; without one, the process has its own.
    """
    endpoints = endpoints_of(settings, market)
    limit = int(WEIGHT_LIMITS[market] * settings.rest_weight_share)
    budget: SharedBudget | LocalBudget = (
        SharedBudget(database_url, endpoints.rest_url, limit)
        if database_url
        else LocalBudget(limit)
    )
    try:
        with BinanceRest(
            endpoints,
            budget=budget,
            timeout_s=settings.http_timeout_s,
            proxy=settings.https_proxy,
        ) as rest:
            yield rest
    finally:
        if isinstance(budget, SharedBudget):
            budget.close()
