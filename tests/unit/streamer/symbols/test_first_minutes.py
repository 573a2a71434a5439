"""Where symbols without rows begin; exchange and PostgreSQL are played here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import pytest
from structlog.testing import CapturingLogger

from include.backoff import Backoff
from include.binance.rest.klines import KlinePage
from include.domain.candles import silent_candle
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from include.errors import PermanentError, RefusedAddressError
from streamer.symbols import first_minutes as module
from streamer.symbols.first_minutes import (
    MAX_REQUESTS,
    SEEN_BEFORE_US,
    Beginnings,
    find_begins,
    find_missing_beginnings,
)

NOW_US = 28_333_334 * MINUTE_US + 5_000_000
MINUTE = NOW_US // MINUTE_US * MINUTE_US
LAST_US = MINUTE - 30 * MINUTE_US
"""The end of the table: no streamer ran for half an hour."""


def instrument(symbol: str, status: str = "TRADING") -> Instrument:
    market = Market.UM if symbol.endswith(".P") else Market.SPOT
    tick = Decimal("0.01")
    return Instrument(symbol, market, symbol.removesuffix("USDT"), "USDT", status, tick, tick)


@dataclass
class Played:
    """When each symbol first traded, None for not yet; what is in the ledgers; what was asked."""

    firsts_us: dict[str, int | None] = field(default_factory=dict)
    told_us: dict[str, int] = field(default_factory=dict)
    not_final: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    behind: dict[str, int] = field(default_factory=dict)
    """How many answers come from a lagging server without trades."""
    asked: list[str] = field(default_factory=list)
    opened: list[tuple[str, int, int, str]] = field(default_factory=list)
    """Gaps recorded: symbol, start, end, cause."""

    @contextlib.contextmanager
    def open_rest(self, _settings: object, market: Market, _url: str) -> Iterator[Played]:
        self.market = market
        yield self

    @contextlib.contextmanager
    def connect(self, *_: object, **__: object) -> Iterator[None]:
        yield

    def unknown_since(
        self, _connection: None, symbols: Sequence[str], since_us: int
    ) -> dict[str, int]:
        assert since_us == NOW_US - 1_440 * MINUTE_US
        return {symbol: at_us for symbol, at_us in self.told_us.items() if symbol in symbols}

    def first_minutes(
        self, _connection: None, symbols: Iterable[str], start_us: int
    ) -> dict[str, int]:
        assert start_us == MINUTE - 1_440 * MINUTE_US
        return {symbol: at_us for symbol, at_us in self.told_us.items() if symbol in symbols}

    def open_gap(
        self, _connection: None, *, symbol: str, start_us: int, end_us: int, cause: str,
        detail: dict[str, str],
    ) -> int:  # fmt: skip
        assert "FILL_LOOKBACK_MINUTES" in detail["error"]
        self.opened.append((symbol, start_us, end_us, cause))
        return len(self.opened)

    def klines(self, symbol: str, interval: str, start_us: int, *, limit: int) -> KlinePage:
        assert (interval, start_us) == ("1m", 0)
        assert limit > 1  # a page may lack its last rows
        self.asked.append(symbol)
        if self.asked.count(symbol) <= self.behind.get(symbol, 0):
            return KlinePage([], NOW_US, 0, None)
        if symbol in self.refused:
            raise PermanentError("HTTP 400: Invalid symbol")
        first_us = self.firsts_us[symbol]
        if first_us is None or symbol in self.not_final:
            return KlinePage([], NOW_US, 0 if first_us is None else 1, None)
        return KlinePage([silent_candle(symbol, first_us, Decimal(1))], NOW_US, 0, None)


class Settings:
    fill_lookback_minutes = 1_440

    def url_for(self, _role: str) -> str:
        return "postgresql://here/candles"


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played()
    monkeypatch.setattr(module, "open_shared_rest", played.open_rest)
    monkeypatch.setattr(module, "connect", played.connect)
    monkeypatch.setattr(module, "unknown_since", played.unknown_since)
    monkeypatch.setattr(module, "first_minutes", played.first_minutes)
    monkeypatch.setattr(module, "open_gap", played.open_gap)
    monkeypatch.setattr(module, "BACKOFF", Backoff(first_s=0.0, max_s=0.0))
    return played


def begun(
    *symbols: str, stored_us: dict[str, int] | None = None, status: str = "TRADING"
) -> dict[str, int]:
    settings: Any = Settings()
    known = {"BTCUSDT": LAST_US} if stored_us is None else stored_us
    instruments = [*map(instrument, known), *(instrument(symbol, status) for symbol in symbols)]
    now_us = {one.market: NOW_US for one in instruments}
    begins = find_begins(settings, instruments, known, now_us).begins_us
    return {symbol: begins[symbol] for symbol in symbols if symbol in begins}


def test_symbol_with_rows_continues_after_them_within_the_lookback(played: Played) -> None:
    old_us = MINUTE - 1_441 * MINUTE_US
    known = {"BTCUSDT": LAST_US, "ETHUSDT.P": old_us}
    found = find_begins(
        cast("Any", Settings()),
        [*map(instrument, known)],
        known,
        {Market.SPOT: NOW_US, Market.UM: NOW_US},
    )
    begins = {"BTCUSDT": LAST_US + MINUTE_US, "ETHUSDT.P": MINUTE - 1_440 * MINUTE_US}
    assert found == Beginnings(begins, {}, {})
    assert played.asked == []
    assert played.opened == []


@pytest.mark.parametrize(("minutes", "gaps"), [(1_440, 0), (1_441, 0), (1_442, 1)])
def test_gap_is_recorded_only_for_minutes_before_the_lookback(
    played: Played, minutes: int, gaps: int
) -> None:
    last_us = MINUTE - minutes * MINUTE_US
    settings: Any = Settings()
    one = instrument("BTCUSDT")
    found = find_begins(settings, [one], {"BTCUSDT": last_us}, {Market.SPOT: NOW_US})
    span = (last_us + MINUTE_US, MINUTE - 1_440 * MINUTE_US)
    assert played.opened == [("BTCUSDT", *span, "not streamed")] * gaps
    assert found.left_us == ({"BTCUSDT": [span]} if gaps else {})


def test_symbol_listed_between_two_streamers_begins_with_its_first_minute(
    played: Played,
) -> None:
    played.firsts_us = {"NEWUSDT": LAST_US + 7 * MINUTE_US, "LATEUSDT": None}
    assert begun("NEWUSDT", "LATEUSDT") == {"NEWUSDT": LAST_US + 7 * MINUTE_US}


def test_one_empty_answer_of_a_lagging_server_is_not_enough(played: Played) -> None:
    played.firsts_us = {"NEWUSDT": LAST_US, "OTHERUSDT": LAST_US, "LATEUSDT": None}
    played.behind = {"NEWUSDT": 2}
    assert begun("NEWUSDT", "OTHERUSDT", "LATEUSDT") == {"NEWUSDT": LAST_US, "OTHERUSDT": LAST_US}
    assert sorted(played.asked) == [*["LATEUSDT"] * 3, *["NEWUSDT"] * 3, "OTHERUSDT"]


def test_long_listed_symbol_new_to_the_streamer_begins_now(played: Played) -> None:
    earliest_us = LAST_US - SEEN_BEFORE_US
    played.firsts_us = {"OLDUSDT": earliest_us - MINUTE_US, "LOSTUSDT": earliest_us}
    assert begun("OLDUSDT", "LOSTUSDT") == {"LOSTUSDT": earliest_us}


def test_symbol_listed_long_ago_begins_at_the_lookback(
    played: Played,
) -> None:
    days_us = 3 * 1_440 * MINUTE_US
    played.firsts_us = {"NEWUSDT": NOW_US - days_us + 60 * MINUTE_US, "OLDUSDT": 0}
    assert begun("NEWUSDT", "OLDUSDT", stored_us={"BTCUSDT": MINUTE - days_us}) == {
        "NEWUSDT": MINUTE - 1_440 * MINUTE_US
    }
    listed_us = NOW_US - days_us + 60 * MINUTE_US
    assert [one[:2] for one in played.opened] == [
        ("BTCUSDT", MINUTE - days_us + MINUTE_US), ("NEWUSDT", listed_us),
    ]  # fmt: skip


def test_symbol_with_gaps_begins_at_its_gap_or_its_first_minute_shortly_before(
    played: Played,
) -> None:
    """Its first minutes still waited to be written when a gap behind them was."""
    told_us = LAST_US - 90 * MINUTE_US
    played.told_us = {
        **dict.fromkeys(("NEWUSDT", "OLDUSDT", "EARLYUSDT", "QUIETUSDT", "ODDUSDT"), told_us),
        "DAYSUSDT": 0,
    }
    played.firsts_us = {
        "NEWUSDT": told_us - 3 * MINUTE_US,
        "OLDUSDT": told_us - SEEN_BEFORE_US - MINUTE_US,
        "EARLYUSDT": told_us + 2 * MINUTE_US,  # without trades when it was added
        "QUIETUSDT": None,
        "DAYSUSDT": 0,
    }
    played.refused = {"ODDUSDT"}
    told = dict.fromkeys(("OLDUSDT", "EARLYUSDT", "QUIETUSDT", "ODDUSDT"), told_us)
    first = {"NEWUSDT": told_us - 3 * MINUTE_US}
    days = {"DAYSUSDT": MINUTE - 1_440 * MINUTE_US}  # older holes are the DAGs'
    assert begun(*played.told_us) == told | first | days
    assert begun("NEWUSDT", status="BREAK") == first
    assert played.opened == []  # the ledger has the gap already
    assert begun("NEWUSDT", stored_us={}) == first


def test_many_gaps_do_not_stop_requests_for_other_symbols(
    played: Played,
) -> None:
    names = [f"N{number}USDT" for number in range(MAX_REQUESTS + 1)]
    played.told_us = dict.fromkeys(names, LAST_US)
    played.firsts_us = dict.fromkeys([*names, "NEWUSDT"], LAST_US - MINUTE_US)
    assert begun(*names, "NEWUSDT") == {**played.told_us, "NEWUSDT": LAST_US - MINUTE_US}
    assert played.asked == ["NEWUSDT"]
    del played.told_us[names[0]]
    assert begun(*names) == dict.fromkeys(names, LAST_US - MINUTE_US)


def test_first_minute_that_just_ended_is_requested(played: Played) -> None:
    played.firsts_us, played.not_final = {"NEWUSDT": MINUTE - MINUTE_US}, {"NEWUSDT"}
    assert begun("NEWUSDT") == {"NEWUSDT": MINUTE - MINUTE_US}


def test_first_start_of_a_market_requests_nothing(played: Played) -> None:
    assert begun("ETHUSDT", "XRPUSDT", stored_us={}) == {}
    assert begun("ETHUSDT.P") == {}
    assert played.asked == []


def test_nothing_is_requested_if_many_symbols_have_no_rows(played: Played) -> None:
    names = [f"N{number}USDT" for number in range(MAX_REQUESTS + 1)]
    played.firsts_us = dict.fromkeys(names, LAST_US + MINUTE_US)
    assert begun(*names) == {}
    assert len(begun(*names[1:])) == MAX_REQUESTS


def test_refused_symbol_is_reported_and_delays_no_other(played: Played) -> None:
    played.firsts_us, played.refused = {"NEWUSDT": LAST_US}, {"ODDUSDT"}
    known = {"BTCUSDT": LAST_US}
    added = [*map(instrument, [*known, "ODDUSDT", "NEWUSDT"])]
    settings: Any = Settings()
    found = find_begins(settings, added, known, {Market.SPOT: NOW_US})
    assert found.begins_us == {"BTCUSDT": LAST_US + MINUTE_US, "NEWUSDT": LAST_US}
    assert found.refused == {"ODDUSDT": "HTTP 400: Invalid symbol"}


def test_refusal_of_the_address_tells_nothing_of_a_symbol(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> KlinePage:
        raise RefusedAddressError("HTTP 403")

    monkeypatch.setattr(played, "klines", refused)
    with pytest.raises(RefusedAddressError):
        begun("NEWUSDT")


def test_first_minutes_of_a_listing_that_were_not_written_are_missed(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streamer was killed when it had written later rows, and not yet what it lacked."""
    played.told_us = {
        "LACKSUSDT": LAST_US,
        "WHOLEUSDT": LAST_US,
        "CHOSENUSDT": LAST_US,
        "QUIETUSDT": LAST_US,
    }
    played.firsts_us = {
        "LACKSUSDT": LAST_US - 3 * MINUTE_US,
        "WHOLEUSDT": LAST_US,
        "CHOSENUSDT": 0,  # listed long ago, and streamed since then
        "QUIETUSDT": None,
    }
    log = CapturingLogger()
    monkeypatch.setattr(module, "log", log)
    instruments = [*map(instrument, played.told_us), instrument("OTHERUSDT")]
    since_us = MINUTE - 1_440 * MINUTE_US
    found = find_missing_beginnings(
        cast("Any", Settings()), instruments, {Market.SPOT: NOW_US}, since_us
    )
    assert found == {"LACKSUSDT": (LAST_US - 3 * MINUTE_US, LAST_US)}
    assert "OTHERUSDT" not in played.asked
    assert [call.kwargs["symbol"] for call in log.calls] == ["QUIETUSDT"]


def test_too_many_symbols_are_not_requested(played: Played) -> None:
    names = [f"N{number}USDT" for number in range(MAX_REQUESTS + 1)]
    played.told_us = dict.fromkeys(names, LAST_US)
    found = find_missing_beginnings(
        cast("Any", Settings()),
        [*map(instrument, names)],
        {Market.SPOT: NOW_US},
        MINUTE - 1_440 * MINUTE_US,
    )
    assert (found, played.asked) == ({}, [])
