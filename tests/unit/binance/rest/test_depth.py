"""An answer of depth becomes a snapshot whose reach is known."""

from __future__ import annotations

import pytest

from include.binance.rest.depth import DEPTH_ANSWER, book_snapshot_of
from include.errors import PermanentError

ANSWER = b'{"lastUpdateId":7,"E":1,"T":1,"bids":[["9","1"],["8","2"]],"asks":[["10","1"]]}'


def test_full_side_ends_at_its_last_level_and_a_shorter_one_is_whole() -> None:
    found = book_snapshot_of(DEPTH_ANSWER.decode(ANSWER), symbol="BTCUSDT", limit=2)
    assert found.last_update_id == 7
    assert (found.bid_reach, found.ask_reach) == ("8", None)
    assert found.bids == [("9", "1"), ("8", "2")]


def test_absurd_number_is_refused_with_symbol_and_update() -> None:
    answer = DEPTH_ANSWER.decode(ANSWER.replace(b'"10"', b'"1e99"'))
    with pytest.raises(PermanentError, match="depth of BTCUSDT at update 7"):
        book_snapshot_of(answer, symbol="BTCUSDT", limit=2)
