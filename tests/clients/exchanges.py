"""Simulators for client libraries, and what they should have seen of them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx

from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread

MOMENT = datetime(2025, 1, 4, 12, 0, 0, 300_000, tzinfo=UTC)
NOON_MS = int(MOMENT.timestamp()) * 1_000
MINUTE_MS = 60_000
SYMBOLS: dict[str, tuple[str, ...]] = {
    "spot": ("BTCUSDT", "ETHUSDT", "ETHBTC", "SHIBUSDT", "BIFIUSDT"),
    "um": ("BTCUSDT", "ETHUSDT", "1000PEPEUSDT", "KEEPUSDT"),
}
ROUTES = {"spot": "/api/v3", "um": "/fapi/v1", "cm": "/dapi/v1"}
LIBRARIES = ("python_binance", "ccxt", "binance_sdk")
"""Each has a program of this name under `programs/`."""

AGG_TRADE_KEYS = ("a", "p", "q", "f", "l", "T", "m")
OUT_OF_THE_WAY = 1_000_000


def config(**settings: Any) -> SimulatorConfig:
    """A small exchange at a fixed moment, without a limit of request weight."""
    defaults: dict[str, Any] = {
        "spot_symbols": SYMBOLS["spot"],
        "um_symbols": SYMBOLS["um"],
        "cm_symbols": (),
        "start": datetime(2024, 12, 31, tzinfo=UTC),
        "clock_start": MOMENT,
        "spot_weight_limit": OUT_OF_THE_WAY,
        "um_weight_limit": OUT_OF_THE_WAY,
    }
    return SimulatorConfig(**(defaults | settings))


def contracts_config(**settings: Any) -> SimulatorConfig:
    """Futures alone, with dated contracts and a delivery in their history."""
    defaults: dict[str, Any] = {
        "um_symbols": ("BTCUSDT", "KEEPUSDT", "BTCUSDT_QUARTER"),
        "cm_symbols": ("BTCUSD_PERP", "BTCUSD_QUARTER"),
        "spot_symbols": ("BTCUSDT",),
        "start": datetime(2024, 12, 20, tzinfo=UTC),
        "cm_weight_limit": OUT_OF_THE_WAY,
    }
    return config(**(defaults | settings))


def control_answer(exchange: ExchangeThread, path: str, **query: Any) -> Any:
    """An answer of the exchange."""
    authority = exchange.urls.tls_ca_file
    verify = True if authority is None else ssl.create_default_context(cafile=authority)
    answer = httpx.get(exchange.control_url + path, params=query, timeout=30, verify=verify)
    assert answer.status_code == 200, answer.text
    return answer.json()


def true_klines(
    exchange: ExchangeThread, market: str, symbol: str, start_ms: int, end_ms: int
) -> list[list[Any]]:
    """The simulator's own 1m klines, see `GET /sim/klines`."""
    rows: list[list[Any]] = control_answer(
        exchange, "/sim/klines", market=market, symbol=symbol, interval="1m",
        startTime=start_ms, endTime=end_ms,
    )  # fmt: skip
    return rows


def true_agg_trades(
    exchange: ExchangeThread, market: str, symbol: str, first_id: int, last_id: int
) -> dict[int, list[Any]]:
    """The exchange's aggTrades of these ids, both ends included."""
    found: dict[int, list[Any]] = {}
    while first_id <= last_id:
        query = {"symbol": symbol, "fromId": first_id, "limit": 1_000}
        page = control_answer(exchange, f"{ROUTES[market]}/aggTrades", **query)
        found |= {row["a"]: [row[key] for key in AGG_TRADE_KEYS] for row in page}
        first_id = page[-1]["a"] + 1
    return found


def true_book(
    exchange: ExchangeThread, market: str, symbol: str, update_id: int
) -> list[dict[Decimal, Decimal]]:
    """All bids and all asks at an update id, price to quantity, see `GET /sim/depth`."""
    book = control_answer(exchange, "/sim/depth", market=market, symbol=symbol, updateId=update_id)
    assert book["lastUpdateId"] == update_id
    return [
        {Decimal(price): Decimal(amount) for price, amount in book[side]}
        for side in ("bids", "asks")
    ]
