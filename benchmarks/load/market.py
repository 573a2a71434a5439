"""A generated market: aggTrades and klines of many symbols, as combined frames.

Trading frequency follows Zipf's law, as on the exchange. Trades are deterministic by seed. Candles
are computed in integers, separately from the platform's aggregation, so that results can be
compared with them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import accumulate

MINUTE_US = 60_000_000
SECOND_US = 1_000_000
CLOSING_US = 20_000
CLOSING_SPREAD_US = 200_000
MINUTES_KEPT = 240

Row = tuple[object, ...]
"""A kline in the format of REST."""


def _price(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}000000"


def _volume(thousandths: int) -> str:
    return f"{thousandths // 1_000}.{thousandths % 1_000:03d}00000"


def _quote(hundred_thousandths: int) -> str:
    return f"{hundred_thousandths // 100_000}.{hundred_thousandths % 100_000:05d}000"


class _Symbol:
    """One symbol: its last price, its ids and its open minute, in integer ticks and steps."""

    __slots__ = (
        "agg_id", "buy_quote", "buy_volume", "close", "count", "first_id", "high", "last_id",
        "low", "name", "open", "price", "quote", "stream", "volume",
    )  # fmt: skip

    def __init__(self, name: str, price: int) -> None:
        self.name = name
        self.price = price
        self.stream = name.lower()
        self.agg_id = self.last_id = 0
        self.begin()

    def begin(self) -> None:
        """Start a new minute."""
        self.open = self.high = self.low = self.close = self.price
        self.volume = self.quote = self.buy_volume = self.buy_quote = self.count = 0
        self.first_id = self.last_id + 1

    def trade(self, at_us: int, sent_us: int, bits: int) -> bytes:
        """Return the frame of one more trade, chosen by 32 random bits."""
        price = self.price = max(10_000, self.price + bits % 7 - 3)
        quantity = 1 + (bits >> 3) % 4_000
        fills = 1 if bits & 0x30000000 else 1 + (bits >> 24) % 5
        is_maker = bits & 0x40000000 != 0
        quote = price * quantity
        if self.count == 0:
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.volume += quantity
        self.quote += quote
        if not is_maker:
            self.buy_volume += quantity
            self.buy_quote += quote
        self.count += fills
        self.agg_id += 1
        first = self.last_id + 1
        self.last_id += fills
        return (
            f'{{"stream":"{self.stream}@aggTrade","data":{{"e":"aggTrade","E":{sent_us},'
            f'"s":"{self.name}","a":{self.agg_id},"p":"{_price(price)}","q":"{_volume(quantity)}",'
            f'"f":{first},"l":{self.last_id},"T":{at_us},'
            f'"m":{"true" if is_maker else "false"},"M":true}}}}'
        ).encode()

    def row(self, open_us: int) -> Row:
        """Return the minute as a kline in the format of REST."""
        return (
            open_us, _price(self.open), _price(self.high), _price(self.low), _price(self.close),
            _volume(self.volume), open_us + MINUTE_US - 1, _quote(self.quote), self.count,
            _volume(self.buy_volume), _quote(self.buy_quote), "0",
        )  # fmt: skip

    def kline(self, open_us: int, *, is_closed: bool) -> str:
        """Return the minute as a kline frame, with ``%d`` as placeholder of its event time."""
        first, last = (self.first_id, self.last_id) if self.count else (-1, -1)
        return (
            f'{{"stream":"{self.stream}@kline_1m","data":{{"e":"kline","E":%d,"s":"{self.name}",'
            f'"k":{{"t":{open_us},"T":{open_us + MINUTE_US - 1},"s":"{self.name}","i":"1m",'
            f'"f":{first},"L":{last},"o":"{_price(self.open)}","c":"{_price(self.close)}",'
            f'"h":"{_price(self.high)}","l":"{_price(self.low)}","v":"{_volume(self.volume)}",'
            f'"n":{self.count},"x":{"true" if is_closed else "false"},'
            f'"q":"{_quote(self.quote)}","V":"{_volume(self.buy_volume)}",'
            f'"Q":"{_quote(self.buy_quote)}","B":"0"}}}}}}'
        )


class MadeMarket:
    """Generates the frames of all symbols, in the order in which the exchange would send them.

    Args:
        symbols: number of symbols.
        start_us: time before the first trade.
        trades_per_s: rate of all symbols together, by the market's own clock.
        kline_every_s: interval between klines of each symbol's open minute; None sends closed
            klines only.
        closing_us: delay of the first closed kline after the minute's end.
        closing_spread_us: delay of the last closed kline after the first one.
        on_trade: receives for each trade the index of its symbol, its minute, the number of trades
            in that minute so far, and its time of sending (µs).

    Attributes:
        symbols: names of the symbols, in the order of ``exchangeInfo``.
        streams: names of the streams. A frame has its stream's index: ``2 n`` for the aggTrades of
            the n-th symbol and ``2 n + 1`` for its klines.
        now_us: the market's time.
        closed: rows of closed minutes of the last four hours by open time, in the order of
            ``symbols``.
    """

    def __init__(
        self,
        *,
        symbols: int,
        start_us: int,
        trades_per_s: int,
        kline_every_s: float | None = None,
        closing_us: int = CLOSING_US,
        closing_spread_us: int = CLOSING_SPREAD_US,
        seed: int = 1,
        on_trade: Callable[[int, int, int, int], None] | None = None,
    ) -> None:
        self._on_trade = on_trade
        self._random = random.Random(seed)
        names = [f"S{number:04d}USDT" for number in range(1, symbols + 1)]
        self.symbols = tuple(names)
        self.streams = tuple(
            f"{name.lower()}@{kind}" for name in names for kind in ("aggTrade", "kline_1m")
        )
        self.now_us = start_us
        self.trades = 0
        self.closed: dict[int, list[Row]] = {}
        self._symbols = [_Symbol(name, self._random.randrange(20_000, 9_000_000)) for name in names]
        weights = [1 / rank for rank in range(1, symbols + 1)]
        self._random.shuffle(weights)
        self._weights = list(accumulate(weights))
        self._trades_per_s = trades_per_s
        self._kline_every_us = None if kline_every_s is None else int(kline_every_s * SECOND_US)
        self._closing_us, self._closing_spread_us = closing_us, closing_spread_us
        self._owed_trades = self._owed_klines = 0
        self._next_kline = 0
        self._minute_us = start_us // MINUTE_US * MINUTE_US
        self._closing: deque[tuple[int, int, str]] = deque()

    def advance(self, until_us: int) -> list[tuple[int, bytes]]:
        """Return the frames up to ``until_us`` since the last call.

        Returns:
            Frames in order, each with its stream's index in ``streams``.
        """
        frames: list[tuple[int, bytes]] = []
        while (end_us := self._minute_us + MINUTE_US) <= until_us:
            self._trade(end_us - 1, until_us, frames)
            self.now_us = end_us - 1
            self._close(end_us)
        self._trade(until_us, until_us, frames)
        if self._kline_every_us is not None:
            self._show(until_us, self._kline_every_us, frames)
        self.now_us = until_us
        while self._closing and self._closing[0][0] <= until_us:
            _, place, text = self._closing.popleft()
            frames.append((place, (text % until_us).encode()))
        return frames

    def _trade(self, until_us: int, sent_us: int, frames: list[tuple[int, bytes]]) -> None:
        """Generate evenly spaced trades after ``now_us``, up to and including ``until_us``."""
        span_us = until_us - self.now_us
        self._owed_trades += span_us * self._trades_per_s
        count, self._owed_trades = divmod(self._owed_trades, SECOND_US)
        if not count:
            return
        places = range(len(self._symbols))
        chosen = self._random.choices(places, cum_weights=self._weights, k=count)
        bits = self._random.getrandbits
        for number, place in enumerate(chosen, 1):
            at_us = self.now_us + span_us * number // count
            symbol = self._symbols[place]
            frames.append((2 * place, symbol.trade(at_us, sent_us, bits(32))))
            if self._on_trade is not None:
                self._on_trade(place, self._minute_us, symbol.count, sent_us)
        self.trades += count

    def _close(self, end_us: int) -> None:
        open_us = self._minute_us
        self.closed[open_us] = [symbol.row(open_us) for symbol in self._symbols]
        if len(self.closed) > MINUTES_KEPT:
            del self.closed[min(self.closed)]
        count = len(self._symbols)
        for place, symbol in enumerate(self._symbols):
            due_us = end_us + self._closing_us + self._closing_spread_us * place // count
            self._closing.append((due_us, 2 * place + 1, symbol.kline(open_us, is_closed=True)))
            symbol.begin()
        self._minute_us = end_us

    def _show(self, until_us: int, every_us: int, frames: list[tuple[int, bytes]]) -> None:
        """Return the klines of the open minute, one symbol after the other."""
        count = len(self._symbols)
        self._owed_klines += (until_us - self.now_us) * count
        due, self._owed_klines = divmod(self._owed_klines, every_us)
        for _ in range(min(due, count)):
            place = self._next_kline
            self._next_kline = (place + 1) % count
            text = self._symbols[place].kline(self._minute_us, is_closed=False)
            frames.append((2 * place + 1, (text % until_us).encode()))


def exchange_info(market: MadeMarket) -> dict[str, object]:
    """Return ``exchangeInfo`` with the fields that clients need."""
    return {
        "timezone": "UTC",
        "serverTime": market.now_us // 1_000,
        "rateLimits": [],
        "exchangeFilters": [],
        "symbols": list(_entries(market.symbols)),
    }


def _entries(names: tuple[str, ...]) -> Iterator[dict[str, object]]:
    for name in names:
        yield {
            "symbol": name,
            "status": "TRADING",
            "baseAsset": name.removesuffix("USDT"),
            "quoteAsset": "USDT",
            "baseAssetPrecision": 8,
            "quoteAssetPrecision": 8,
            "isSpotTradingAllowed": True,
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00",
                 "tickSize": "0.01000000"},
                {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "9000.000",
                 "stepSize": "0.00100000"},
            ],
        }  # fmt: skip
