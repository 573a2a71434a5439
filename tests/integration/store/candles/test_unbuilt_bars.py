"""Bars of several minutes while there are no marts."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status, silent_candle
from include.domain.rollup import roll_up
from include.domain.timeframes import DAY_US, MINUTE_US, TIMEFRAMES, Timeframe, from_us, to_us
from include.errors import PermanentError
from include.store.candles.bars import read_bars
from include.store.candles.merging import Connection
from include.store.candles.minutes import merge_candidates
from include.store.candles.unbuilt_bars import read_unbuilt_bars
from include.store.postgres.pools import connect

START = 1_700_000_000_000_000 // DAY_US * DAY_US + 7 * MINUTE_US
COARSE = [one for one in TIMEFRAMES.values() if one.parent]


def minute(open_time_us: int, rng: random.Random) -> Candle:
    if rng.random() < 0.3:
        return silent_candle("BTCUSDT", open_time_us, Decimal(rng.randint(1, 9)))
    prices = [Decimal(rng.randint(900, 1100)) / 100 for _ in range(4)]
    volume = Decimal(rng.randint(1, 10**6)) / 10**8
    return Candle(
        "BTCUSDT", open_time_us, prices[0], max(prices), min(prices), prices[-1], volume, volume,
        2, volume, volume, open_time_us, open_time_us + 1,
    )  # fmt: skip


def stored(connection: Connection, *, days: int = 75, count: int = 1_500) -> list[Candle]:
    """Minutes here and there, with a gap of a fortnight."""
    rng = random.Random(11)
    places = sorted(rng.sample(range(days * 1_440), count))
    opens = [START + place * MINUTE_US for place in places if not 20 < place / 1_440 < 34]
    rows = [minute(one, rng) for one in opens]
    merge_candidates(
        connection,
        [
            CandleCandidate(row, Status.VERIFIED, Source.REST, evidence_at_us=opens[-1])
            for row in rows
        ],
    )
    return rows


def in_pieces(connection: Connection, timeframe: Timeframe, *, newest: bool) -> list[int]:
    rows = read_unbuilt_bars(
        connection, "BTCUSDT", timeframe, START + DAY_US, None,
        limit=5_000, newest=newest, minutes_at_once=2_000,
    )  # fmt: skip
    return [to_us(row[1]) for row in rows]


def test_bars_are_the_roll_up_of_the_minutes_at_every_timeframe(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        minutes = stored(connection)
        for timeframe in COARSE:
            expected = roll_up(minutes, timeframe)
            found = read_bars(connection, "BTCUSDT", timeframe, 0, None, limit=5_000, newest=True)
            assert [one.candle for one in found] == expected, timeframe.name
            assert sum(one.minute_count for one in found) == len(minutes)
            opens = [one.open_time_us for one in expected]
            for newest in (True, False):
                later = [one for one in opens if one >= START + DAY_US]
                assert (
                    in_pieces(connection, timeframe, newest=newest) == later[:: -1 if newest else 1]
                ), (timeframe.name, newest)


def test_page_has_the_bars_next_to_its_edge(database_url: str) -> None:
    five = TIMEFRAMES["5m"]
    with connect(database_url, application_name="test") as connection:
        opens = [one.open_time_us for one in roll_up(stored(connection), five)]
        edge = opens[200]
        before = read_bars(connection, "BTCUSDT", five, 0, edge, limit=7, newest=True)
        after = read_bars(connection, "BTCUSDT", five, edge, None, limit=7)
        within = read_bars(connection, "BTCUSDT", five, edge + 1, opens[203] + 1, limit=7)
        nothing = read_bars(connection, "BTCUSDT", five, 0, opens[0], limit=7, newest=True)
        long_ago = read_bars(connection, "BTCUSDT", TIMEFRAMES["1M"], -(10**15), -5, limit=7)
        unknown = read_bars(connection, "NONE", five, 0, None, limit=7)
    assert [one.candle.open_time_us for one in before] == opens[193:200]
    assert [one.candle.open_time_us for one in after] == opens[200:207]
    assert [one.candle.open_time_us for one in within] == opens[201:204]
    assert nothing == long_ago == unknown == []


def test_newest_bar_closes_with_its_last_minute(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        rng = random.Random(3)
        bar_us = START // DAY_US * DAY_US
        rows = [minute(bar_us + place * MINUTE_US, rng) for place in range(8)]
        for row in rows:
            merge_candidates(
                connection,
                [
                    CandleCandidate(
                        row, Status.VERIFIED, Source.REST, evidence_at_us=row.open_time_us
                    )
                ],
            )
        found = read_bars(connection, "BTCUSDT", TIMEFRAMES["3m"], 0, None, limit=9)
        assert [one.is_closed for one in found] == [True, True, False]
        connection.execute(
            "INSERT INTO ops.live_candles_1 (symbol, open_time, open, high, low, close, volume,"
            " trade_count, taker_buy_volume, is_closed)"
            " VALUES ('BTCUSDT', %s, 9, 9.5, 8, 9.25, 1, 2, 1, false)",
            (from_us(bar_us + 8 * MINUTE_US),),
        )
        found = read_bars(connection, "BTCUSDT", TIMEFRAMES["3m"], 0, None, limit=9)
        assert [one.is_closed for one in found] == [True, True, False]
        assert [one.has_quotes for one in found] == [True, True, False]
        assert found[2].candle.close == Decimal("9.25")
        connection.execute("UPDATE ops.live_candles_1 SET is_closed = true")
        found = read_bars(connection, "BTCUSDT", TIMEFRAMES["3m"], 0, None, limit=9)
        assert [one.is_closed for one in found] == [True, True, True]


def test_bars_begin_with_the_newest_listing_of_a_ticker(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        minutes = stored(connection)
        since_us = START + 50 * DAY_US + 2 * MINUTE_US
        for listed_from, listed_to in ((0, since_us), (since_us, None)):
            connection.execute(
                "INSERT INTO market.instruments (symbol, listed_from, listed_to, market,"
                " exchange_symbol, base_asset, quote_asset, status, tick_size, step_size,"
                " quote_volume_is_exact, seen_at) VALUES ('BTCUSDT', %s, %s, 'spot', 'BTCUSDT',"
                " 'BTC', 'USDT', 'TRADING', 1, 1, true, %s)",
                (
                    from_us(listed_from),
                    None if listed_to is None else from_us(listed_to),
                    from_us(since_us),
                ),
            )
        later = [one for one in minutes if one.open_time_us >= since_us]
        for name in ("1h", "1w"):
            found = read_bars(connection, "BTCUSDT", TIMEFRAMES[name], 0, None, limit=5_000)
            assert [one.candle for one in found] == roll_up(later, TIMEFRAMES[name])


def test_answer_is_bounded(database_url: str) -> None:
    hour = TIMEFRAMES["1h"]
    with connect(database_url, application_name="test") as connection:
        stored(connection)
        bound = {"limit": 5_000, "minutes_at_once": 1_000, "max_minutes": 3_000}
        newest = read_unbuilt_bars(connection, "BTCUSDT", hour, 0, None, newest=True, **bound)
        assert 0 < len(newest) <= 3_060 / 60
        with pytest.raises(PermanentError, match="build_marts"):
            read_unbuilt_bars(connection, "BTCUSDT", hour, 0, None, newest=False, **bound)
