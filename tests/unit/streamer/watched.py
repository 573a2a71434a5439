"""A streamer's parts, played: what metrics and health look at."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

from include.binance.streams.session import StreamSession
from include.domain.instruments import Market
from serving.bars.live_bars import LiveBars
from serving.sources.nats.connection import NatsConnection
from serving.sources.nats.publisher import NatsPublisher
from streamer.candles.feed import LAG_SECONDS, CandleFeed
from streamer.candles.trade_ids import TradeIds
from streamer.capture.intake.feed import CaptureFeed
from streamer.capture.intake.rows import Intake
from streamer.health.telemetry import TelemetrySources
from streamer.hub.hub import Hub
from streamer.runtime.heartbeat import Heartbeat
from streamer.runtime.histogram import Histogram
from streamer.storage.gap_ledger import GapLedger
from streamer.storage.repair_queue import RepairQueue
from streamer.storage.writer import CandleWriter


@dataclass
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(eq=False)
class Aggregator:
    symbol: str
    duplicates: int = 0
    void_trades: int = 0
    not_market_trades: int = 0
    late_trades: int = 0
    equal_klines: int = 0
    ids: TradeIds = field(default_factory=TradeIds)


class Connection:
    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.is_open = True
        self.reconnects = self.refused = self.rotations = 0
        self.session = StreamSession([])
        self.heartbeat = Heartbeat(clock)


@dataclass(eq=False)
class PlayedFeed:
    """Counts as a feed does; all of it delivers unless a test says otherwise."""

    connection: Connection
    market: Market
    aggregators: list[Aggregator]
    frames: int = 0
    klines: int = 0
    bad_frames: int = 0
    exchange_us: int = 0
    delivering_since_us: int | None = 0
    other_frames: Counter[str] = field(default_factory=Counter)
    lag_seconds: Histogram = field(default_factory=lambda: Histogram(LAG_SECONDS))

    @property
    def names(self) -> list[str]:
        return [one.symbol for one in self.aggregators]


class Parts:
    """The parts under one clock, and the view of them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.feeds: list[Any] = []
        self.writer = CandleWriter(
            "postgresql://here/candles",
            list,
            batch_size=10,
            flush_timeout_s=1,
            buffer_rows=1_000,
            on_overflow=lambda *_: None,
        )
        self.writer.heartbeat = Heartbeat(self.clock)
        self.repairs = RepairQueue(lambda *_: None, lambda: 0, lambda *_: None)
        self.repairs.heartbeat = Heartbeat(self.clock)
        self.ledger = GapLedger("postgresql://here/candles")
        self.hub = Hub()
        self.captured: dict[str, int] = {}
        self.capture_feeds: list[CaptureFeed] = []
        self.telemetry = TelemetrySources(
            feeds=cast(list[CandleFeed], self.feeds),
            writer=self.writer,
            repairs=self.repairs,
            ledger=self.ledger,
            hub=self.hub,
            capture=lambda: self.captured,
            capture_feeds=self.capture_feeds,
            is_started=True,
        )

    def add(self, name: str, *symbols: str) -> PlayedFeed:
        market = Market(name.partition("-")[0])
        feed = PlayedFeed(
            Connection(name, self.clock), market, [Aggregator(symbol) for symbol in symbols]
        )
        self.feeds.append(feed)
        return feed

    def add_capture(self, name: str, *symbols: str) -> CaptureFeed:
        """A feed of raw capture for book tickers, which does not run and is down."""
        feed = CaptureFeed(
            "ws://127.0.0.1:1",
            Market(name.partition("-")[0]),
            ["bookTicker"],
            symbols,
            Intake(["book_tickers"], max_rows=1_000, on_losses=lambda _: None),
            name=name,
            stale_after_s=15,
            on_missed=lambda *_: None,
            on_revived=lambda *_: None,
            now_us=lambda: 100,
        )
        self.capture_feeds.append(feed)
        return feed

    def database_answered(self, seconds_ago: float = 0.0) -> None:
        """As after a write; call it inside of an event loop."""

        class Connected:
            closed = False

        self.writer._connection = cast(Any, Connected())
        self.writer._answered_s = asyncio.get_running_loop().time() - seconds_ago


def publisher() -> NatsPublisher:
    """What publishes over NATS, before it is connected."""
    nats = NatsConnection("nats://me:s3cret@nats.test:4222", name="a test")
    return NatsPublisher(nats, LiveBars(Hub().subscribe, lambda *_: ((), (), ())), streamer="a")
