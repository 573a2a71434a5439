"""Listings: what the exchange showed, from when to when."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from include.domain.instruments import Instrument, Market
from include.domain.timeframes import DAY_US, MINUTE_US, from_us
from include.errors import PermanentError
from include.store.candles.merging import merge_candidates
from include.store.instruments import (
    pairs_to_settle,
    read_instruments,
    read_listings,
    symbols_not_trading,
    write_instruments,
    write_settlement_prices,
)
from tests.unit.store.candidates import NOVEMBER_END_US, candidate, candle

Connection = psycopg.Connection[Any]

NOW = NOVEMBER_END_US


def spot(symbol: str = "BTCUSDT") -> Instrument:
    return Instrument(
        symbol,
        Market.SPOT,
        symbol.removesuffix("USDT"),
        "USDT",
        "TRADING",
        Decimal("0.01"),
        Decimal("0.00001"),
    )


def um(listed_at_us: int, symbol: str = "BTCUSDT.P") -> Instrument:
    return replace(spot(symbol), market=Market.UM, base_asset="BTC", listed_at_us=listed_at_us)


def spans(connection: Connection, symbol: str) -> list[tuple[int, int | None]]:
    return [
        (each.listed_from_us, each.listed_to_us)
        for each in read_listings(connection, symbols=[symbol])
    ]


def test_instruments_are_read_as_written(connection: Connection) -> None:
    terms = {"NOTIONAL": {"minNotional": "5.00000000", "applyMinToMarket": True}}
    of = [replace(spot(), filters=terms), spot("ETHUSDT"), um(5 * DAY_US)]

    assert write_instruments(connection, of, NOW) == 0
    # a source that did not request them leaves them unchanged
    assert write_instruments(connection, [spot()], NOW + 1) == 0

    assert read_instruments(connection) == sorted(of, key=lambda each: each.symbol)
    assert read_instruments(connection, market=Market.UM) == [of[2]]
    assert read_instruments(connection, symbols=["ETHUSDT", "NONE"]) == [of[1]]
    filters = connection.execute(
        "SELECT filters FROM market.instruments WHERE symbol = 'BTCUSDT'"
    ).fetchone()
    assert filters == (terms,)
    assert write_instruments(connection, [replace(spot(), filters={"LOT_SIZE": {}})], NOW + 2) == 0
    assert connection.execute(
        "SELECT filters FROM market.instruments WHERE symbol = 'BTCUSDT'"
    ).fetchone() == ({"LOT_SIZE": {}},)


def test_changes_are_stored_unless_the_answer_is_older(connection: Connection) -> None:
    write_instruments(connection, [spot()], NOW)
    write_instruments(connection, [replace(spot(), status="BREAK")], NOW + 1)
    write_instruments(connection, [replace(spot(), status="HALT")], NOW - 1)

    assert [each.status for each in read_instruments(connection)] == ["BREAK"]
    assert spans(connection, "BTCUSDT") == [(0, None)]


def test_listing_ends_when_the_exchange_stops_showing_it(connection: Connection) -> None:
    of = [spot(), spot("ETHUSDT"), spot("LUNAUSDT"), um(DAY_US)]
    write_instruments(connection, of, NOW)

    partly = write_instruments(connection, of[:1], NOW + 1)
    wholly = write_instruments(connection, of[:2], NOW + 2, whole_market=Market.SPOT)

    assert (partly, wholly) == (0, 1)
    assert spans(connection, "LUNAUSDT") == [(0, NOW + 2)]
    assert [each.symbol for each in read_instruments(connection)] == [
        "BTCUSDT",
        "BTCUSDT.P",
        "ETHUSDT",
    ]


def test_symbols_that_do_not_trade_are_halted_or_delisted(connection: Connection) -> None:
    of = [spot(), spot("ETHUSDT"), spot("LUNAUSDT")]
    write_instruments(connection, of, NOW)
    assert symbols_not_trading(connection) == []
    halted = replace(of[1], status="BREAK")
    write_instruments(connection, [of[0], halted], NOW + MINUTE_US, whole_market=Market.SPOT)
    assert symbols_not_trading(connection) == ["ETHUSDT", "LUNAUSDT"]
    write_instruments(connection, of, NOW + DAY_US)  # one resumes, one ticker is reused
    assert symbols_not_trading(connection) == []


def test_reused_ticker_is_a_new_listing(connection: Connection) -> None:
    both = [spot(), spot("LUNAUSDT")]
    write_instruments(connection, both, NOW)
    write_instruments(connection, both[:1], NOW + 1, whole_market=Market.SPOT)
    write_instruments(connection, both, NOW + 5, whole_market=Market.SPOT)

    assert spans(connection, "LUNAUSDT") == [(0, NOW + 1), (NOW + 5, None)]


def test_later_start_of_trading_is_a_new_listing(connection: Connection) -> None:
    write_instruments(connection, [um(DAY_US)], NOW)

    ended = write_instruments(connection, [um(9 * DAY_US)], NOW + 1)

    assert ended == 1
    assert spans(connection, "BTCUSDT.P") == [(DAY_US, 9 * DAY_US), (9 * DAY_US, None)]


def test_listing_absent_for_a_short_time_continues(connection: Connection) -> None:
    both = [um(DAY_US), um(DAY_US, "ETHUSDT.P")]
    write_instruments(connection, both, NOW)
    write_instruments(connection, both[:1], NOW + 1, whole_market=Market.UM)
    write_instruments(connection, both, NOW + 2, whole_market=Market.UM)

    assert spans(connection, "ETHUSDT.P") == [(DAY_US, None)]


def test_answer_without_most_symbols_ends_no_listing(connection: Connection) -> None:
    of = [spot(f"S{n}USDT") for n in range(10)]
    write_instruments(connection, of, NOW)

    with pytest.raises(PermanentError, match="shows 4 of 10"):
        write_instruments(
            connection,
            [replace(each, status="HALT") for each in of[:4]],
            NOW + 1,
            whole_market=Market.SPOT,
        )

    assert {each.status for each in read_instruments(connection)} == {"TRADING"}
    assert len(read_instruments(connection)) == 10


def changes(connection: Connection) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT symbol, minutes::text FROM ops.candle_changes").fetchall()
    connection.execute("DELETE FROM ops.candle_changes")
    return rows


def test_relisting_logs_the_first_minute_of_the_later_listing(connection: Connection) -> None:
    ended, again = NOW - 2 * DAY_US, NOW - DAY_US
    symbol = "LUNAUSDT.P"
    minutes_us = (ended - MINUTE_US, again, again + MINUTE_US)
    merge_candidates(connection, [candidate(of=candle(symbol, at_us)) for at_us in minutes_us])
    write_instruments(connection, [um(0 + DAY_US, symbol)], ended - DAY_US)
    changes(connection)

    write_instruments(connection, [um(DAY_US, symbol)], ended)
    assert changes(connection) == []  # seen again, and nothing else
    write_instruments(connection, [um(again, symbol)], NOW)

    ((marked, minutes),) = set(changes(connection))
    first = from_us(again)
    assert marked == symbol
    assert f"{first:%Y-%m-%d %H:%M}" in minutes
    assert minutes.count("[") == 1


def dated(symbol: str, delivers_at_us: int) -> Instrument:
    return replace(
        spot(symbol),
        market=Market.CM,
        base_asset="BTC",
        quote_asset="USD",
        listed_at_us=5 * DAY_US,
        contract_type="CURRENT_QUARTER",
        contract_size=Decimal(100),
        margin_asset="BTC",
        pair="BTCUSD",
        delivers_at_us=delivers_at_us,
    )


def test_terms_of_contracts_are_read_as_written(connection: Connection) -> None:
    of = [dated("BTCUSD_271126", NOW + DAY_US), replace(um(DAY_US), pair="BTCUSDT")]
    write_instruments(connection, of, NOW)
    assert read_instruments(connection) == sorted(of, key=lambda each: each.symbol)


def test_coin_m_contract_needs_a_size(connection: Connection) -> None:
    with pytest.raises(PermanentError, match="instruments_contracts_have_a_size"):
        write_instruments(
            connection, [replace(dated("BTCUSD_271126", NOW), contract_size=None)], NOW
        )


@pytest.mark.parametrize("is_shown", [True, False])
def test_listing_of_a_delivered_contract_ends_at_its_delivery(
    connection: Connection, *, is_shown: bool
) -> None:
    delivery_us = NOW + DAY_US
    one, other = dated("BTCUSD_271126", delivery_us), dated("BTCUSD_PERP", delivery_us * 2)
    later_us = delivery_us + 3 * MINUTE_US
    write_instruments(connection, [one, other], NOW, whole_market=Market.CM)
    shown = [replace(one, status="DELIVERED")] if is_shown else []
    for at_us in (later_us, later_us + DAY_US):
        ended = write_instruments(connection, [other, *shown], at_us, whole_market=Market.CM)
        assert ended == (at_us == later_us)
        assert spans(connection, "BTCUSD_271126") == [(5 * DAY_US, delivery_us)]
    assert spans(connection, "BTCUSD_PERP") == [(5 * DAY_US, None)]


def test_refused_instrument_of_an_answer_stays_listed(connection: Connection) -> None:
    one, other = dated("BTCUSD_PERP", NOW * 2), dated("ETHUSD_PERP", NOW * 2)
    write_instruments(connection, [one, other], NOW, whole_market=Market.CM)
    write_instruments(connection, [one], NOW + 1, whole_market=Market.CM, refused=["ETHUSD_PERP"])
    assert spans(connection, "ETHUSD_PERP") == [(5 * DAY_US, None)]


def test_settlement_price_is_written_once(connection: Connection) -> None:
    delivery_us = NOW - DAY_US
    one = dated("BTCUSD_271126", delivery_us)
    write_instruments(connection, [one, dated("BTCUSD_271231", NOW + DAY_US)], NOW)
    assert pairs_to_settle(connection, Market.CM, NOW) == ["BTCUSD"]
    assert write_settlement_prices(connection, Market.CM, "BTCUSD", {}) == 0
    prices = {delivery_us: Decimal("27103.5"), 0: Decimal(1)}
    assert write_settlement_prices(connection, Market.CM, "BTCUSD", prices) == 1
    assert write_settlement_prices(connection, Market.CM, "BTCUSD", {delivery_us: Decimal(9)}) == 0
    assert [each.settlement_price for each in read_listings(connection)] == [
        Decimal("27103.5"),
        None,
    ]
    assert pairs_to_settle(connection, Market.CM, NOW) == []
