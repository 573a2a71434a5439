"""Streams through the libraries: combined sockets, subscriptions on the run, rotations."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from simulator.server import ExchangeThread
from tests.clients.exchanges import MINUTE_MS, config, true_agg_trades, true_klines

Client = Callable[..., Any]

SPEED = 60
LIFE_S = 90
"""Simulated; one and a half real seconds."""


def comparable(rows: list[Any], true: list[Any]) -> list[Any]:
    """The columns of the oracle's klines that a library passes on, as it writes numbers."""
    width = len(rows[0])
    assert width in (6, 11)
    if isinstance(rows[0][1], float):
        return [[row[0], *map(float, row[1:width])] for row in true]
    return [row[:width] for row in true]


def assert_trades_are_true(
    exchange: ExchangeThread, market: str, symbol: str, rows: list[Any]
) -> None:
    true = true_agg_trades(exchange, market, symbol, rows[0][0], rows[-1][0])
    assert rows == [true[row[0]] for row in rows]


def test_combined_streams_equal_rest_and_the_oracle(library: str, client: Client) -> None:
    with ExchangeThread(config(speed=SPEED)) as exchange:
        seen = client(exchange, "streams", closed=3)
        for market, found in seen.items():
            rows = found["klines"]
            assert [row[0] for row in rows] == [rows[0][0] + n * MINUTE_MS for n in range(3)]
            true = true_klines(exchange, market, "BTCUSDT", rows[0][0], rows[-1][0])
            assert rows == comparable(rows, true)
            for symbol, trades in found["trades"].items():
                ids = [row[0] for row in trades]
                assert len(ids) >= 30
                assert ids == list(range(ids[0], ids[0] + len(ids)))
                assert_trades_are_true(exchange, market, symbol.upper(), trades)
            # python-binance has no subscriptions on the run
            assert found.get("silent") is (None if library == "python_binance" else True)
    if library == "binance_sdk":
        kept = ["btcusdt@aggTrade", "btcusdt@kline_1m"]
        for found in seen.values():
            assert found["listed"] == [[*kept, "ethusdt@aggTrade"], kept]


NOTICES = {
    "python_binance": "BinanceWebsocketClosed",
    "ccxt": "NetworkError",
    "binance_sdk": "close",
}
"""What a library reports to its user about a connection's end."""

OTHER_NOTICES = {
    "python_binance": {"ConnectionClosedError", "ConnectionClosedOK"},  # the current reader
    "ccxt": {"replaced"},  # no reader, if the end comes between two calls
    "binance_sdk": {"reconnect"},  # after its own rotation
}


def test_library_continues_after_a_disconnect_and_a_shutdown(library: str, client: Client) -> None:
    with ExchangeThread(config(speed=SPEED)) as exchange:
        seen = client(exchange, "rotations", ends=["cut", "shutdown"])
        for market, found in seen.items():
            assert_ends_are_reported(library, found["notices"])
            assert_trades_continue(exchange, market, found)


def test_library_continues_when_a_connection_expires(library: str, client: Client) -> None:
    with ExchangeThread(config(speed=SPEED, connection_life_s=LIFE_S)) as exchange:
        seen = client(exchange, "rotations", ends=["life", "life"])
        for market, found in seen.items():
            assert_ends_are_reported(library, found["notices"])
            assert_trades_continue(exchange, market, found)


def assert_ends_are_reported(library: str, notices: list[str]) -> None:
    assert set(notices) <= {NOTICES[library]} | OTHER_NOTICES[library]
    assert len([one for one in notices if one in (NOTICES[library], "replaced")]) >= 2


def assert_trades_continue(exchange: ExchangeThread, market: str, found: dict[str, Any]) -> None:
    """After each end, trades that are the exchange's and newer than all before."""
    trades = found["trades"]
    assert all(before[0] < after[0] for before, after in pairwise(trades))
    assert_trades_are_true(exchange, market, "BTCUSDT", trades)
    phases = [*found["starts"], len(trades)]
    assert len(phases) >= 3
    assert all(end - start >= 30 for start, end in pairwise(phases))
