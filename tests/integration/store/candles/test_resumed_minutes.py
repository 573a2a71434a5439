from __future__ import annotations

import time
from decimal import Decimal

from include.domain.candles import Candle, CandleCandidate, Source, Status
from include.domain.timeframes import MINUTE_US, SECOND_US
from include.store.candles.minutes import merge_candidates
from include.store.candles.resumed_minutes import MinutesRequest, read_minutes_since
from include.store.postgres.pools import connect

T0 = 1_700_000_040_000_000
ONE = Decimal(1)


def candidate(symbol: str, index: int, close: int = 1) -> CandleCandidate:
    price = Decimal(close)
    candle = Candle(
        symbol, T0 + index * MINUTE_US, ONE, price, ONE, price, ONE, ONE, 1, ONE, ONE, 7, 8
    )
    return CandleCandidate(candle, Status.VERIFIED, Source.KLINE, T0 + (index + close) * MINUTE_US)


def now_us() -> int:
    return time.time_ns() // 1_000


def test_minutes_from_a_time_and_earlier_ones_updated_since_are_read(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        merge_candidates(
            connection, [candidate(name, n) for name in ("A", "B.P") for n in range(10)]
        )
        connection.execute("UPDATE market.candles_1m SET updated_at = now() - interval '1 hour'")
        merge_candidates(connection, [candidate("A", 2, close=2), candidate("A", 0, close=2)])
        since_us = now_us() - 600 * SECOND_US
        asked = {
            "A": MinutesRequest(T0 + 7 * MINUTE_US, since_us),
            "B.P": MinutesRequest(T0 + 9 * MINUTE_US, since_us),
            "NONE": MinutesRequest(T0, since_us),
        }
        found = read_minutes_since(connection, asked, first_us=T0 + MINUTE_US)
        assert [
            (one.candle.symbol, (one.candle.open_time_us - T0) // MINUTE_US) for one in found
        ] == [("A", 2), ("A", 7), ("A", 8), ("A", 9), ("B.P", 9)]
        first = found[0]
        assert (first.candle, first.status, first.source) == (
            candidate("A", 2, close=2).candle, Status.VERIFIED, Source.KLINE,
        )  # fmt: skip
        assert read_minutes_since(connection, {}, first_us=T0) == []
