"""Addresses of a market's services."""

from __future__ import annotations

from dataclasses import dataclass

from include.domain.instruments import Market

_REST_PREFIXES = {Market.SPOT: "/api/v3", Market.UM: "/fapi/v1", Market.CM: "/dapi/v1"}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Base URLs and path rules of one market.

    Attributes:
        ws_url: base of the stream service, without a path.
        rest_url: base of the REST service, without a path.
    """

    market: Market
    ws_url: str
    rest_url: str

    @property
    def rest_prefix(self) -> str:
        """Path prefix of the REST methods."""
        return _REST_PREFIXES[self.market]

    def stream_url_for(self, trade_stream: str) -> str:
        """Return the combined-stream URL for trades and klines.

        USD-M streams are routed by path since 2026-03: on any other path they are acknowledged and
        never sent. COIN-M streams are not routed. Spot timestamps are requested in microseconds.

        Args:
            trade_stream: ``aggTrade``, or ``trade`` (undocumented on USD-M, on another path).
        """
        if self.market is Market.UM:
            route = "public" if trade_stream == "trade" else "market"
            return f"{self.ws_url}/{route}/stream"
        if self.market is Market.CM:
            return f"{self.ws_url}/stream"
        return f"{self.ws_url}/stream?timeUnit=MICROSECOND"
