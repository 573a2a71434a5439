"""Order book payloads, character by character."""

import numpy as np
import pytest

from simulator.market.book.book import BookDiff, BookSnapshot, BookTicker
from simulator.market.instruments import select_instruments
from simulator.wire.books import (
    book_ticker_payload,
    depth_update_payload,
    levels_text,
    partial_depth_payload,
)

(SPOT,) = select_instruments("spot", ["BTCUSDT"], seed=1)
(UM,) = select_instruments("um", ["BTCUSDT"], seed=1)
TIME_US = 1_723_161_256_313_000
BEST = BookTicker(TIME_US, 5123107839020, 6180020, 2507, 6180030, 2510)
BIDS = np.array([[6180020, 2507], [6180010, 0]])
ASKS = np.array([[6180030, 2510]])
CHANGE = BookDiff(TIME_US, 156, 158, 160, BIDS, ASKS)


def test_levels_are_pairs_of_strings_with_all_decimals() -> None:
    assert levels_text(SPOT, BIDS) == (
        '[["61800.20000000","0.02507000"],["61800.10000000","0.00000000"]]'
    )
    assert levels_text(UM, BIDS) == '[["61800.20","2.507"],["61800.10","0.000"]]'
    assert levels_text(UM, BIDS[:0]) == "[]"


def test_spot_book_ticker_has_neither_type_nor_time() -> None:
    assert book_ticker_payload(SPOT, BEST, event_us=TIME_US + 1_000, unit_us=1) == (
        '{"u":5123107839020,"s":"BTCUSDT","b":"61800.20000000","B":"0.02507000",'
        '"a":"61800.30000000","A":"0.02510000"}'
    )


def test_futures_book_ticker_has_both() -> None:
    assert book_ticker_payload(UM, BEST, event_us=TIME_US + 1_000, unit_us=1_000) == (
        '{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507",'
        '"a":"61800.30","A":"2.510","T":1723161256313,"E":1723161256314}'
    )


@pytest.mark.parametrize(("unit_us", "event"), [(1_000, 1723161256314), (1, 1723161256314000)])
def test_spot_diff_has_its_first_and_last_id(unit_us: int, event: int) -> None:
    text = depth_update_payload(SPOT, CHANGE, event_us=TIME_US + 1_000, unit_us=unit_us)
    assert text == (
        f'{{"e":"depthUpdate","E":{event},"s":"BTCUSDT","U":158,"u":160,'
        '"b":[["61800.20000000","0.02507000"],["61800.10000000","0.00000000"]],'
        '"a":[["61800.30000000","0.02510000"]]}'
    )


def test_futures_diff_has_the_previous_id_and_bids_from_the_lowest() -> None:
    assert depth_update_payload(UM, CHANGE, event_us=TIME_US + 1_000, unit_us=1_000) == (
        '{"e":"depthUpdate","E":1723161256314,"T":1723161256313,"s":"BTCUSDT","U":158,"u":160,'
        '"pu":156,"b":[["61800.10","0.000"],["61800.20","2.507"]],"a":[["61800.30","2.510"]]}'
    )


def test_top_of_a_book_has_no_symbol_on_spot() -> None:
    top = BookSnapshot(TIME_US, 160, BIDS[:1], ASKS)
    assert partial_depth_payload(SPOT, top, (156, 158, 160), event_us=TIME_US, unit_us=1_000) == (
        '{"lastUpdateId":160,"bids":[["61800.20000000","0.02507000"]],'
        '"asks":[["61800.30000000","0.02510000"]]}'
    )
    assert partial_depth_payload(UM, top, (156, 158, 160), event_us=TIME_US, unit_us=1_000) == (
        '{"e":"depthUpdate","E":1723161256313,"T":1723161256313,"s":"BTCUSDT","U":158,"u":160,'
        '"pu":156,"b":[["61800.20","2.507"]],"a":[["61800.30","2.510"]]}'
    )
