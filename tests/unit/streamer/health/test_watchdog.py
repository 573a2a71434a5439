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


class Yard:
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
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    return Yard(monkeypatch)


def test_a_dead_stream_is_subscribed_again_and_then_its_connection_is_rotated(
    yard: Yard,
) -> None:
    yard.revive()
    assert (yard.feed.resubscribed, yard.feed.rotated) == (["A"], [])
    assert yard.states.of("A") is SymbolState.DEAD
    yard.revive()
    assert (yard.feed.resubscribed, yard.feed.rotated) == (
        ["A"],
        [f"streams of A stay dead: {WHY}"],
    )


def test_a_revived_stream_is_logged_and_subscribed_again_next_time(yard: Yard) -> None:
    yard.revive()
    yard.close(status=Status.UNCONFIRMED)
    assert yard.states.of("A") is SymbolState.DEAD  # the exchange's word is what was missed
    yard.close()
    assert yard.states.of("A") is SymbolState.LIVE
    assert yard.events == ["stream_dead", "stream_revived"]
    yard.revive()
    assert (yard.feed.resubscribed, yard.feed.rotated) == (["A", "A"], [])


def test_klines_alone_do_not_revive_a_symbol(yard: Yard) -> None:
    yard.revive()
    yard.feed.lacking.add("A")
    yard.close()
    assert yard.states.of("A") is SymbolState.DEAD
    yard.revive()
    assert len(yard.feed.rotated) == 1
    yard.feed.lacking.clear()
    yard.close()
    assert yard.states.of("A") is SymbolState.LIVE
    assert yard.events == ["stream_dead", "stream_revived"]


def test_dead_streams_of_a_connection_share_one_rotation_per_interval(yard: Yard) -> None:
    for symbol in "ABC":
        yard.revive(symbol)
    for symbol in "ABC":
        yard.revive(symbol)
    assert len(yard.feed.rotated) == 1
    assert yard.feed.resubscribed == [*"ABC", *"BC"]  # the others are subscribed again meanwhile
    yard.now_s += ROTATE_INTERVAL_S
    yard.revive("B")
    assert len(yard.feed.rotated) == 2


def test_a_halted_symbol_is_not_revived(yard: Yard) -> None:
    yard.dog.halted("A", "HALT")
    yard.revive()
    yard.dog.symbol_silent("A", T0)
    yard.close()
    assert (yard.feed.resubscribed, yard.feed.rotated) == ([], [])
    assert yard.states.of("A") is SymbolState.HALTED
    yard.dog.resumed("A")
    assert yard.states.of("A") is SymbolState.LIVE
    assert yard.events == ["symbol_halted", "symbol_silent", "symbol_resumed"]


def test_silence_is_a_separate_state(yard: Yard) -> None:
    yard.revive()
    yard.dog.symbol_silent("A", T0)
    yard.revive()
    assert yard.states.of("A") is SymbolState.SILENT
    assert yard.dog.is_silent("A")
    yard.dog.silence_ended("A", T0, T0 + 1)
    assert yard.states.of("A") is SymbolState.LIVE
    assert not yard.dog.is_silent("A")
    assert yard.events == ["stream_dead", "symbol_silent", "symbol_silence_ended"]


def test_a_verified_minute_after_a_disconnect_ends_a_silence(yard: Yard) -> None:
    yard.dog.symbol_silent("A", T0)
    yard.close(status=Status.UNCONFIRMED)
    assert yard.dog.is_silent("A")
    yard.close()
    assert not yard.dog.is_silent("A")
    yard.revive()
    assert yard.states.of("A") is SymbolState.DEAD


def test_a_resumed_symbol_is_no_longer_silent(yard: Yard) -> None:
    yard.dog.symbol_silent("A", T0)
    yard.dog.halted("A", "HALT")
    yard.dog.resumed("A")
    assert not yard.dog.is_silent("A")


def test_removed_symbols_are_forgotten(yard: Yard) -> None:
    yard.revive()
    yard.dog.symbol_silent("A", T0)
    yard.dog.removed("A", is_wanted=True)
    assert not yard.dog.is_silent("A")
    assert yard.states.of("A") is SymbolState.CONNECTING
    yard.revive()
    assert yard.events[-2:] == ["symbol_gone", "stream_dead"]
    assert yard.feed.resubscribed == ["A", "A"]  # if it returns, it is first subscribed again


def test_an_unwanted_symbol_is_removed_without_a_warning(yard: Yard) -> None:
    yard.dog.removed("A", is_wanted=False)
    assert [(call.args[0], call.method_name) for call in yard.log.calls] == [
        ("symbol_removed", "info")
    ]
