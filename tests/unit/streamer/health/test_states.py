"""What is known of each symbol's streams."""

from __future__ import annotations

from decimal import Decimal

import pytest

from include.domain.candles import CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US
from streamer.health.states import SymbolState, SymbolStates

T0 = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


def candidate(minute: int, status: Status = Status.VERIFIED) -> CandleCandidate:
    candle = silent_candle("BTCUSDT", T0 + minute * MINUTE_US, Decimal(7))
    source = Source.KLINE if status is Status.VERIFIED else Source.STREAM
    return CandleCandidate(candle, status, source, T0 if status is Status.VERIFIED else None)


def test_symbol_is_connecting_until_the_exchange_confirms_a_minute() -> None:
    states = SymbolStates()
    assert states.of("BTCUSDT") is SymbolState.CONNECTING
    states.candle_closed(candidate(0, Status.UNCONFIRMED))
    assert states.of("BTCUSDT") is SymbolState.CONNECTING
    states.candle_closed(candidate(1))
    assert states.of("BTCUSDT") is SymbolState.LIVE


@pytest.mark.parametrize("state", [SymbolState.DEAD, SymbolState.SILENT])
def test_confirmed_minute_ends_silent_and_dead_states(state: SymbolState) -> None:
    states = SymbolStates()
    assert states.enter("BTCUSDT", state)
    assert not states.enter("BTCUSDT", state)
    states.candle_closed(candidate(0, Status.PARTIAL))
    assert states.of("BTCUSDT") is state
    states.candle_closed(candidate(1))
    assert states.of("BTCUSDT") is SymbolState.LIVE


def test_late_minute_does_not_end_a_halt() -> None:
    states = SymbolStates()
    states.enter("BTCUSDT", SymbolState.HALTED)
    states.candle_closed(candidate(0))
    assert states.of("BTCUSDT") is SymbolState.HALTED


def test_counts_include_states_without_symbols() -> None:
    states = SymbolStates()
    states.candle_closed(candidate(0))
    states.enter("ETHUSDT", SymbolState.DEAD)
    counts = states.counts(["BTCUSDT", "ETHUSDT", "NEWUSDT"])
    assert counts == {"connecting": 1, "live": 1, "silent": 0, "halted": 0, "dead": 1}


def test_symbol_is_behind_three_minutes_after_its_last_candle() -> None:
    states = SymbolStates()
    states.candle_closed(candidate(5))
    states.candle_closed(candidate(2))  # revised late
    until = T0 + 6 * MINUTE_US
    assert not states.is_behind("BTCUSDT", until + 3 * MINUTE_US, T0)
    assert states.is_behind("BTCUSDT", until + 3 * MINUTE_US + 1, T0)


def test_minutes_before_the_connection_delivered_do_not_count() -> None:
    states = SymbolStates()
    states.candle_closed(candidate(5))
    now_us = T0 + 60 * MINUTE_US
    assert states.is_behind("BTCUSDT", now_us, T0)
    assert not states.is_behind("BTCUSDT", now_us, now_us - MINUTE_US)


def test_later_symbol_has_its_own_grace_period() -> None:
    states = SymbolStates()
    joined_us = T0 + 60 * MINUTE_US
    assert not states.is_behind("NEWUSDT", joined_us, T0)
    assert not states.is_behind("NEWUSDT", joined_us + 4 * MINUTE_US, T0)
    assert states.is_behind("NEWUSDT", joined_us + 4 * MINUTE_US + 1, T0)


@pytest.mark.parametrize("state", [SymbolState.SILENT, SymbolState.HALTED])
def test_symbol_without_expected_minutes_is_never_behind(state: SymbolState) -> None:
    states = SymbolStates()
    states.candle_closed(candidate(0))
    states.enter("BTCUSDT", state)
    assert not states.is_behind("BTCUSDT", T0 + 60 * MINUTE_US, T0)


def test_removed_symbol_is_forgotten() -> None:
    states = SymbolStates()
    states.candle_closed(candidate(0))
    states.remove("BTCUSDT")
    states.remove("BTCUSDT")
    assert states.of("BTCUSDT") is SymbolState.CONNECTING
