"""Bars read for serving."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

from include.domain.candles import Candle, CandleCandidate, Source, Status, silent_candle
from include.domain.live_bars import DAY, HOUR, reach_of
from include.domain.rollup import roll_up
from include.domain.timeframes import DAY_US, HOUR_US, MINUTE_US, TIMEFRAMES, from_us
from include.store.candles.bars import read_bars, read_parts
from include.store.candles.merging import Connection
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

NEWEST = DAY.open_time_us(1_700_000_000_000_000) + 3 * HOUR_US + 17 * MINUTE_US


def minute(open_time_us: int, rng: random.Random) -> Candle:
    if rng.random() < 0.3:
        return silent_candle("BTCUSDT", open_time_us, Decimal(rng.randint(1, 9)))
    prices = [Decimal(rng.randint(900, 1100)) / 100 for _ in range(4)]
    volume = Decimal(rng.randint(1, 10**6)) / 10**8
    return Candle(
        "BTCUSDT", open_time_us, prices[0], max(prices), min(prices), prices[-1], volume, volume,
        2, volume, volume, open_time_us, open_time_us + 1,
    )  # fmt: skip


def candidate(candle: Candle) -> CandleCandidate:
    return CandleCandidate(candle, Status.VERIFIED, Source.REST, evidence_at_us=NEWEST)


def stored(connection: Connection, *opens: int) -> list[Candle]:
    rng = random.Random(5)
    found = [minute(one, rng) for one in opens]
    merge_candidates(connection, [candidate(one) for one in found])
    return found


def test_parts_equal_the_roll_up_of_stored_minutes(database_url: str) -> None:
    rng = random.Random(7)
    reach = reach_of(NEWEST)
    opens = [
        one
        for one in range(reach.days_from_us - HOUR_US, NEWEST + MINUTE_US, MINUTE_US)
        if rng.random() < (0.02 if one < reach.hours_from_us else 0.5)
    ]
    with connect(database_url, application_name="test") as connection:
        rows = stored(connection, *opens)
        minutes, hours, days = read_parts(connection, "BTCUSDT", NEWEST)
    assert minutes == [one for one in rows if one.open_time_us >= reach.minutes_from_us]
    for parts, timeframe, start_us, end_us in (
        (hours, HOUR, reach.hours_from_us, reach.minutes_from_us),
        (days, DAY, reach.days_from_us, reach.hours_from_us),
    ):
        within = [one for one in rows if start_us <= one.open_time_us < end_us]
        assert [part.candle for part in parts] == roll_up(within, timeframe)
        assert sum(part.minute_count for part in parts) == len(within)


def test_parts_begin_with_the_newest_listing_of_a_ticker(database_url: str) -> None:
    reach = reach_of(NEWEST)
    day, hour = reach.days_from_us + 3 * DAY_US, reach.hours_from_us + 4 * HOUR_US
    opens = [day, day + 5 * MINUTE_US, hour, hour + 30 * MINUTE_US, NEWEST - MINUTE_US, NEWEST]

    def read(connection: Connection, listed_us: int) -> list[int]:
        connection.execute("DELETE FROM market.instruments")
        since = from_us(listed_us)
        for listed_from, listed_to in ((from_us(0), since), (since, None)):
            connection.execute(
                "INSERT INTO market.instruments (symbol, listed_from, listed_to, market,"
                " exchange_symbol, base_asset, quote_asset, status, tick_size, step_size,"
                " quote_volume_is_exact, seen_at) VALUES ('BTCUSDT', %s, %s, 'spot', 'BTCUSDT',"
                " 'BTC', 'USDT', 'TRADING', 1, 1, true, %s)",
                (listed_from, listed_to, since),
            )
        minutes, hours, days = read_parts(connection, "BTCUSDT", NEWEST)
        return [*(one.minute_count for one in (*days, *hours)), len(minutes)]

    with connect(database_url, application_name="test") as connection:
        stored(connection, *opens)
        assert sum(read(connection, day)) == len(opens)
        assert read(connection, day + MINUTE_US)[0] == 1
        assert sum(read(connection, hour + MINUTE_US)) == 3
        assert sum(read(connection, NEWEST)) == 1
        # a caller that has seen it before the exchange's list was read
        assert sum(read(connection, day)) == len(opens)
        found = read_parts(connection, "BTCUSDT", NEWEST, since_us=hour + MINUTE_US)
        assert [len(parts) for parts in found] == [2, 1, 0]


def test_silent_minutes_give_a_flat_bar_without_ids(database_url: str) -> None:
    hour = HOUR.open_time_us(NEWEST) - 5 * HOUR_US
    silent = [silent_candle("BTCUSDT", hour + i * MINUTE_US, Decimal(7)) for i in range(3)]
    with connect(database_url, application_name="test") as connection:
        merge_candidates(connection, [candidate(one) for one in silent])
        _, hours, _ = read_parts(connection, "BTCUSDT", NEWEST)
    assert [part.candle for part in hours] == [silent_candle("BTCUSDT", hour, Decimal(7))]


def test_minutes_have_status_and_source_and_are_ordered(database_url: str) -> None:
    opens = [NEWEST - index * MINUTE_US for index in range(5)]
    with connect(database_url, application_name="test") as connection:
        rows = {one.open_time_us: one for one in stored(connection, *opens)}
        found = read_bars(
            connection, "BTCUSDT", TIMEFRAMES["1m"], NEWEST - 3 * MINUTE_US, NEWEST, limit=2
        )
        newest = read_bars(connection, "BTCUSDT", TIMEFRAMES["1m"], 0, None, limit=2, newest=True)
    assert [one.candle for one in found] == [
        rows[NEWEST - 3 * MINUTE_US], rows[NEWEST - 2 * MINUTE_US],
    ]  # fmt: skip
    assert [one.candle for one in newest] == [rows[NEWEST - MINUTE_US], rows[NEWEST]]
    assert {(one.status, one.source, one.is_closed) for one in found} == {
        (Status.VERIFIED, Source.REST, True)
    }


def test_open_minute_is_the_last_and_not_closed(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        (row,) = stored(connection, NEWEST - MINUTE_US)
        connection.execute(
            "INSERT INTO ops.live_candles_1 (symbol, open_time, open, high, low, close, volume,"
            " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume,"
            " first_trade_id, last_trade_id, is_closed)"
            " SELECT symbol, open_time + interval '1 minute', open, high, low, close, volume,"
            " quote_volume, trade_count, taker_buy_volume, taker_buy_quote_volume, 1, 2, false"
            " FROM market.candles_1m"
        )
        found = read_bars(connection, "BTCUSDT", TIMEFRAMES["1m"], 0, None, limit=10)
    assert [one.is_closed for one in found] == [True, False]
    assert found[1].status is None
    assert found[1].candle == replace(row, open_time_us=NEWEST, first_trade_id=1, last_trade_id=2)
