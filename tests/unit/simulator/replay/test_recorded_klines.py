"""Symbols of a recording that has klines of them, and no trades."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.market.intervals import parse_interval
from simulator.replay.player import ReplayClock
from simulator.replay.recording import scan_recording
from simulator.replay.venue import RecordedVenue
from simulator.rest.venue import AggTradeQuery, KlineQuery, UnavailableError

MINUTE_MS = 60_000
START_MS = 1_700_000_040_000
FIRST = [START_MS, "0.0100", "0.0130", "0.0090", "0.0120", "5.50", START_MS + MINUTE_MS - 1,
         "0.060", 3, "1.50", "0.0150", "0"]  # fmt: skip


def kline(minute: int, *, is_closed: bool, sent_ms: int = 500, close: str = "0.0120") -> str:
    at = START_MS + minute * MINUTE_MS
    body: dict[str, Any] = {
        "t": at, "T": at + MINUTE_MS - 1, "s": "XUSDT", "i": "1m", "f": 1, "L": 3, "o": "0.0100",
        "c": close, "h": "0.0130", "l": "0.0090", "v": "5.50", "n": 3, "x": is_closed,
        "q": "0.060", "V": "1.50", "Q": "0.0150", "B": "0",
    }  # fmt: skip
    event = at + MINUTE_MS + sent_ms if is_closed else at + 2_000
    data = {"e": "kline", "E": event, "s": "XUSDT", "k": body}
    return f"{event * 10**6} " + json.dumps({"stream": "xusdt@kline_1m", "data": data})


def venue(folder: Path, *lines: str, market: Any = "spot", now_ms: int | None = None) -> Any:
    (folder / "f").write_text("\n".join(lines) + "\n")
    recording = scan_recording([folder / "f"], market)
    now_us = recording.last_event_us if now_ms is None else now_ms * 1_000
    return RecordedVenue(recording, ReplayClock(now_us, speed=0))


def rows(of: RecordedVenue, **query: Any) -> list[list[int | str]]:
    asked = KlineQuery(symbol="XUSDT", interval=parse_interval("1m"), **query)
    return of.klines(asked, unit_us=1_000)


def test_closed_klines_are_served_as_recorded(tmp_path: Path) -> None:
    of = venue(
        tmp_path,
        kline(0, is_closed=False), kline(0, is_closed=True, close="0.0110"),
        kline(0, is_closed=True, sent_ms=600), kline(1, is_closed=True), kline(2, is_closed=False),
    )  # fmt: skip
    assert [one.symbol for one in of.listed()] == ["XUSDT"]
    assert of.listed_since_us("XUSDT") == START_MS * 1_000
    found = rows(of)
    assert found[0] == FIRST, "the last one sent counts"
    assert [row[0] for row in found] == [START_MS, START_MS + MINUTE_MS]
    assert rows(of, limit=1) == found[1:]
    assert rows(of, start_us=START_MS * 1_000, limit=1) == found[:1]
    assert rows(of, end_us=START_MS * 1_000) == found[:1]


def test_klines_that_are_not_sent_yet_are_not_served(tmp_path: Path) -> None:
    lines = (kline(0, is_closed=True), kline(1, is_closed=True))
    of = venue(tmp_path, *lines, now_ms=START_MS + MINUTE_MS + 500)
    assert [row[0] for row in rows(of)] == [START_MS]
    assert len(rows(of, is_oracle=True)) == 2


@pytest.mark.parametrize(("market", "decimals"), [("spot", (3, 1)), ("um", (4, 2))])
def test_instrument_has_the_decimals_of_the_klines(
    tmp_path: Path, market: str, decimals: tuple[int, int]
) -> None:
    (one,) = venue(tmp_path, kline(0, is_closed=True), market=market).listed()
    assert (one.price_decimals, one.quantity_decimals) == decimals
    assert (one.base_asset, one.quote_asset) == ("X", "USDT")


def test_what_was_not_recorded_is_refused_with_the_reason(tmp_path: Path) -> None:
    of = venue(tmp_path, kline(0, is_closed=True))
    with pytest.raises(UnavailableError, match="klines of XUSDT but no trades"):
        of.trades("XUSDT", from_id=None, limit=1, unit_us=1_000)
    with pytest.raises(UnavailableError, match="klines of XUSDT but no trades"):
        of.agg_trades(AggTradeQuery(symbol="XUSDT", limit=1), unit_us=1_000)
    asked = KlineQuery(symbol="XUSDT", interval=parse_interval("5m"))
    with pytest.raises(UnavailableError, match="no trades of XUSDT and no closed klines of 5m"):
        of.klines(asked, unit_us=1_000)
