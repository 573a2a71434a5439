"""Symbols that stopped or have just begun trading, with REST servers of which some lag."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx
import psycopg
import pytest

from include.binance.rest.weights import BEST_KLINES
from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.instruments import Market
from include.domain.timeframes import DAY_US, MINUTE_US, SECOND_US, minute_of, to_us
from include.errors import TransientError
from include.jobs.klines import minutes
from include.jobs.klines.backfill import load_rest_piece
from include.jobs.klines.pieces import LoadCounts, RestPiece
from include.jobs.klines.repair import RepairSummary, repair_gaps, repair_minutes
from include.store.candles.minutes import merge_candidates, read_candles
from include.store.ledgers.files import read_outages
from include.store.ledgers.gaps import open_gap
from simulator.rest.faults import KlineLag, RestRule
from simulator.server import ExchangeThread
from tests.integration.jobs.faulty_host import FaultyHost

Oracle = Callable[[str, int, int], list[Candle]]

SYMBOL = "COSUSDT"
DAY = to_us(datetime(2026, 11, 18, tzinfo=UTC))
HALT = DAY + 600 * MINUTE_US
LAST = HALT - MINUTE_US
FOR_EVER = 1_000_000


@dataclass
class Klines:
    """Changes klines: only those of [begin, halt) exist, and answers lack their last rows."""

    begin_us: int = 0
    halt_us: int = DAY + 1_000 * DAY_US
    rows_behind: int = 0
    times: int = FOR_EVER
    unfinished: int = 0
    """The number of the answer whose last row lacks a trade."""
    asked: int = 0

    def __call__(self, answer: httpx.Response) -> httpx.Response:
        self.asked += 1
        rows = json.loads(answer.content)
        kept = [row for row in rows if self.begin_us <= row[0] < self.halt_us]
        if self.asked <= self.times:
            kept = kept[: max(0, len(kept) - self.rows_behind)]
        if self.asked == self.unfinished:
            kept[-1][8] -= 1
        return httpx.Response(200, json=kept)


@pytest.fixture
def klines(host: FaultyHost) -> Klines:
    """The exchange's answers; a test changes them."""
    host.changes["/klines?"] = changed = Klines()
    return changed


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Waits (s) before REST is asked again, which take no time here."""
    bounds: list[tuple[float, float]] = []

    def draw(min_s: float, max_s: float) -> float:
        bounds.append((min_s, max_s))
        return 0.0

    monkeypatch.setattr(minutes, "BACKOFF", replace(minutes.BACKOFF, uniform=draw))
    return bounds


def load(settings: Settings, start_us: int, end_us: int) -> LoadCounts:
    return load_rest_piece(settings=settings, piece=RestPiece(SYMBOL, "x", start_us, end_us))


def repair(settings: Settings) -> tuple[int, int]:
    """Gaps closed and left open."""
    summary: RepairSummary = repair_gaps(settings=settings, worker="test", older_than_s=0)
    return summary.repaired, summary.left


def outages(connection: psycopg.Connection) -> list[tuple[int, int]]:
    return [(one[0], one[1]) for one in read_outages(connection, SYMBOL, DAY, DAY + 3 * DAY_US)]


def recent(exchange: ExchangeThread) -> int:
    """The newest minute that REST has completed."""
    return minute_of(exchange.clock.now_us() - 30 * SECOND_US) - MINUTE_US


@pytest.mark.parametrize("end_us", [HALT, HALT + 10 * MINUTE_US])
def test_last_minute_before_a_halt_is_requested_until_a_server_has_it(
    end_us: int,
    through_host: Settings,
    klines: Klines,
    connection: psycopg.Connection,
    oracle: Oracle,
    waits: list[tuple[float, float]],
) -> None:
    klines.halt_us, klines.rows_behind, klines.times = HALT, 1, 2
    counts = load(through_host, LAST, end_us)
    assert (counts.inserted, counts.pending_minutes) == (1, 0)
    assert read_candles(connection, SYMBOL, LAST, end_us) == oracle(SYMBOL, LAST, HALT)
    assert outages(connection) == ([(HALT, end_us)] if end_us > HALT else [])
    assert waits[0] == (0.5, 1.0)


def test_halt_is_recorded_after_several_equal_answers(
    through_host: Settings,
    klines: Klines,
    connection: psycopg.Connection,
    waits: list[tuple[float, float]],
) -> None:
    klines.halt_us = HALT
    assert load(through_host, HALT, HALT + 10 * MINUTE_US).outage_minutes == 10
    assert outages(connection) == [(HALT, HALT + 10 * MINUTE_US)]
    assert waits == [(0.5, 1.0), (0.5, 2.0), (0.5, 2.0)]
    assert klines.asked == 6  # the page, four requests after it, and one before
    assert load(through_host, HALT + 10 * MINUTE_US, HALT + 20 * MINUTE_US).outage_minutes == 10
    assert (len(waits), klines.asked) == (3, 9)  # it is known, and continues


def test_uncertain_or_unlisted_minutes_are_not_requested_again(
    through_host: Settings,
    klines: Klines,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
    waits: list[tuple[float, float]],
) -> None:
    klines.halt_us = recent(exchange)
    assert load(through_host, klines.halt_us, klines.halt_us + MINUTE_US).pending_minutes == 1
    assert klines.asked == 2
    assert outages(connection) == []
    before_us = DAY - 30 * DAY_US
    assert load(through_host, before_us, before_us + 60 * MINUTE_US).unlisted_minutes == 60
    assert waits == []


@pytest.mark.parametrize("status", [Status.PARTIAL, Status.UNCONFIRMED])
def test_gap_over_an_unverified_row_stays_open_until_it_is_verified(
    status: Status,
    through_host: Settings,
    klines: Klines,
    connection: psycopg.Connection,
    oracle: Oracle,
) -> None:
    (right,) = oracle(SYMBOL, LAST, HALT)
    wrong = replace(right, trade_count=right.trade_count + 1, volume=right.volume + 1)
    merge_candidates(connection, [CandleCandidate(wrong, status, Source.STREAM)])
    end_us = HALT + 10 * MINUTE_US
    open_gap(connection, symbol=SYMBOL, start_us=LAST, end_us=end_us, cause="cut")
    klines.halt_us, klines.rows_behind = HALT, 1
    assert repair(through_host) == (0, 1)
    with pytest.raises(TransientError, match=r"COSUSDT.* 1 minute has no final row"):
        repair_minutes(settings=through_host, symbol=SYMBOL, start_us=LAST, end_us=end_us)
    assert outages(connection) == [(HALT, end_us)]

    klines.rows_behind = 0
    assert repair(through_host) == (1, 0)
    assert read_candles(connection, SYMBOL, LAST, end_us) == [right]
    assert outages(connection) == [(HALT, end_us)]


def test_minutes_before_a_stored_row_are_no_outage_and_a_verified_row_is_final(
    through_host: Settings, klines: Klines, connection: psycopg.Connection, oracle: Oracle
) -> None:
    (right,) = oracle(SYMBOL, LAST, HALT)
    merge_candidates(connection, [CandleCandidate(right, Status.VERIFIED, Source.KLINE, HALT)])
    klines.halt_us, klines.rows_behind = HALT, 2
    assert load(through_host, LAST, HALT).pending_minutes == 0
    assert load(through_host, LAST - MINUTE_US, HALT).pending_minutes == 1
    assert outages(connection) == []


def test_first_minute_of_a_listing_is_pending_while_servers_lag(
    through_host: Settings,
    klines: Klines,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
    oracle: Oracle,
) -> None:
    first_us = recent(exchange)
    end_us = first_us + MINUTE_US
    open_gap(connection, symbol=SYMBOL, start_us=first_us, end_us=end_us, cause="cut")
    klines.begin_us, klines.rows_behind, klines.times = first_us, 1_000, 4
    with pytest.raises(TransientError, match=r"COSUSDT.* 1 minute has no final row"):
        repair_minutes(settings=through_host, symbol=SYMBOL, start_us=first_us, end_us=end_us)
    assert repair(through_host) == (0, 1)
    assert repair(through_host) == (1, 0)
    assert read_candles(connection, SYMBOL, first_us, end_us) == oracle(SYMBOL, first_us, end_us)
    assert outages(connection) == []


def test_minutes_before_a_listing_are_unlisted_immediately(
    through_host: Settings, klines: Klines, exchange: ExchangeThread
) -> None:
    klines.begin_us = recent(exchange)
    counts = load(through_host, klines.begin_us - 5 * MINUTE_US, klines.begin_us)
    assert (counts.unlisted_minutes, counts.pending_minutes) == (5, 0)


# --- the last row of an answer

BUSY = "BTCUSDT"


@contextmanager
def lagging(exchange: ExchangeThread, minute_us: int, *, times: int | None) -> Iterator[None]:
    """The number of answers from a server with this minute open."""
    lag_us = exchange.clock.now_us() - minute_us - 15 * SECOND_US
    rule = RestRule(effect=KlineLag(lag_us=lag_us), symbol=BUSY, endpoint="klines", times=times)
    identity = exchange.rest_faults.add(rule)
    yield
    assert exchange.rest_faults.remove(identity)


def load_busy(settings: Settings, start_us: int, end_us: int) -> LoadCounts:
    return load_rest_piece(settings=settings, piece=RestPiece(BUSY, "x", start_us, end_us))


@pytest.mark.parametrize("first_minutes", [0, 2])
def test_open_minute_of_a_lagging_server_is_requested_again_immediately(
    first_minutes: int,
    settings: Settings,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
    oracle: Oracle,
) -> None:
    last_us = recent(exchange)
    start_us, end_us = last_us - first_minutes * MINUTE_US, last_us + MINUTE_US
    with lagging(exchange, last_us, times=1):
        counts = load_busy(settings, start_us, end_us)
    assert (counts.inserted, counts.pending_minutes) == (first_minutes + 1, 0)
    assert read_candles(connection, BUSY, start_us, end_us) == oracle(BUSY, start_us, end_us)


def test_minute_open_at_every_server_is_pending_and_not_stored(
    settings: Settings,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
    oracle: Oracle,
) -> None:
    last_us = recent(exchange)
    start_us, end_us = last_us - 2 * MINUTE_US, last_us + MINUTE_US
    open_gap(connection, symbol=BUSY, start_us=last_us, end_us=end_us, cause="cut")
    with lagging(exchange, last_us, times=None):
        counts = load_busy(settings, start_us, end_us)
        assert (counts.inserted, counts.pending_minutes, counts.outage_minutes) == (2, 1, 0)
        assert repair(settings) == (0, 1)
    before = oracle(BUSY, start_us, last_us)
    assert read_candles(connection, BUSY, start_us, end_us) == before
    assert repair(settings) == (1, 0)
    assert read_candles(connection, BUSY, start_us, end_us) == oracle(BUSY, start_us, end_us)


@pytest.mark.parametrize(("minutes_ago", "asked", "waits_s"), [(3, 3, 0), (6, 6, 3), (11, 1, 0)])
def test_last_minute_before_a_halt_is_final_once_no_lag_explains_it(
    minutes_ago: int,
    asked: int,
    waits_s: int,
    through_host: Settings,
    klines: Klines,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
    oracle: Oracle,
    waits: list[tuple[float, float]],
) -> None:
    # the clock runs: not within a second of the next minute's bound
    klines.halt_us = minute_of(exchange.clock.now_us() - SECOND_US) - minutes_ago * MINUTE_US
    start_us = klines.halt_us - 3 * MINUTE_US
    is_sure = minutes_ago > 3
    counts = load(through_host, start_us, klines.halt_us)
    assert (counts.inserted, counts.pending_minutes) == (2 + is_sure, 1 - is_sure)
    told = oracle(SYMBOL, start_us, klines.halt_us - (not is_sure) * MINUTE_US)
    assert read_candles(connection, SYMBOL, start_us, klines.halt_us) == told
    assert outages(connection) == []
    assert (klines.asked, len(waits)) == (asked, waits_s)


@pytest.mark.parametrize("answer", [2, 3, 6])
def test_last_minute_with_differing_answers_is_pending(
    answer: int,
    through_host: Settings,
    klines: Klines,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
) -> None:
    klines.halt_us = minute_of(exchange.clock.now_us() - SECOND_US) - 6 * MINUTE_US
    start_us = klines.halt_us - 3 * MINUTE_US
    klines.unfinished = answer
    counts = load(through_host, start_us, klines.halt_us + MINUTE_US)
    assert (counts.inserted, counts.pending_minutes) == (2, 2)
    assert outages(connection) == []
    counts = load(through_host, start_us, klines.halt_us + MINUTE_US)
    assert (counts.inserted, counts.pending_minutes, counts.outage_minutes) == (1, 0, 1)


def test_page_starts_with_the_last_row_of_the_previous_one(
    through_host: Settings,
    host: FaultyHost,
    exchange: ExchangeThread,
    connection: psycopg.Connection,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BEST_KLINES, Market.SPOT, 4)
    end_us = recent(exchange) + MINUTE_US
    start_us = end_us - 9 * MINUTE_US
    counts = load_busy(through_host, start_us, end_us)
    assert (counts.rest_pages, counts.inserted, counts.pending_minutes) == (3, 9, 0)
    assert len([path for path in host.asked if "/klines?" in path]) == 3
    assert read_candles(connection, BUSY, start_us, end_us) == oracle(BUSY, start_us, end_us)
