"""Bars of every timeframe equal the simulated exchange's own klines in nine values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from include.domain.timeframes import from_us, to_us
from simulator.market.instruments import select_instruments
from simulator.market.market import SimulatedMarket
from simulator.wire.payloads import kline_row
from tests.integration.dbt.conftest import BARS

START = datetime(2024, 12, 26, 7, 31, tzinfo=UTC)  # listed in the middle of every bar
NOW = datetime(2025, 1, 7, 9, 47, 20, tzinfo=UTC)
SYMBOLS = {"spot": "COSUSDT", "um": "KEEPUSDT"}  # quiet: many minutes without trades

Bars = dict[tuple[str, datetime], tuple[Any, ...]]


def klines(interval: str) -> Bars:
    """All klines of both markets as REST sends them: nine values and trade ids."""
    found: Bars = {}
    for name, symbol in SYMBOLS.items():
        instruments = select_instruments(name, (symbol,), seed=3)  # type: ignore[arg-type]
        market = SimulatedMarket(instruments, seed=3, start_us=to_us(START))
        ours = symbol if name == "spot" else f"{symbol}.P"
        for kline in market.klines(symbol, interval, view_us=to_us(NOW), limit=None):
            row = kline_row(instruments[0], kline, unit_us=1)
            ids = (kline.first_id, kline.last_id) if kline.trade_count else (None, None)
            found[ours, from_us(kline.open_time_us)] = (
                *(Decimal(row[number]) for number in (1, 2, 3, 4, 5, 7)),
                int(row[8]),
                Decimal(row[9]),
                Decimal(row[10]),
                *ids,
            )
    return found


@pytest.fixture(scope="module")
def built(shared_market: Any, shared_dbt: Any) -> Any:
    """Minutes of twelve days, across the end of a year; the last ten minutes are not built."""
    minutes = klines("1m")
    late = NOW - timedelta(minutes=10)
    store(shared_market, {key: row for key, row in minutes.items() if key[1] < late})
    shared_dbt("run", "--select", BARS)
    store(shared_market, {key: row for key, row in minutes.items() if key[1] >= late})
    return shared_market


def store(market: Any, rows: Bars) -> None:
    for month in {moment.replace(day=1, hour=0, minute=0) for _, moment in rows}:
        market.connection.execute(
            "SELECT ops.ensure_partition('market.candles_1m'::regclass, %s)", (month,)
        )
    with market.connection.cursor().copy(
        "COPY market.candles_1m (symbol, open_time, open, high, low, close, volume, quote_volume,"
        " trade_count, taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id,"
        " status, source, source_rank, evidence_at) FROM STDIN"
    ) as copy:
        for key, row in rows.items():
            copy.write_row((*key, *row, "verified", "rest", 80, NOW))


def test_live_bars_equal_the_exchange_up_to_the_running_one(built: Any, coarse: Any) -> None:
    for timeframe in coarse:
        live = built.bars(timeframe, suffix="_live")
        assert {key: bar[1:12] for key, bar in live.items()} == klines(timeframe.name)


def test_built_bars_equal_the_exchange(built: Any, shared_dbt: Any, coarse: Any) -> None:
    shared_dbt("run", "--select", BARS)
    empty = 0
    for timeframe in coarse:
        theirs = klines(timeframe.name)
        bars = built.bars(timeframe)
        assert {key: bar[1:12] for key, bar in bars.items()} == theirs, timeframe.name
        empty += sum(row[6] == 0 for row in theirs.values())
        for (_, open_time), bar in bars.items():
            minutes = (bar[0] - open_time).total_seconds() / 60
            assert bar[-1] == (bar[-2] == minutes)
    assert empty > 0  # includes bars without trades
