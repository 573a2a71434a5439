"""Bars that PostgreSQL formats as JSON equal the rows."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from include.domain.candles import Candle, CandleCandidate, Source, Status, silent_candle
from include.domain.timeframes import MINUTE_US, TIMEFRAMES, from_us
from include.store.candles.bar_texts import read_bar_texts, read_minutes_version
from include.store.candles.bars import StoredBar, read_bars
from include.store.candles.merging import Connection
from include.store.candles.minutes import merge_candidates
from include.store.postgres.pools import connect

T0 = 1_700_000_040_000_000
MINUTE = TIMEFRAMES["1m"]
NAMES = ("BTCUSDT", "币安人生USDT")
LIVE = """
INSERT INTO ops.live_candles_1 (
    symbol, open_time, open, high, low, close, volume, quote_volume, trade_count,
    taker_buy_volume, taker_buy_quote_volume, first_trade_id, last_trade_id, is_closed
) VALUES (%s, %s, 1.5, 2, 1, 1.50, 3, NULL, 2, 1, NULL, 7, 8, %s)
"""

CHANGES = (
    (0, "UPDATE market.candles_1m SET close = low WHERE symbol = %s AND open_time = %s"),
    (3, "UPDATE market.candles_1m SET evidence_at = now() WHERE symbol = %s AND open_time = %s"),
    (
        7,
        "UPDATE ops.live_candles_1 SET updated_at = now() WHERE symbol = %s AND open_time = %s",
    ),
    (6, "DELETE FROM ops.live_candles_1 WHERE symbol = %s AND open_time = %s"),
    (5, "DELETE FROM market.candles_1m WHERE symbol = %s AND open_time = %s"),
)


def candle(symbol: str, index: int) -> Candle:
    if index % 3 == 1:
        return silent_candle(symbol, T0 + index * MINUTE_US, Decimal("0.00001000"))
    price = Decimal(f"{index + 1}.10")
    return Candle(
        symbol, T0 + index * MINUTE_US, price, price + 1, price, price, Decimal("1E-8"),
        Decimal("0.10"), 1, Decimal(0), Decimal("0.0"), index, index + 4,
    )  # fmt: skip


def stored(connection: Connection) -> None:
    """Six minutes of each symbol that are settled, one that is over, and one that is open."""
    for symbol in NAMES:
        offers = [
            CandleCandidate(candle(symbol, index), Status.VERIFIED, Source.REST, evidence_at_us=T0)
            for index in range(4)
        ]
        offers.append(CandleCandidate(candle(symbol, 4), Status.UNCONFIRMED, Source.STREAM))
        offers.append(CandleCandidate(candle(symbol, 5), Status.PARTIAL, Source.STREAM))
        merge_candidates(connection, offers)
        for index, is_closed in ((6, True), (7, False)):
            connection.execute(LIVE, (symbol, from_us(T0 + index * MINUTE_US), is_closed))


def described(bar: StoredBar) -> dict[str, Any]:
    """A bar as the API's description has it."""
    one = bar.candle
    quotes = [one.quote_volume, one.taker_buy_quote_volume] if bar.has_quotes else [None, None]
    return {
        "symbol": one.symbol,
        "timeframe": "1m",
        "open_time": from_us(one.open_time_us).isoformat().replace("+00:00", "Z"),
        **{name: f"{getattr(one, name):f}" for name in ("open", "high", "low", "close", "volume")},
        "quote_volume": None if quotes[0] is None else f"{quotes[0]:f}",
        "trade_count": one.trade_count,
        "taker_buy_volume": f"{one.taker_buy_volume:f}",
        "taker_buy_quote_volume": None if quotes[1] is None else f"{quotes[1]:f}",
        "first_trade_id": one.first_trade_id,
        "last_trade_id": one.last_trade_id,
        "minute_count": bar.minute_count,
        "is_closed": bar.is_closed,
        "status": None if bar.status is None else bar.status.value,
        "source": None if bar.source is None else bar.source.value,
    }


@pytest.mark.parametrize("symbol", NAMES)
@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 7, 8, 9])
def test_texts_equal_the_rows(database_url: str, symbol: str, newest: bool, limit: int) -> None:
    with connect(database_url, application_name="test") as connection:
        stored(connection)
        for start_us, end_us in ((0, None), (T0 + 1, None), (0, T0 + 5 * MINUTE_US), (T0, T0)):
            rows = read_bars(
                connection, symbol, MINUTE, start_us, end_us,
                limit=limit if newest else limit + 1, newest=newest,
            )  # fmt: skip
            found = read_bar_texts(
                connection, symbol, MINUTE, start_us, end_us, limit=limit, newest=newest
            )
            assert found is not None
            assert json.loads(f"[{found.text}]") == [described(one) for one in rows[:limit]]
            assert found.count == len(rows[:limit])
            beyond = rows[limit].candle.open_time_us if len(rows) > limit else None
            assert found.next_open_us == beyond


def test_truncated_texts_name_where_to_continue(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        stored(connection)
        found = read_bar_texts(connection, NAMES[0], MINUTE, 0, None, limit=0)
    assert found is not None
    assert (found.text, found.count, found.next_open_us) == ("", 0, T0)


def test_bars_before_the_first_build_have_no_text(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        stored(connection)
        assert read_bar_texts(connection, NAMES[0], TIMEFRAMES["5m"], 0, None, limit=5) is None


def test_any_change_of_a_minute_changes_the_version(database_url: str) -> None:
    with connect(database_url, application_name="test") as connection:
        stored(connection)
        end_us = T0 + 8 * MINUTE_US

        def version(limit: int = 100) -> tuple[Any, ...]:
            return read_minutes_version(connection, NAMES[0], T0, end_us, limit=limit)

        before = version()
        assert version() == before
        for index, text in CHANGES:
            of_two = version(limit=2)
            connection.execute(text, (NAMES[0], from_us(T0 + index * MINUTE_US)))
            assert version() != before
            before = version()
            if index in (3, 5):  # stored beyond the third
                assert version(limit=2) == of_two
        of_two = version(limit=2)  # written immediately, like the new row
        connection.execute(
            "DELETE FROM market.candles_1m WHERE symbol = %s AND open_time = %s",
            (NAMES[0], from_us(T0 + MINUTE_US)),
        )
        assert version(limit=2) != of_two
        connection.execute(LIVE, (NAMES[0], from_us(T0 + 6 * MINUTE_US), True))
        assert version() != before
        assert read_minutes_version(connection, NAMES[1], end_us, end_us, limit=5) != before
