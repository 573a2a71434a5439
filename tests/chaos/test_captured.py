"""The judge of raw capture: each kind of difference is seen, so that a run can fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from include.domain.timeframes import MINUTE_US, minute_of
from include.store.gaps import open_gap
from include.store.raw import RAW_TABLES, write_raw
from simulator.config import SimulatorConfig
from simulator.server import ExchangeThread
from tests.chaos.captured import Row, differences_of_capture, quotes_of, trades_of

SYMBOL = "BTCUSDT"
DATASETS = ("agg_trades", "trades", "book_tickers")
MINUTES = 3


@dataclass
class Captured:
    """Tables that are as they must be, until they are damaged."""

    connection: psycopg.Connection
    url: str
    exchange: ExchangeThread
    start_us: int
    ids: list[int]

    def judge(self) -> list[str]:
        until_us = self.start_us + MINUTES * MINUTE_US
        return differences_of_capture(self.url, self.exchange, DATASETS, [SYMBOL], until_us)

    def run(self, statement: str, *values: object) -> None:
        self.connection.execute(statement, values)  # type: ignore[arg-type]

    def gap(self, dataset: str) -> None:
        open_gap(
            self.connection, symbol=SYMBOL, cause="cut", dataset=dataset, start_us=self.start_us,
            end_us=self.start_us + MINUTES * MINUTE_US,
        )  # fmt: skip


@pytest.fixture(scope="module")
def exchange() -> Iterator[tuple[ExchangeThread, int]]:
    with ExchangeThread(
        SimulatorConfig(speed=600, spot_symbols=(SYMBOL,), um_symbols=())
    ) as exchange:
        start_us = minute_of(exchange.clock.now_us())
        time.sleep(exchange.clock.seconds_until(start_us + (MINUTES + 1) * MINUTE_US))
        yield exchange, start_us


@pytest.fixture
def captured(exchange: tuple[ExchangeThread, int], database_url: str) -> Iterator[Captured]:
    served, start_us = exchange
    until_us = start_us + MINUTES * MINUTE_US
    with psycopg.connect(database_url, autocommit=True) as connection:
        one = Captured(connection, database_url, served, start_us, [])
        for dataset in ("agg_trades", "trades"):
            trades = trades_of(served, dataset, SYMBOL, start_us, until_us)
            lines = [_line(dataset, key, row) for key, row in sorted(trades.items())]
            write_raw(connection, RAW_TABLES[dataset], lines)
            if dataset == "agg_trades":
                one.ids = [number for _, number in sorted(trades)]
        book = served.markets["spot"].book(SYMBOL)
        first, last = (book.update_id(book.step_at(at)) for at in (start_us, until_us))
        quotes = quotes_of(served, SYMBOL, first, last)
        write_raw(
            connection,
            RAW_TABLES["book_tickers"],
            [
                RAW_TABLES["book_tickers"].line((SYMBOL, number, *row, None, start_us))
                for number, row in quotes.items()
            ],
        )
        yield one


def _line(dataset: str, key: tuple[int, int], row: Row) -> str:
    time_us, number = key
    *values, maker = row
    extra = [] if dataset == "agg_trades" else [None]
    return RAW_TABLES[dataset].line((SYMBOL, number, *values, *extra, time_us, maker))


def test_rows_that_are_the_exchanges_are_found_right(captured: Captured) -> None:
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
def test_damaged_rows_are_found_wrong(
    captured: Captured, damage: Callable[[Captured], None], told: str
) -> None:
    damage(captured)
    found = captured.judge()
    assert found
    assert any(told in one and SYMBOL in one for one in found), found


def test_what_a_gap_tells_of_is_no_difference(captured: Captured) -> None:
    captured.run("DELETE FROM market.agg_trades WHERE agg_trade_id = %s", captured.ids[50])
    captured.run(
        "DELETE FROM market.book_tickers WHERE update_id ="
        " (SELECT update_id FROM market.book_tickers ORDER BY 1 OFFSET 5 LIMIT 1)"
    )
    captured.gap("book_tickers")
    assert [one.split(":")[0] for one in captured.judge()] == [f"agg_trades of {SYMBOL}"]
    captured.gap("agg_trades")
    assert captured.judge() == []
