"""The judge of raw capture: each kind of difference is seen, so that a run can fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.jobs.trades.by_id import RawGap, record_raw_gaps
from include.store.trades.captured import RAW_TABLES, write_raw
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.chaos.oracle.capture.captured import Judge
from tests.chaos.oracle.capture.exchanged import Row, book_tickers_of, in_machine_time, trades_of

SYMBOL = "BTCUSDT"
DATASETS = ("agg_trades", "trades", "book_tickers")
MINUTES = 3
CLOCK_START = datetime(2026, 11, 20, 14, tzinfo=UTC)
"""How much is traded depends on the time of the day: these minutes have the same trades always."""


@dataclass
class Captured:
    """Tables that are as they must be, until they are damaged."""

    connection: psycopg.Connection
    url: str
    exchange: ExchangeThread
    start_us: int
    ids: list[int]
    times_us: list[int]
    """Of the aggTrades; book tickers are received as soon as they are made."""

    def judge(self) -> list[str]:
        until_us = self.start_us + MINUTES * MINUTE_US
        return Judge(self.exchange).differences(
            self.url, DATASETS, [SYMBOL], until_us, calm_us=self.start_us + MINUTE_US
        )

    def run(self, statement: str, *values: object) -> None:
        self.connection.execute(statement, values)  # type: ignore[arg-type]

    def received_us(self, moment_us: int) -> int:
        return in_machine_time(self.exchange, moment_us)

    def gap(self, dataset: str, from_us: int, to_us: int) -> None:
        gap = RawGap(dataset, SYMBOL, from_us, to_us, "cut")
        record_raw_gaps(database_url=self.url, gaps=[gap])


@pytest.fixture(scope="module")
def exchange() -> Iterator[tuple[ExchangeThread, int]]:
    with ExchangeThread(
        SimulatorConfig(clock_start=CLOCK_START, speed=600, spot_symbols=(SYMBOL,), um_symbols=())
    ) as exchange:
        start_us = to_us(CLOCK_START)
        time.sleep(exchange.clock.seconds_until(start_us + (MINUTES + 1) * MINUTE_US))
        yield exchange, start_us


@pytest.fixture
def captured(exchange: tuple[ExchangeThread, int], database_url: str) -> Iterator[Captured]:
    served, start_us = exchange
    until_us = start_us + MINUTES * MINUTE_US
    with psycopg.connect(database_url, autocommit=True) as connection:
        one = Captured(connection, database_url, served, start_us, [], [])
        for dataset in ("agg_trades", "trades"):
            trades = trades_of(served, dataset, SYMBOL, start_us, until_us)
            lines = [_line(dataset, key, row) for key, row in sorted(trades.items())]
            write_raw(connection, RAW_TABLES[dataset], lines)
            if dataset == "agg_trades":
                one.ids = [number for _, number in sorted(trades)]
                one.times_us = [time_us for time_us, _ in sorted(trades)]
        book = served.markets["spot"].book(SYMBOL)
        first, last = (book.update_id(book.step_at(at)) for at in (start_us, until_us))
        quotes = book_tickers_of(served, SYMBOL, first, last)
        write_raw(
            connection,
            RAW_TABLES["book_tickers"],
            [
                RAW_TABLES["book_tickers"].line(
                    (SYMBOL, number, *row, None, one.received_us(time_us))
                )
                for number, (time_us, row) in quotes.items()
            ],
        )
        yield one


@pytest.mark.parametrize("dataset", DATASETS)
def test_dataset_without_a_row_since_the_calm_fails(captured: Captured, dataset: str) -> None:
    captured.run(f"DELETE FROM market.{dataset}")  # noqa: S608
    assert captured.judge() == [
        f"{dataset} of {SYMBOL}: no row since {from_us(captured.start_us + MINUTE_US)}"
    ]


def _line(dataset: str, key: tuple[int, int], row: Row) -> str:
    time_us, number = key
    if dataset == "agg_trades":
        *values, maker = row
        return RAW_TABLES[dataset].line((SYMBOL, number, *values, time_us, maker))
    price, quantity, maker, trade_type = row
    values = [SYMBOL, number, price, quantity, None, time_us, maker, trade_type]
    return RAW_TABLES[dataset].line(values)


def test_rows_equal_to_the_exchange_pass(captured: Captured) -> None:
    assert len(captured.ids) > 100
    assert captured.judge() == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda c: c.run("DELETE FROM market.agg_trades WHERE agg_trade_id = %s", c.ids[50]),
         "1 missing without a gap"),
        (lambda c: c.run("DELETE FROM market.agg_trades WHERE agg_trade_id = %s", c.ids[-1]),
         "1 missing without a gap"),
        (lambda c: c.run("UPDATE market.agg_trades SET price = price + 1 WHERE agg_trade_id = %s",
                         c.ids[50]), "must be"),
        (lambda c: c.run("UPDATE market.agg_trades SET agg_trade_id = agg_trade_id + 1000000"
                         " WHERE agg_trade_id = %s", c.ids[-1]), "is none of the exchange's"),
        (lambda c: c.run("UPDATE market.trades SET is_buyer_maker = NOT is_buyer_maker"),
         "must be"),
        (lambda c: c.run("UPDATE market.book_tickers SET ask_price = ask_price + 1"
                         " WHERE update_id = (SELECT min(update_id) FROM market.book_tickers)"),
         "must be"),
        (lambda c: c.run("DELETE FROM market.book_tickers WHERE update_id = (SELECT update_id"
                         " FROM market.book_tickers ORDER BY 1 OFFSET 5 LIMIT 1)"),
         "1 missing without a gap"),
    ],
)  # fmt: skip
def test_damaged_rows_fail(
    captured: Captured, damage: Callable[[Captured], None], told: str
) -> None:
    damage(captured)
    found = captured.judge()
    assert found
    assert any(told in one and SYMBOL in one for one in found), found


DELETE_TICKERS = "DELETE FROM market.book_tickers WHERE received_at >= %s AND received_at < %s"


def test_rows_missing_in_a_recorded_gap_are_no_difference(captured: Captured) -> None:
    captured.run("DELETE FROM market.agg_trades WHERE agg_trade_id = %s", captured.ids[50])
    start_us, end_us = (captured.received_us(captured.start_us + n * 1_000_000) for n in (60, 70))
    captured.run(DELETE_TICKERS, from_us(start_us), from_us(end_us))
    captured.gap("book_tickers", start_us, end_us)
    assert [one.split(":")[0] for one in captured.judge()] == [f"agg_trades of {SYMBOL}"]
    captured.gap("agg_trades", captured.times_us[49], captured.times_us[51])
    assert captured.judge() == []


def test_gap_at_another_time_of_the_minute_explains_nothing(
    captured: Captured,
) -> None:
    start_us, end_us = (captured.received_us(captured.start_us + n * 1_000_000) for n in (60, 70))
    captured.run(DELETE_TICKERS, from_us(start_us), from_us(end_us))
    captured.run("DELETE FROM market.agg_trades WHERE agg_trade_id = %s", captured.ids[50])
    later_us = captured.received_us(captured.start_us + 80_000_000)
    captured.gap("book_tickers", later_us, later_us + 5_000)
    captured.gap("agg_trades", captured.times_us[51] + 1, captured.times_us[60])
    assert [one.split(":")[0] for one in captured.judge()] == [f"agg_trades of {SYMBOL}"]
    captured.gap("agg_trades", captured.times_us[49], captured.times_us[51])
    assert [one.split(":")[0] for one in captured.judge()] == [f"book_tickers of {SYMBOL}"]


def test_book_tickers_dropped_by_the_exchange_are_no_difference(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_us = captured.start_us + 60_000_000
    captured.run(
        DELETE_TICKERS, *(from_us(captured.received_us(start_us + n)) for n in (0, 10_000_000))
    )
    entry = {
        "kind": "drop", "market": "spot", "duration_s": 10,
        "at": from_us(start_us).isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    for stream, told in (("*@aggTrade", 1), ("*@bookTicker", 0)):
        plan = json.dumps([{**entry, "streams": stream}])
        monkeypatch.setattr(captured.exchange.faults, "plan", lambda plan=plan: plan)
        assert len(captured.judge()) == told


def test_book_ticker_delayed_beyond_a_disconnect_is_missing_after_it(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later one arrived before the disconnect; it would have arrived after it."""
    at_us = captured.start_us + 60_000_000
    query = (
        "SELECT update_id, received_at FROM market.book_tickers WHERE received_at >= %s"
        " ORDER BY update_id LIMIT 30"
    )
    since = from_us(captured.received_us(at_us))
    rows = captured.connection.execute(query, (since,)).fetchall()
    # Several may have one time of receipt.
    lost, cut = next(
        (number, after)
        for (_, before), (number, at), (_, after) in zip(rows, rows[1:], rows[2:], strict=False)
        if before < at < after
    )
    captured.run("DELETE FROM market.book_tickers WHERE update_id = %s", lost)
    captured.gap("book_tickers", to_us(cut) + 1, to_us(cut) + 2_000)
    entry = {
        "kind": "reorder", "market": "spot", "duration_s": 10, "delay_ms": 2_000,
        "at": from_us(at_us).isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    for stream, told in (("*@aggTrade", 1), ("*@bookTicker", 0)):
        plan = json.dumps([{**entry, "streams": stream}])
        monkeypatch.setattr(captured.exchange.faults, "plan", lambda plan=plan: plan)
        assert len(captured.judge()) == told
