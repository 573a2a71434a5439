"""History of COIN-M and dated contracts, from dump files and REST, equals the exchange's rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import httpx
import psycopg
import pytest

from include.config import Settings
from include.domain.candles import Candle
from include.domain.timeframes import HOUR_US, MINUTE_US, from_us, to_us
from include.errors import RejectedInputError
from include.jobs.files.imports import import_file
from include.jobs.instruments import sync_instruments
from include.jobs.klines.backfill import backfill, load_rest_piece
from include.jobs.klines.pieces import RestPiece
from include.jobs.quality import check_rules
from include.store.candles.minutes import read_candles
from simulator.server import ExchangeThread

Oracle = Callable[[str, int, int], list[Candle]]
FIRST = to_us(datetime(2026, 11, 18, tzinfo=UTC))
LAST = to_us(datetime(2026, 11, 20, 5, 30, tzinfo=UTC))
RUNS = count()
PERPETUAL, DATED = "BTCUSD_PERP", "BTCUSD_261225"


def values(candles: list[Candle]) -> list[tuple[object, ...]]:
    return [(one.open_time_us, *one.values) for one in candles]


def test_backfilled_contracts_equal_the_exchange(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    symbols = ("btcusd_perp", "BTC/USD:BTC-261225")
    arguments = {
        "settings": settings,
        "symbols": symbols,
        "market": "spot",
        "start": FIRST,
        "end": LAST,
    }
    assert backfill(**arguments).failed == ()
    for symbol in (PERPETUAL, DATED):
        stored = read_candles(connection, symbol, FIRST, LAST)
        assert values(stored) == values(oracle(symbol, FIRST, LAST))
    sources = connection.execute(
        "SELECT source, count(*) FROM market.candles_1m GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert sources == [("dump_daily", 2 * 2 * 1440), ("rest", 2 * 330)]
    assert connection.execute("SELECT count(*) FROM ops.outages").fetchone() == (0,)
    assert backfill(**arguments).plan.missing_minutes == 0


def test_pages_of_coin_m_lack_no_minute(
    settings: Settings, connection: psycopg.Connection, oracle: Oracle
) -> None:
    start_us = LAST - 30 * HOUR_US
    piece = RestPiece(PERPETUAL, PERPETUAL, start_us, LAST, 30 * 60, "")
    counts = load_rest_piece(settings=settings, piece=piece)
    assert counts.rest_pages > 3
    stored = read_candles(connection, PERPETUAL, start_us, LAST)
    assert values(stored) == values(oracle(PERPETUAL, start_us, LAST))


def test_whole_history_of_a_contract_is_found_without_its_start(
    settings: Settings, connection: psycopg.Connection
) -> None:
    done = backfill(
        settings=settings,
        symbols=[PERPETUAL],
        market="cm",
        start=None,
        end=FIRST - 24 * HOUR_US + MINUTE_US,
    )
    assert done.failed == ()
    assert connection.execute("SELECT min(open_time) FROM market.candles_1m").fetchone() == (
        from_us(FIRST - 24 * HOUR_US),
    )


def downloaded(exchange: ExchangeThread, folder: Path, kind: str, name: str) -> Path:
    url = f"{exchange.dump_url}/data/futures/cm/daily/{kind}/{name}"
    answer = httpx.get(url, trust_env=False, timeout=60).raise_for_status()
    path = folder / name.rpartition("/")[2]
    path.write_bytes(answer.content)
    return path


def test_files_of_coin_m_are_imported(
    settings: Settings,
    connection: psycopg.Connection,
    oracle: Oracle,
    exchange: ExchangeThread,
    tmp_path: Path,
) -> None:
    name = f"{PERPETUAL}/1m/{PERPETUAL}-1m-2026-11-18.zip"
    path = downloaded(exchange, tmp_path, "klines", name)
    import_file(settings=settings, path=path, market="cm")
    end_us = FIRST + 24 * HOUR_US
    stored = read_candles(connection, PERPETUAL, FIRST, end_us)
    assert values(stored) == values(oracle(PERPETUAL, FIRST, end_us))
    name = f"{PERPETUAL}/{PERPETUAL}-aggTrades-2026-11-18.zip"
    trades = downloaded(exchange, tmp_path, "aggTrades", name)
    with pytest.raises(RejectedInputError, match="import its klines or trades"):
        import_file(settings=settings, path=trades)


def test_quality_rules_know_inverse_contracts(
    settings: Settings, connection: psycopg.Connection
) -> None:
    sync_instruments(settings=settings)
    backfill(
        settings=settings, symbols=[PERPETUAL], market="cm", start=LAST - 5 * HOUR_US, end=LAST
    )

    def broken() -> set[str]:
        report = check_rules(settings=settings, run_id=f"test-{next(RUNS)}", scope="all")
        return {one.name for one in report.failures}

    assert broken() <= {"freshness"}, broken()
    connection.execute(
        "UPDATE market.candles_1m SET quote_volume = quote_volume * 2 WHERE trade_count > 0"
    )
    assert "quote_volume_fits_the_prices" in broken()
