"""The registry contains the exchange's data of each listing, including filters."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import httpx
import psycopg
import pytest
from structlog.testing import capture_logs

from include.config import Settings
from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US, from_us
from include.jobs.instruments import sync_instruments
from include.store.candles.minutes import merge_candidates
from simulator.server import ExchangeThread


def test_filters_of_all_markets_are_stored_as_the_exchange_writes_them(
    settings: Settings, connection: psycopg.Connection, exchange: ExchangeThread
) -> None:
    counts = sync_instruments(settings=settings)
    assert counts.listed == {"spot": 4, "um": 1, "cm": 6}
    hosts = [
        ("spot", f"{exchange.spot_rest_url}/api/v3", ""),
        ("um", f"{exchange.um_rest_url}/fapi/v1", ".P"),
        ("cm", f"{exchange.cm_rest_url}/dapi/v1", ""),
    ]
    for market, url, suffix in hosts:
        answer = httpx.get(f"{url}/exchangeInfo", trust_env=False, timeout=30).raise_for_status()
        for told in answer.json()["symbols"]:
            row = connection.execute(
                "SELECT filters, tick_size, step_size, status FROM market.instruments"
                " WHERE symbol = %s AND market = %s",
                (told["symbol"] + suffix, market),
            ).fetchone()
            assert row is not None
            filters, tick, step, status = row
            assert filters == {
                each["filterType"]: {
                    name: value for name, value in each.items() if name != "filterType"
                }
                for each in told["filters"]
            }
            assert {"PRICE_FILTER", "LOT_SIZE"} < filters.keys()
            assert market == "cm" or any("NOTIONAL" in kind for kind in filters)
            assert tick == Decimal(filters["PRICE_FILTER"]["tickSize"])
            assert step == Decimal(filters["LOT_SIZE"]["stepSize"])
            assert status == told["contractStatus" if market == "cm" else "status"]


ONE = Decimal(1)


def streamed(symbol: str, open_us: int, first_id: int, *, count: int = 2) -> Candle:
    """A minute of some trades, from the stream."""
    candle = Candle(symbol, open_us, ONE, ONE, ONE, ONE, ONE, ONE, count, ONE, ONE)
    return replace(candle, first_trade_id=first_id, last_trade_id=first_id + count - 1)


def listings(connection: psycopg.Connection, symbol: str) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT listed_from, listed_to, status, filters <> '{}' FROM market.instruments"
        " WHERE symbol = %s ORDER BY listed_from",
        (symbol,),
    ).fetchall()


def test_spot_ticker_with_restarted_trade_ids_gets_a_new_listing(
    settings: Settings, connection: psycopg.Connection, exchange: ExchangeThread
) -> None:
    now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
    reused_us = now_us - 100 * MINUTE_US
    minutes = {  # symbol: first ids of minutes
        "COSUSDT": {-300: 900, -200: 902, -100: 0, -50: 2, -2: 4},
        "BTCUSDT": {-300: 900, -299: 902, -298: 904},  # continues
        "BIFIUSDT": {-300: 900, -299: 899, -298: 901},  # a clock that was set: one id in both
        "ETHUSDT.P": {-300: 900, -200: 100},  # USD-M lists it by itself
        "ETHBTC": {-4 * 1_440: 900, -100: 1},  # too long ago to be checked
    }
    merge_candidates(
        connection,
        [
            CandleCandidate(streamed(symbol, now_us + minute * MINUTE_US, first), Status.VERIFIED,
                  Source.KLINE, now_us)
            for symbol, ids in minutes.items() for minute, first in ids.items()
        ],
    )  # fmt: skip
    with capture_logs() as told:
        assert sync_instruments(settings=settings).ended == 1
    (event,) = [one for one in told if one["event"] == "tickers_reused"]
    assert event["symbols"] == ["COSUSDT"]
    begins = from_us(reused_us)
    former, later = listings(connection, "COSUSDT")
    assert former[1:] == (begins, "TRADING", True)
    assert later == (begins, None, "TRADING", True)
    for symbol in minutes.keys() - {"COSUSDT"}:
        assert len(listings(connection, symbol)) == 1
    assert sync_instruments(settings=settings).ended == 0
    assert listings(connection, "COSUSDT") == [former, later]
    found = connection.execute(
        "SELECT lower(m) FROM ops.candle_changes, unnest(minutes) AS m WHERE symbol = 'COSUSDT'"
    ).fetchall()
    assert (begins,) in found  # bars that contain both are rebuilt


def store(connection: psycopg.Connection, now_us: int, ids: dict[int, int | None]) -> None:
    """Store minutes of COSUSDT by REST.

    Args:
        ids: first trade id by minute before now; None without ids.
    """
    candidates = []
    for minute, first_id in ids.items():
        candle = streamed("COSUSDT", now_us + minute * MINUTE_US, first_id or 0)
        if first_id is None:
            candle = replace(candle, first_trade_id=None, last_trade_id=None)
        candidates.append(CandleCandidate(candle, Status.VERIFIED, Source.REST, now_us))
    merge_candidates(connection, candidates)


def test_new_listing_begins_with_its_first_minute_even_without_ids(
    settings: Settings, connection: psycopg.Connection, exchange: ExchangeThread
) -> None:
    now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
    store(connection, now_us, {-300: 900, -299: None, -150: None, -149: None, -148: 0, -20: 2})
    assert sync_instruments(settings=settings).ended == 1
    former, later = listings(connection, "COSUSDT")
    assert former[1] == later[0] == from_us(now_us - 150 * MINUTE_US)


def test_split_moves_when_earlier_minutes_of_the_later_listing_are_stored(
    settings: Settings, connection: psycopg.Connection, exchange: ExchangeThread
) -> None:
    now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
    store(connection, now_us, {-300: 900, -140: 8, -20: 10})
    assert sync_instruments(settings=settings).ended == 1
    former, later = listings(connection, "COSUSDT")
    assert former[1] == later[0] == from_us(now_us - 140 * MINUTE_US)
    connection.execute("DELETE FROM ops.candle_changes")
    store(connection, now_us, {-299: None, -150: None, -145: 2})  # repaired later
    with capture_logs() as told:
        assert sync_instruments(settings=settings).ended == 0  # no further listing
        assert sync_instruments(settings=settings).ended == 0
    assert [one["event"] for one in told].count("listings_moved") == 1
    former, later = listings(connection, "COSUSDT")
    assert former[1] == later[0] == from_us(now_us - 150 * MINUTE_US)
    changed = connection.execute(
        "SELECT lower(m) FROM ops.candle_changes, unnest(minutes) AS m WHERE symbol = 'COSUSDT'"
    ).fetchall()
    # bars that contain either are rebuilt
    assert {(from_us(now_us + minute * MINUTE_US),) for minute in (-150, -140)} <= set(changed)
    assert len(listings(connection, "COSUSDT")) == 2


@pytest.mark.parametrize("status", [Status.PARTIAL, Status.UNCONFIRMED])
def test_minutes_with_missing_trades_prove_no_new_listing(
    settings: Settings, connection: psycopg.Connection, exchange: ExchangeThread, status: Status
) -> None:
    now_us = exchange.clock.now_us() // MINUTE_US * MINUTE_US
    for minute, first, one in ((-300, 900, Status.UNCONFIRMED), (-200, 5, status)):
        merge_candidates(
            connection,
            [
                CandleCandidate(
                    streamed("COSUSDT", now_us + minute * MINUTE_US, first), one, Source.STREAM
                )
            ],
        )
    assert sync_instruments(settings=settings).ended == (status is Status.UNCONFIRMED)
