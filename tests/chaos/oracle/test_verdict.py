"""The judge of the runs: each kind of difference is seen, so that a run can fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import record_outage
from include.store.ledgers.gaps import close_gap, open_gap
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.chaos.oracle.verdict import GapCounts, Truth, differences, gaps_of, truth

SYMBOL = "BTCUSDT"
CLOCK_START = datetime(2026, 11, 20, 14, tzinfo=UTC)
MINUTES = 12
HALTED = range(4, 7)
UNSURE = "status = 'unconfirmed', source = 'stream', source_rank = 40"


@dataclass
class Known:
    """Evidence of the exchange's side."""

    forms: set[str] = field(default_factory=set)
    columns: frozenset[str] = frozenset()
    ids: tuple[int, int] = (1, 100)

    def undetectable(self, _symbol: str, _minute_us: int) -> frozenset[str]:
        return self.columns

    def wrong_kline(self, _symbol: str, _minute_us: int) -> set[str]:
        return self.forms

    def trade_ids(self, _symbol: str, _minute_us: int) -> tuple[int, int]:
        return self.ids


@dataclass
class Table:
    """A table that is as it must be, until it is damaged."""

    connection: psycopg.Connection
    url: str
    true: Truth
    start_us: int
    given_up: dict[str, int] = field(default_factory=dict)
    evidence: Known = field(default_factory=lambda: Known())
    reused: dict[str, set[int]] = field(default_factory=dict)

    @property
    def end_us(self) -> int:
        return self.start_us + MINUTES * MINUTE_US

    def minute(self, number: int) -> int:
        return self.start_us + number * MINUTE_US

    def judge(self) -> list[str]:
        return differences(
            self.url,
            self.true,
            {SYMBOL: self.start_us},
            self.end_us,
            reused=self.reused,
            given_up=self.given_up,
            evidence=self.evidence,
        )

    def change(self, assignment: str, number: int) -> None:
        """Change a row behind the back of every rule."""
        self.connection.execute(
            f"UPDATE market.candles_1m SET {assignment} WHERE open_time = %s",  # noqa: S608
            (from_us(self.minute(number)),),
        )


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> tuple[Truth, int]:
    """Minutes of a symbol that was halted for three of them, and when they begin."""
    start_us = to_us(CLOCK_START) + MINUTE_US
    halt = {
        "kind": "halt", "market": "spot", "symbols": [SYMBOL],
        "at": from_us(start_us + HALTED[0] * MINUTE_US).isoformat(),
        "duration_s": len(HALTED) * 60,
    }  # fmt: skip
    plan = tmp_path_factory.mktemp("plan") / "faults.json"
    plan.write_text(json.dumps([halt]))  # known from the start, however busy the machine is
    config = SimulatorConfig(
        clock_start=CLOCK_START, speed=600, spot_symbols=(SYMBOL,), um_symbols=(), fault_file=plan
    )
    with ExchangeThread(config) as exchange:
        end_us = start_us + MINUTES * MINUTE_US
        while (left_s := exchange.clock.seconds_until(end_us + MINUTE_US)) > 0:
            time.sleep(left_s)
        return truth(exchange, {SYMBOL: start_us}, end_us), start_us


@pytest.fixture
def table(true: tuple[Truth, int], database_url: str) -> Iterator[Table]:
    told, start_us = true
    assert len(told[SYMBOL]) == MINUTES - len(HALTED)
    with psycopg.connect(database_url, autocommit=True) as connection:
        one = Table(connection, database_url, told, start_us)
        merge_candidates(
            connection, [_candidate(at, values) for at, values in told[SYMBOL].items()]
        )
        _outage(one, HALTED[0], HALTED[-1] + 1)
        yield one


def _candidate(minute_us: int, values: tuple[Decimal, ...]) -> CandleCandidate:
    opened, high, low, close, volume, quote, count, taker, taker_quote = values
    candle = Candle(
        symbol=SYMBOL, open_time_us=minute_us, open=opened, high=high, low=low, close=close,
        volume=volume, quote_volume=quote, trade_count=int(count), taker_buy_volume=taker,
        taker_buy_quote_volume=taker_quote,
    )  # fmt: skip
    return CandleCandidate(candle, Status.VERIFIED, Source.KLINE, minute_us + MINUTE_US)


def _outage(table: Table, first: int, end: int) -> None:
    record_outage(
        table.connection, market=Market.SPOT, symbol=SYMBOL, cause="halt",
        start_us=table.minute(first), end_us=table.minute(end),
    )  # fmt: skip


def _gap(table: Table, first: int, end: int) -> None:
    open_gap(
        table.connection, symbol=SYMBOL, cause="cut",
        start_us=table.minute(first), end_us=table.minute(end),
    )  # fmt: skip


def _delete(table: Table, statement: str) -> None:
    table.connection.execute(statement)


def _invent(table: Table) -> None:
    values = table.true[SYMBOL][table.minute(0)]
    merge_candidates(table.connection, [_candidate(table.minute(HALTED[1]), values)])


def _contradict(table: Table, number: int) -> None:
    """REST has other values than the kline."""
    values = table.true[SYMBOL][table.minute(number)]
    told = _candidate(table.minute(number), (*values[:4], values[4] + 1, *values[5:]))
    merge_candidates(table.connection, [replace(told, source=Source.REST)])


def test_table_equal_to_the_exchange_passes(table: Table) -> None:
    assert table.judge() == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda t: t.change("high = high + 1", 2), "true is"),
        (lambda t: t.change("taker_buy_quote_volume = taker_buy_quote_volume - 1", 8), "true is"),
        (
            lambda t: t.change("status = 'unconfirmed', source = 'stream', source_rank = 40", 9),
            "unconfirmed by stream",
        ),
        (lambda t: t.change("symbol = 'ETHUSDT'", 3), "missing"),
        (lambda t: _invent(t), "invented"),
        (lambda t: _delete(t, "DELETE FROM ops.outages"), "no outage of it"),
        (lambda t: _outage(t, 1, 2), "called an outage"),
        (lambda t: _gap(t, 1, 2), "is open (cut)"),
        (lambda t: _delete(t, "DELETE FROM ops.outages"), "3 minutes missing before it"),
        (lambda t: t.change("first_trade_id = 1, last_trade_id = 1000000000", 2), "its ids"),
        (lambda t: _contradict(t, 9), "verified by kline was contradicted by rest"),
    ],
)
def test_damaged_table_fails(table: Table, damage: Callable[[Table], None], told: str) -> None:
    damage(table)
    found = table.judge()
    assert found
    assert any(told in one and one.startswith(SYMBOL) for one in found), found


def test_given_up_minutes_may_be_missing_but_not_wrong(table: Table) -> None:
    _delete(table, f"DELETE FROM market.candles_1m WHERE open_time >= '{from_us(table.minute(9))}'")  # noqa: S608
    assert len([one for one in table.judge() if "missing" in one]) == MINUTES - 9
    table.given_up = {SYMBOL: table.minute(9)}
    assert table.judge() == []
    table.given_up = {SYMBOL: table.minute(10)}
    assert [one for one in table.judge() if "missing" in one]
    table.given_up = {SYMBOL: table.minute(8)}
    table.change("high = high + 1", 8)
    assert [one for one in table.judge() if "true is" in one]


def test_reused_ticker_restarts_ids_even_after_a_partial_minute(
    table: Table,
) -> None:
    last = MINUTES - 1
    values = table.true[SYMBOL][table.minute(last)]
    aggregated = _candidate(table.minute(last), (*values[:6], values[6] - 1, *values[7:]))
    merge_candidates(
        table.connection, [replace(aggregated, status=Status.PARTIAL, source=Source.STREAM)]
    )
    assert table.judge() == []
    table.change("first_trade_id = 5000, last_trade_id = 4999 + trade_count", last - 1)
    table.change("first_trade_id = 1, last_trade_id = trade_count", last)
    assert "contradicted by ['stream']" in table.judge()[0]
    table.reused = {SYMBOL: {table.minute(last)}}
    assert table.judge() == []
    _contradict(table, last)
    assert any("its ids" in one for one in table.judge())


def test_gap_after_the_end_does_not_count(table: Table) -> None:
    _gap(table, MINUTES, MINUTES + 1)
    assert table.judge() == []


def test_gaps_closed_by_jobs_are_split_by_whether_the_streamer_gave_up(
    table: Table,
) -> None:
    of_job = {"rows": 1, "outage_minutes": 0}
    details = ({}, {"error": "REST is away"})
    for number, detail in enumerate((*details, *details)):
        gap_id = open_gap(
            table.connection, symbol=SYMBOL, cause="cut", detail=detail,
            start_us=table.minute(number), end_us=table.minute(number + 1),
        )  # fmt: skip
        close_gap(table.connection, gap_id, detail=of_job if number > 1 else None)
    assert gaps_of(table.url) == GapCounts(opened=4, of_jobs=2, silent=1)


def _lose(table: Table, number: int, first_id: int, last_id: int) -> None:
    """A fold with a trade fewer than the kline loses."""
    values = table.true[SYMBOL][table.minute(number)]
    told = _candidate(table.minute(number), (*values[:6], values[6] - 1, *values[7:]))
    candle = replace(told.candle, first_trade_id=first_id, last_trade_id=last_id)
    candidate = replace(told, candle=candle, status=Status.UNCONFIRMED, source=Source.STREAM)
    merge_candidates(table.connection, [candidate])


@pytest.mark.parametrize(
    ("ids", "is_excused"), [((1, 99), True), ((2, 100), True), ((1, 100), False)]
)
def test_unconfirmed_loser_is_excused_only_if_its_ids_are_incomplete(
    table: Table, ids: tuple[int, int], is_excused: bool
) -> None:
    _lose(table, 9, *ids)
    found = table.judge()
    assert bool(found) is not is_excused
    if found:
        assert "unconfirmed by stream was contradicted by kline" in found[0]


def test_wrong_kline_is_excused_only_in_its_columns_and_where_undetectable(table: Table) -> None:
    table.change("volume = volume + 1", 2)
    assert "true is" in table.judge()[0]
    table.evidence = Known({"volume"})
    assert "true is" in table.judge()[0]
    table.evidence = Known({"volume"}, frozenset({"volume"}))
    assert table.judge() == []
    table.change("high = high + 1", 2)
    assert "true is" in table.judge()[0]
    table.change("high = high - 1, source = 'rest', source_rank = 80", 2)
    assert "true is" in table.judge()[0]


def test_wrong_kline_may_lose_against_rest(table: Table) -> None:
    _contradict(table, 9)
    table.change("volume = volume - 1", 9)
    assert any("verified by kline was contradicted by rest" in one for one in table.judge())
    table.evidence = Known({"volume"})
    assert table.judge() == []
