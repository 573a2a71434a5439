"""Frames a second through the streamer's path, against decoding alone.

One symbol's combined aggTrade frames, prepared ahead; no socket, no database. The bare limit
decodes each frame into its struct and does nothing with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

import msgspec

from include.binance.streams.messages import decode
from include.domain.candles import CandleCandidate
from include.domain.instruments import Instrument, Market
from include.domain.timeframes import MINUTE_US
from streamer.candles.aggregation import SymbolAggregator
from streamer.candles.feed import CandleFeed
from streamer.candles.minutes import Timing

FRAMES = 200_000
ROUNDS = 5
READ_FRAMES = 1_000
"""Of one read of a busy socket."""
START_US = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US


class _Nowhere:
    """Counts closed candles and ignores other events."""

    def __init__(self) -> None:
        self.closed = 0

    def candle_closed(self, candidate: CandleCandidate) -> None:
        self.closed += 1

    def rest_needed(self, symbol: str, start_us: int, end_us: int, cause: str) -> None: ...

    def resubscribe_needed(self, symbol: str, reason: str) -> None: ...

    def symbol_silent(self, symbol: str, since_us: int) -> None: ...

    def silence_ended(self, symbol: str, since_us: int, until_us: int) -> None: ...

    def trade_ids_restarted(
        self, symbol: str, expected_id: int, trade_id: int, at_us: int
    ) -> None: ...

    def trades_missing(
        self, symbol: str, first_id: int, last_id: int, from_us: int, to_us: int
    ) -> None: ...

    def kline_differs(self, symbol: str, open_time_us: int, values: list[str]) -> None: ...

    def open_candle_corrected(self, symbol: str, open_time_us: int, values: list[str]) -> None: ...


def frames(count: int) -> list[bytes]:
    """Combined aggTrade frames of one symbol, a hundred a second."""
    made = []
    for number in range(count):
        at = START_US + number * 10_000
        trade = {
            "e": "aggTrade", "E": at + 500, "s": "BTCUSDT", "a": number + 1,
            "p": f"{60_000 + number % 977 / 100:.8f}", "q": f"{(number % 89 + 1) / 1000:.8f}",
            "f": number + 1, "l": number + 1, "T": at, "m": number % 2 == 0, "M": True,
        }  # fmt: skip
        made.append(msgspec.json.encode({"stream": "btcusdt@aggTrade", "data": trade}))
    return made


def best_rate(work: Callable[[], None], count: int) -> float:
    """The best of some rounds, in frames a second."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return count / best


def run() -> None:
    """Print both rates and their ratio."""
    texts = frames(FRAMES)

    def bare() -> None:
        for text in texts:
            decode(text)

    def path() -> None:
        instrument = Instrument(
            "BTCUSDT", Market.SPOT, "BTC", "USDT", "TRADING", Decimal("0.01"), Decimal("0.00001")
        )
        timing = Timing(grace_us=250_000, kline_timeout_us=3_000_000, expects_klines=False)
        aggregator = SymbolAggregator(instrument, timing, _Nowhere())
        feed = CandleFeed(
            "ws://127.0.0.1:1", Market.SPOT, {"BTCUSDT": aggregator},
            name="bench", trade_stream="aggTrade", klines=False, stale_after_s=15,
        )  # fmt: skip
        aggregator.connected(START_US - 1)
        for first in range(0, FRAMES, READ_FRAMES):
            feed.on_texts(texts[first : first + READ_FRAMES])
        feed.on_clock()

    bare_rate, path_rate = best_rate(bare, FRAMES), best_rate(path, FRAMES)
    print(
        f"live_path: decode and fold {path_rate:,.0f} frames/s, decode alone {bare_rate:,.0f}: "
        f"ratio {path_rate / bare_rate:.2f}"
    )
