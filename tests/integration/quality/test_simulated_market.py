"""A correct market breaks no rule: silence, rounding, halts and listings are no faults.

Four hours of the simulator's own klines and trades, with one symbol halted, one delisted, and one
delisted and listed again as another instrument.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from deploy.local.postgres import EmbeddedPostgres
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.instruments import Market as MarketName
from include.domain.instruments import symbol_of
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.quality.limits import ScopeKind
from include.quality.run import run_checks
from include.store.candles.minutes import merge_candidates
from include.store.ledgers.files import record_outage
from include.store.postgres.pools import connect
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from tests.integration.quality.markets import MINUTE, broken

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
END = START + timedelta(hours=4)
HALTED = (START + timedelta(minutes=61), START + timedelta(minutes=84))
DELISTED = START + timedelta(minutes=150)
RELISTED = START + timedelta(minutes=200)
NAMES = {
    MarketName.SPOT: ("BTCUSDT", "ETHBTC", "COSUSDT", "BIFIUSDT", "SHIBUSDT", "PEPEUSDT"),
    MarketName.UM: ("BTCUSDT", "KEEPUSDT"),
}
"""ETHBTC rounds the amounts of its fills; COSUSDT and KEEPUSDT are quiet, BIFIUSDT for hours."""


def candidates_of(
    market: SimulatedMarket, name: MarketName, exchange_symbol: str
) -> list[CandleCandidate]:
    """The closed klines of a symbol, from the stream."""
    listed = market.instrument(exchange_symbol)
    price, quantity, quote = listed.format_price, listed.format_quantity, listed.format_quote
    klines = market.klines(
        exchange_symbol, "1m", to_us(START), to_us(END) - 1, view_us=to_us(END) - 1
    )
    return [
        CandleCandidate(
            Candle(
                symbol_of(name, exchange_symbol),
                one.open_time_us,
                *(Decimal(price(value)) for value in (one.open, one.high, one.low, one.close)),
                Decimal(quantity(one.volume)),
                Decimal(quote(one.quote_volume)),
                one.trade_count,
                Decimal(quantity(one.taker_buy_volume)),
                Decimal(quote(one.taker_buy_quote_volume)),
                *((one.first_id, one.last_id) if one.trade_count else (None, None)),
            ),
            Status.VERIFIED,
            Source.KLINE,
            evidence_at_us=one.open_time_us + MINUTE_US,
        )
        for one in klines
    ]


@pytest.fixture(scope="module")
def market_url(postgres: EmbeddedPostgres, _template: str) -> Iterator[str]:
    """A database with the simulated exchanges' data of these hours."""
    url = postgres.create_database("clean_market", template=_template)
    with connect(url, application_name="test") as connection:
        for name, symbols in NAMES.items():
            market = SimulatedMarket(
                select_instruments(name.value, symbols, seed=1),
                seed=1,
                start_us=to_us(START - timedelta(days=1)),
            )
            if name is MarketName.SPOT:
                change(market)
                record_outage(
                    connection, market=name, symbol="BTCUSDT", cause="halted",
                    start_us=to_us(HALTED[0]), end_us=to_us(HALTED[1]),
                )  # fmt: skip
            for symbol in symbols:
                listed = market.instrument(symbol)
                merge_candidates(connection, candidates_of(market, name, symbol))
                connection.execute(
                    "INSERT INTO market.instruments (symbol, listed_from, market, exchange_symbol,"
                    " base_asset, quote_asset, status, tick_size, step_size,"
                    " quote_volume_is_exact, seen_at)"
                    " VALUES (%s, '1970-01-01', %s, %s, 'A', 'B', 'TRADING', %s, %s, true, %s)",
                    (
                        symbol_of(name, symbol),
                        name.value,
                        symbol,
                        Decimal(listed.format_price(listed.tick)),
                        Decimal(listed.format_quantity(listed.step)),
                        END,
                    ),
                )
        connection.execute(
            "UPDATE market.instruments SET listed_to = %s, status = 'BREAK'"
            " WHERE symbol IN ('SHIBUSDT', 'PEPEUSDT')",
            (DELISTED,),
        )
        connection.execute(
            "INSERT INTO market.instruments SELECT symbol, %s, NULL, market, exchange_symbol,"
            " base_asset, quote_asset, 'TRADING', tick_size, step_size, filters,"
            " quote_volume_is_exact, seen_at FROM market.instruments"
            " WHERE symbol = 'PEPEUSDT'",
            (RELISTED,),
        )
    yield url
    postgres.drop_database("clean_market")


def change(market: SimulatedMarket) -> None:
    """Halt one symbol, delist another, and list a third again."""
    for symbol in ("SHIBUSDT", "PEPEUSDT"):
        history = market.history(symbol)
        history.change(history.calendar.delisted(to_us(DELISTED)), from_us=to_us(DELISTED))
    history = market.history("PEPEUSDT")
    history.change(history.calendar.relisted(to_us(RELISTED)), from_us=to_us(RELISTED))
    history = market.history("BTCUSDT")
    start_us, end_us = map(to_us, HALTED)
    history.change(history.calendar.halted(start_us, end_us), from_us=start_us)


def test_correct_market_has_no_failures(market_url: str) -> None:
    with connect(market_url, application_name="test") as connection:
        shape = dict(
            connection.execute(
                "SELECT symbol, count(*) FROM market.candles_1m GROUP BY symbol"
            ).fetchall()
        )
        silent = connection.execute(
            "SELECT count(*) FROM market.candles_1m WHERE trade_count = 0"
        ).fetchone()
    assert shape["ETHBTC"] == 240
    assert shape["BTCUSDT"] == 240 - 23
    assert shape["SHIBUSDT"] == 150
    assert shape["PEPEUSDT"] == 240 - 50
    assert silent is not None
    assert silent[0] > 100

    report = run_checks(market_url, run_id="all", scope=ScopeKind.ALL, end=END)
    assert broken(report) == {}
    assert report.candles == sum(shape.values())
    assert broken(run_checks(market_url, run_id="w", start=START + 90 * MINUTE, end=END)) == {}


def test_hourly_runs_find_no_failures(market_url: str) -> None:
    for hours in (1, 2, 3, 4):
        end = START + timedelta(hours=hours)
        report = run_checks(market_url, run_id=f"{hours}", scope=ScopeKind.CHANGED, end=end)
        assert broken(report) == {}


def test_unrecorded_halt_is_missing_minutes(market_url: str) -> None:
    with connect(market_url, application_name="test") as connection:
        connection.execute("DELETE FROM ops.outages")
    report = run_checks(market_url, run_id="halt", start=START, end=END)
    assert broken(report) == {"no_minute_is_missing": [("BTCUSDT", from_us(to_us(HALTED[0])))]}
