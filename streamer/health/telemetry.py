"""The parts of a streamer that metrics, health and statistics read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamer.candles.feed import CandleFeed
from streamer.capture.intake.feed import CaptureFeed
from streamer.health.states import SymbolStates
from streamer.hub.hub import Hub
from streamer.hub.trade_hub import LiquidationHub, TickHubs
from streamer.runtime.histogram import Histogram
from streamer.storage.gap_ledger import GapLedger
from streamer.storage.repair_queue import RepairQueue
from streamer.storage.writer import CandleWriter

LOOP_DELAY_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)


class PublisherTelemetry(Protocol):
    """State and counters of a publisher of live bars."""

    @property
    def is_connected(self) -> bool: ...

    @property
    def disconnects(self) -> int: ...

    @property
    def conflated(self) -> int: ...

    delivered: int
    missed: int

    def condition(self) -> dict[str, Any]: ...

    def statistics(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class TelemetrySources:
    """The parts of a streamer for metrics, health and statistics.

    Read on the event loop's thread, so that all figures belong to one moment.

    Attributes:
        feeds: the present feeds; the list is never replaced.
        capture: the figures of raw capture; empty without capture.
        capture_feeds: the present feeds of raw capture.
        counts: closed candles by status, and ``differing``, ``corrected``, ``missing_trades``.
        ticks: hubs of trades and book tickers.
        publisher: publishes over NATS; None without NATS.
        loop_delay_seconds: delay of the event loop's ticks.
        is_started: whether symbols and stored minutes are known.
        http_url: of metrics and health; empty if not served.
        grpc_address: host and port; empty if not served.
        api_url: of REST; empty if not served.
    """

    feeds: Sequence[CandleFeed]
    writer: CandleWriter
    repairs: RepairQueue
    ledger: GapLedger
    hub: Hub
    capture: Callable[[], Mapping[str, int]]
    capture_feeds: Sequence[CaptureFeed] = ()
    states: SymbolStates = field(default_factory=SymbolStates)
    counts: Counter[str] = field(default_factory=Counter)
    loop_delay_seconds: Histogram = field(default_factory=lambda: Histogram(LOOP_DELAY_SECONDS))
    ticks: TickHubs = field(default_factory=lambda: TickHubs(liquidations=LiquidationHub()))
    publisher: PublisherTelemetry | None = None
    is_started: bool = False
    http_url: str = ""
    grpc_address: str = ""
    api_url: str = ""
