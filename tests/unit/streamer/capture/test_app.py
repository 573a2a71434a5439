"""The loss of a disconnect has the rows' clock; missing ids outlive a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from include.binance.streams.messages import Trade
from include.config import load_settings
from include.domain.instruments import Market
from include.domain.timeframes import SECOND_US
from streamer.capture.app import CUT, Capture
from streamer.capture.repair.stored_rows_check import LOST, Behind
from streamer.capture.spool.checkpoint import MARGIN_US, MissingIds
from streamer.capture.spool.losses import Loss

TRADED_US = 1_763_716_800_000_000
TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1763716800000,"s":"BTCUSDT","t":5,'
    b'"p":"2.5","q":"0.1","T":1763716800000,"m":true,"X":"MARKET"}}'
)
BOOK_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":7,"s":"BTCUSDT","b":"1","B":"2",'
    b'"a":"3","A":"4","T":1763716800000,"E":1763716800000}}'
)


@pytest.fixture
def moments() -> list[int]:
    """The wall clock: frames arrive two seconds late."""
    return [TRADED_US + 2 * SECOND_US]


def capturing(home: Path, moments: list[int]) -> Capture:
    settings = load_settings(
        database_url="postgresql://nobody@127.0.0.1:1/none", candelabra_home=home
    )
    return Capture(
        settings, ("trades", "book_tickers"), trade_stream="aggTrade", traded_us=lambda _: 0,
        now_us=lambda: moments[-1],
    )  # fmt: skip


@pytest.fixture
def capture(tmp_path: Path, moments: list[int]) -> Iterator[Capture]:
    one = capturing(tmp_path, moments)
    yield one
    asyncio.run(one.stop(1.0))


def test_disconnect_loses_trades_from_before_it_and_book_tickers_from_it_on(
    capture: Capture, moments: list[int]
) -> None:
    capture.add(["BTCUSDT.P"])
    (feed,) = capture.feeds
    session = feed.connection.session
    session.next_message(0.0)
    feed.on_texts([b'{"result":null,"id":1}', TRADE, BOOK_TICKER])
    feed._closed()
    moments.append(moments[-1] + SECOND_US)
    feed.on_texts([BOOK_TICKER.replace(b'"u":7', b'"u":8')])
    assert capture.report()["capture_losses"] == 2  # though their rows cannot be counted
    assert sorted(
        (gap.dataset, gap.from_us - TRADED_US, gap.to_us - TRADED_US)
        for gap in capture.losses.take()
        if gap.cause == CUT
    ) == [("book_tickers", 2 * SECOND_US, 3 * SECOND_US), ("trades", 0, 3 * SECOND_US)]


def trade(number: int) -> Trade:
    at_us = TRADED_US + number
    return Trade(at_us, "BTCUSDT", number, Decimal(1), Decimal(1), at_us, True)


def test_waiting_missing_ids_survive_a_restart(tmp_path: Path, moments: list[int]) -> None:
    one = capturing(tmp_path, moments)
    assert one._whole() is None  # nothing was read yet
    one.begin([], exchange_us=TRADED_US + SECOND_US)
    for number in (1, 5):
        one.intake.on_trade(Market.SPOT, trade(number))
    known = one._whole()
    assert known is not None
    assert known.until_us == TRADED_US + 1 - MARGIN_US  # a row of then has yet to be written
    missing_range = MissingIds("trades", "BTCUSDT", 2, 4, TRADED_US + 1, TRADED_US + 5)
    assert known.missing == [missing_range]
    asyncio.run(one.whole.save())
    asyncio.run(one.stop(1.0))  # which is worth less: PostgreSQL is away
    again = capturing(tmp_path, moments)
    again.begin([], exchange_us=TRADED_US + SECOND_US)
    assert again._resumption._complete_until_us == known.until_us
    known = again._whole()
    assert known is not None
    assert known.missing == [missing_range]
    assert known.until_us >= TRADED_US + SECOND_US - MARGIN_US
    asyncio.run(again.stop(1.0))


def test_checkpoint_waits_for_unsaved_losses_and_unchecked_rows(
    capture: Capture,
) -> None:
    capture.begin([], exchange_us=TRADED_US)
    assert capture._whole() is not None
    capture.losses.add([Loss("trades", "BTCUSDT", CUT, 1, 2)])
    assert capture._whole() is None
    capture.losses.save()
    assert capture._whole() is not None
    capture.add(["BTCUSDT"])
    capture.losses.save()
    assert capture._whole() is None


def test_rows_lost_by_postgresql_are_requested_or_recorded_and_all_rechecked(
    capture: Capture,
) -> None:
    capture.begin([], exchange_us=TRADED_US)
    for number in (7, 8, 9):
        capture.intake.on_trade(Market.SPOT, trade(number))
    stored = (7, TRADED_US + 7)
    capture._gone(
        [
            Behind("trades", "BTCUSDT", 9, TRADED_US + 9, stored),
            Behind("trades", "BTCUSDT.P", 9, TRADED_US + 9, stored),
            Behind("book_tickers", "ETHUSDT", 9, TRADED_US + 9, None),
        ]
    )
    (missing_range,) = capture.intake.sequence("trades", "BTCUSDT").missing_ranges
    assert (missing_range.first_id, missing_range.last_id, missing_range.from_us) == (
        8,
        9,
        TRADED_US + 7,
    )
    assert sorted(
        (gap.dataset, gap.symbol, gap.from_us - TRADED_US, gap.to_us - TRADED_US)
        for gap in capture.losses.take()
        if gap.cause == LOST
    ) == [("book_tickers", "ETHUSDT", 9, 9), ("trades", "BTCUSDT.P", 7, 9)]


def test_lost_rows_cause_a_check_of_all_rows(capture: Capture, moments: list[int]) -> None:
    capture.begin([], exchange_us=moments[-1])
    capture._captured.add("BTCUSDT")
    began_us = capture._resumption.since_us
    moments.append(moments[-1] + SECOND_US)
    capture._gone([])
    assert not capture._resumption.is_done("BTCUSDT")
    assert capture._resumption._check_since_us == began_us + SECOND_US


def test_all_callers_share_the_refusals_of_a_market(
    capture: Capture,
) -> None:
    assert capture.tails._calls is capture.missing_ranges.calls
