"""A streamer's parts as those see them who only look: metrics, health, readiness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamer.candles.feed import Feed
from streamer.capture.intake.feed import CaptureFeed
from streamer.health.states import SymbolStates
from streamer.hub.hub import Hub
from streamer.hub.trade_hub import TickHubs
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
    def cuts(self) -> int: ...

    @property
    def conflated(self) -> int: ...

    delivered: int
    missed: int

    def condition(self) -> dict[str, Any]: ...

    def statistics(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class TelemetrySources:
    """What is looked at; read on the event loop's own thread, so nothing moves meanwhile.

    Attributes:
        feeds: the streamer's own list, which grows and shrinks with its connections.
        capture: the figures of raw capture; none where nothing is captured.
        capture_feeds: raw capture's own list of its own connections, as above.
        counts: settled candles by status; ``differing``, ``corrected`` and ``holes``.
        ticks: readers of trades and best prices.
        publisher: publishes over NATS; None where NATS is not configured.
        loop_delay_seconds: by how much the clock's ticks came late: a busy event loop.
        is_started: whether symbols and history are known, and connections are being made.
        http_url: where it is served; empty where it is not.
        grpc_address: host and port of gRPC; empty where it is not served.
        api_url: of REST; empty where it is not served.
    """

    feeds: Sequence[Feed]
    writer: CandleWriter
    repairs: RepairQueue
    ledger: GapLedger
    hub: Hub
    capture: Callable[[], Mapping[str, int]]
    capture_feeds: Sequence[CaptureFeed] = ()
    states: SymbolStates = field(default_factory=SymbolStates)
    counts: Counter[str] = field(default_factory=Counter)
    loop_delay_seconds: Histogram = field(default_factory=lambda: Histogram(LOOP_DELAY_SECONDS))
    ticks: TickHubs = field(default_factory=TickHubs)
    publisher: PublisherTelemetry | None = None
    is_started: bool = False
    http_url: str = ""
    grpc_address: str = ""
    api_url: str = ""
