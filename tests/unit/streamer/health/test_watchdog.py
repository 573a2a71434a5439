"""What follows where streams do not deliver; feeds are played here."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from include.domain.candles import Candle, CandleCandidate, Source, Status
from streamer.health import watchdog as module
from streamer.health.states import SymbolState, SymbolStates
from streamer.health.watchdog import ROTATE_INTERVAL_S, Watchdog

T0 = 1_700_000_040_000_000
WHY = "no closed kline in time"


class Feed:
    """A feed that is its own connection, and records calls."""

    def __init__(self) -> None:
        self.name = "spot-1"
        self.resubscribed: list[str] = []
        self.rotated: list[str] = []
        self.lacking: set[str] = set()

    @property
    def connection(self) -> Feed:
        return self

    def lacks_trades(self, symbol: str) -> bool:
        return symbol in self.lacking

    def resubscribe(self, exchange_symbol: str) -> None:
        self.resubscribed.append(exchange_symbol)

    def rotate(self, reason: str) -> None:
        self.rotated.append(reason)


class Harness:
    """A watchdog, its feed, clock and log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = CapturingLogger()
        monkeypatch.setattr(module, "log", self.log)
        self.feed, self.states, self.now_s = Feed(), SymbolStates(), 1_000.0
        feed: Any = self.feed
        self.dog = Watchdog(self.states, lambda _: feed, clock_s=lambda: self.now_s)

    def revive(self, symbol: str = "A") -> None:
        self.dog.revive(symbol, symbol, WHY)

    def close(self, symbol: str = "A", status: Status = Status.VERIFIED) -> None:
        one = Decimal(1)
        candle = Candle(symbol, T0, one, one, one, one, one, one, 1, one, one, 1, 1)
        is_kline = status is Status.VERIFIED
        source = Source.KLINE if is_kline else Source.STREAM
        self.dog.candle_closed(CandleCandidate(candle, status, source, T0 if is_kline else None))

    @property
    def events(self) -> list[str]:
        return [call.args[0] for call in self.log.calls]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(monkeypatch)


def test_dead_stream_is_subscribed_again_and_then_its_connection_is_rotated(
    harness: Harness,
) -> None:
    harness.revive()
    assert (harness.feed.resubscribed, harness.feed.rotated) == (["A"], [])
    assert harness.states.of("A") is SymbolState.DEAD
    harness.revive()
    assert (harness.feed.resubscribed, harness.feed.rotated) == (
        ["A"],
        [f"streams of A stay dead: {WHY}"],
    )


def test_revived_stream_is_logged_and_subscribed_again_next_time(harness: Harness) -> None:
    harness.revive()
    harness.close(status=Status.UNCONFIRMED)
    assert harness.states.of("A") is SymbolState.DEAD  # the exchange's word is what was missed
    harness.close()
    assert harness.states.of("A") is SymbolState.LIVE
    assert harness.events == ["stream_dead", "stream_revived"]
    harness.revive()
    assert (harness.feed.resubscribed, harness.feed.rotated) == (["A", "A"], [])


def test_klines_alone_do_not_revive_a_symbol(harness: Harness) -> None:
    harness.revive()
    harness.feed.lacking.add("A")
    harness.close()
    assert harness.states.of("A") is SymbolState.DEAD
    harness.revive()
    assert len(harness.feed.rotated) == 1
    harness.feed.lacking.clear()
    harness.close()
    assert harness.states.of("A") is SymbolState.LIVE
    assert harness.events == ["stream_dead", "stream_revived"]


def test_dead_streams_of_a_connection_share_one_rotation_per_interval(harness: Harness) -> None:
    for symbol in "ABC":
        harness.revive(symbol)
    for symbol in "ABC":
        harness.revive(symbol)
    assert len(harness.feed.rotated) == 1
    assert harness.feed.resubscribed == [*"ABC", *"BC"]  # the others are subscribed again meanwhile
    harness.now_s += ROTATE_INTERVAL_S
    harness.revive("B")
    assert len(harness.feed.rotated) == 2


def test_halted_symbol_is_not_revived(harness: Harness) -> None:
    harness.dog.halted("A", "HALT")
    harness.revive()
    harness.dog.symbol_silent("A", T0)
    harness.close()
    assert (harness.feed.resubscribed, harness.feed.rotated) == ([], [])
    assert harness.states.of("A") is SymbolState.HALTED
    harness.dog.resumed("A")
    assert harness.states.of("A") is SymbolState.LIVE
    assert harness.events == ["symbol_halted", "symbol_silent", "symbol_resumed"]


def test_silence_is_a_separate_state(harness: Harness) -> None:
    harness.revive()
    harness.dog.symbol_silent("A", T0)
    harness.revive()
    assert harness.states.of("A") is SymbolState.SILENT
    assert harness.dog.is_silent("A")
    harness.dog.silence_ended("A", T0, T0 + 1)
    assert harness.states.of("A") is SymbolState.LIVE
    assert not harness.dog.is_silent("A")
    assert harness.events == ["stream_dead", "symbol_silent", "symbol_silence_ended"]


def test_verified_minute_after_a_disconnect_ends_a_silence(harness: Harness) -> None:
    harness.dog.symbol_silent("A", T0)
    harness.close(status=Status.UNCONFIRMED)
    assert harness.dog.is_silent("A")
    harness.close()
    assert not harness.dog.is_silent("A")
    harness.revive()
    assert harness.states.of("A") is SymbolState.DEAD


def test_resumed_symbol_is_no_longer_silent(harness: Harness) -> None:
    harness.dog.symbol_silent("A", T0)
    harness.dog.halted("A", "HALT")
    harness.dog.resumed("A")
    assert not harness.dog.is_silent("A")


def test_removed_symbols_are_forgotten(harness: Harness) -> None:
    harness.revive()
    harness.dog.symbol_silent("A", T0)
    harness.dog.removed("A", is_wanted=True)
    assert not harness.dog.is_silent("A")
    assert harness.states.of("A") is SymbolState.CONNECTING
    harness.revive()
    assert harness.events[-2:] == ["symbol_gone", "stream_dead"]
    assert harness.feed.resubscribed == ["A", "A"]  # if it returns, it is first subscribed again


def test_unwanted_symbol_is_removed_without_a_warning(harness: Harness) -> None:
    harness.dog.removed("A", is_wanted=False)
    assert [(call.args[0], call.method_name) for call in harness.log.calls] == [
        ("symbol_removed", "info")
    ]
