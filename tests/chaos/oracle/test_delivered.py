"""Which minutes no fault has touched, and which wrong klines cannot be detected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from include.domain.timeframes import MINUTE_US
from simulator.faults.plan import parse_entry
from simulator.server import ExchangeThread
from tests.chaos.oracle import delivered as module
from tests.chaos.oracle.delivered import Delivered

MINUTE = 1_000 * MINUTE_US
LAST_TRADE_US = MINUTE_US // 2
"""Before each minute."""
TRADES, KLINES = "btcusdt@aggTrade", "btcusdt@kline_1m"


class Exchange:
    """An exchange with a clock that is set, and one hub for each market."""

    def __init__(self) -> None:
        self.now_us = 0
        self.clock = SimpleNamespace(now_us=lambda: self.now_us)
        self.frame_faults = SimpleNamespace(on_hit=None)
        self.stream_servers = {
            name: SimpleNamespace(
                withheld_us=[],
                hub=SimpleNamespace(subscribe=lambda *_: None, unsubscribe=lambda *_: None),
            )
            for name in ("spot", "um")
        }

    def call(self, function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    def subscribe(self, at_us: int, *streams: str, listener: object = "one") -> None:
        self.now_us = at_us
        self.stream_servers["spot"].hub.subscribe(listener, streams)

    def unsubscribe(self, at_us: int, *streams: str, listener: object = "one") -> None:
        self.now_us = at_us
        self.stream_servers["spot"].hub.unsubscribe(listener, streams)


@pytest.fixture(autouse=True)
def _trades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "trades_of", lambda *arguments: {(arguments[-1] - LAST_TRADE_US, 7): ()}
    )


def watched() -> tuple[Exchange, Delivered]:
    exchange = Exchange()
    return exchange, Delivered(cast(ExchangeThread, exchange))


def hit(delivered: Delivered, stream: str, due_us: int, market: str = "spot", **fault: Any) -> None:
    delivered.note_hit(parse_entry({"id": "one", **fault}), market, stream, due_us)


def test_minute_is_whole_only_with_trades_and_klines_around_it_on_one_connection() -> None:
    exchange, delivered = watched()
    exchange.subscribe(MINUTE - 5 * MINUTE_US, TRADES)
    assert not delivered.is_whole("BTCUSDT", MINUTE)
    exchange.subscribe(MINUTE - 5 * MINUTE_US, KLINES)
    assert delivered.is_whole("BTCUSDT", MINUTE)
    assert not delivered.is_whole("BTCUSDT", MINUTE - 5 * MINUTE_US)
    exchange.unsubscribe(MINUTE + 5 * MINUTE_US, TRADES, KLINES)
    assert delivered.is_whole("BTCUSDT", MINUTE)
    assert not delivered.is_whole("BTCUSDT", MINUTE + 4 * MINUTE_US)


def test_lost_frames_stalls_and_strikes_make_minutes_incomplete() -> None:
    exchange, delivered = watched()
    exchange.subscribe(0, TRADES, KLINES)
    hit(delivered, TRADES, MINUTE, kind="duplicate")
    assert delivered.is_whole("BTCUSDT", MINUTE)
    hit(delivered, TRADES, MINUTE, kind="drop")
    assert not delivered.is_whole("BTCUSDT", MINUTE)
    assert delivered.is_whole("BTCUSDT", MINUTE + 9 * MINUTE_US)
    exchange.stream_servers["spot"].withheld_us.append((MINUTE + 9 * MINUTE_US, MINUTE * 2))
    assert not delivered.is_whole("BTCUSDT", MINUTE + 9 * MINUTE_US)
    assert delivered.is_whole("BTCUSDT", MINUTE + 5 * MINUTE_US)
    delivered.disturbed_us.append((MINUTE + 5 * MINUTE_US, MINUTE + 5 * MINUTE_US + 1))
    assert not delivered.is_whole("BTCUSDT", MINUTE + 5 * MINUTE_US)


def test_wrong_kline_of_a_whole_spot_minute_is_detectable() -> None:
    exchange, delivered = watched()
    exchange.subscribe(0, TRADES, KLINES)
    closed_us = MINUTE + MINUTE_US + 3
    hit(delivered, KLINES, MINUTE + 30_000_000, kind="wrong_kline", form="close")
    assert delivered.wrong_kline("BTCUSDT", MINUTE) == set()
    hit(delivered, KLINES, closed_us, kind="wrong_kline", form="volume")
    assert delivered.wrong_kline("BTCUSDT", MINUTE) == {"volume"}
    assert delivered.undetectable("BTCUSDT", MINUTE) == frozenset()
    hit(delivered, TRADES, MINUTE + 7, kind="drop")
    assert delivered.undetectable("BTCUSDT", MINUTE) == {"volume", "quote_volume"}
    hit(delivered, KLINES, closed_us, "um", kind="wrong_kline", form="trades")
    assert delivered.undetectable("BTCUSDT.P", MINUTE) == {"trade_count"}
