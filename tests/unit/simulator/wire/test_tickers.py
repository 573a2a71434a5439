"""Payloads of rolling statistics, character by character."""

from datetime import UTC, datetime

import pytest

from simulator.clock import to_us
from simulator.market.book.book import BookTicker
from simulator.market.history import History
from simulator.market.instruments import MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.market.rolling import LastTrade, WindowStats
from simulator.wire.tickers import (
    average_price_payload,
    mini_ticker_payload,
    signed,
    ticker_payload,
    window_ticker_payload,
)

START = to_us(datetime(2026, 2, 1, tzinfo=UTC))
CLOSE_US = 1_672_515_782_136_000
STATS = WindowStats(
    CLOSE_US - 86_400_000_000, CLOSE_US, open=6_000_000, high=6_200_000, low=5_900_000,
    last=5_999_000, volume=300_000, quote_volume=1_799_850_000_000, trade_count=7, first_id=100,
    last_id=106, previous_close=6_000_100,
)  # fmt: skip
LAST = LastTrade(CLOSE_US - 7_001, 55, 5_999_000, 12_345)
BEST = BookTicker(CLOSE_US, 9, 5_998_900, 1, 5_999_000, 2)


def history_of(market: MarketName) -> History:
    listed = select_instruments(market, ["BTCUSDT"], seed=1)
    return SimulatedMarket(listed, seed=1, start_us=START).history("BTCUSDT")


def test_mini_ticker_has_prices_and_volumes() -> None:
    text = mini_ticker_payload(history_of("spot"), STATS, event_us=CLOSE_US, unit_us=1_000)
    assert text == (
        '{"e":"24hrMiniTicker","E":1672515782136,"s":"BTCUSDT","c":"59990.00000000",'
        '"o":"60000.00000000","h":"62000.00000000","l":"59000.00000000","v":"3.00000000",'
        '"q":"179985.00000000"}'
    )


def test_spot_ticker_has_previous_close_and_book_ticker() -> None:
    text = ticker_payload(history_of("spot"), STATS, LAST, BEST, event_us=CLOSE_US, unit_us=1_000)
    assert text == (
        '{"e":"24hrTicker","E":1672515782136,"s":"BTCUSDT","p":"-10.00000000","P":"-0.016",'
        '"w":"59995.00000000","x":"60001.00000000","c":"59990.00000000","Q":"0.12345000",'
        '"b":"59989.00000000","B":"0.00001000","a":"59990.00000000","A":"0.00002000",'
        '"o":"60000.00000000","h":"62000.00000000","l":"59000.00000000","v":"3.00000000",'
        '"q":"179985.00000000","O":1672429382136,"C":1672515782136,"F":100,"L":106,"n":7}'
    )


def test_futures_ticker_has_no_previous_close_and_no_book_ticker() -> None:
    text = ticker_payload(history_of("um"), STATS, LAST, BEST, event_us=CLOSE_US, unit_us=1_000)
    assert text == (
        '{"e":"24hrTicker","E":1672515782136,"s":"BTCUSDT","p":"-10.00","P":"-0.016",'
        '"w":"59995.00","c":"59990.00","Q":"12.345","o":"60000.00","h":"62000.00",'
        '"l":"59000.00","v":"300.000","q":"17998500.00000","O":1672429382136,'
        '"C":1672515782136,"F":100,"L":106,"n":7}'
    )


def test_window_ticker_names_its_window() -> None:
    text = window_ticker_payload(history_of("spot"), STATS, "4h", event_us=CLOSE_US, unit_us=1)
    assert text == (
        '{"e":"4hTicker","E":1672515782136000,"s":"BTCUSDT","p":"-10.00000000","P":"-0.016",'
        '"o":"60000.00000000","h":"62000.00000000","l":"59000.00000000","c":"59990.00000000",'
        '"w":"59995.00000000","v":"3.00000000","q":"179985.00000000","O":1672429382136000,'
        '"C":1672515782136000,"F":100,"L":106,"n":7}'
    )


def test_average_price_has_the_last_trades_time() -> None:
    text = average_price_payload(history_of("spot"), STATS, LAST, event_us=CLOSE_US, unit_us=1_000)
    assert text == (
        '{"e":"avgPrice","E":1672515782136,"s":"BTCUSDT","i":"5m","w":"59995.00000000",'
        '"T":1672515782128}'
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.000"), (-5, "-0.005"), (1_234, "1.234"), (-12_345, "-12.345")]
)
def test_signs_precede_the_digits(value: int, text: str) -> None:
    assert signed(value, 3, 3) == text
