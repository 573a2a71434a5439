"""Metrics of a streamer for Prometheus.

Nothing here runs on the path of a frame: all parts count in plain integers, which one collector
reads when Prometheus scrapes. Series are by market, connection or cause, never by symbol: 1,500
symbols would make tens of thousands of series (``candelabra status`` is about symbols).
``docs/operations.md`` explains each metric.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from include.domain.instruments import Market
from streamer.candles.feed import LAG_SECONDS, CandleFeed
from streamer.capture.intake.feed import CaptureFeed
from streamer.exchange.connection import StreamConnection
from streamer.health.states import SymbolStates
from streamer.health.telemetry import TelemetrySources
from streamer.runtime.histogram import Histogram

Labels = tuple[str, ...]
Value = float | Histogram
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Readings = Iterator[tuple[str, Labels, Value]]
Counts = Mapping[tuple[str, Labels], float]


@dataclass(frozen=True, slots=True)
class Declared:
    """Kind, help text and labels of a metric."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: Labels = ()


METRICS = {
    "candelabra_frames": Declared(
        "counter",
        "Frames received: trade, kline, answer, shutdown, unknown (well-formed), bad (unreadable), "
        "captured (well-formed, of raw capture's own connections).",
        ("connection", "kind"),
    ),
    "candelabra_trades": Declared(
        "counter",
        "Trades by outcome: aggregated, duplicate (known id), void (no price), "
        "not_market (a fill of the insurance fund or ADL on USD-M, which no candle counts).",
        ("market", "outcome"),
    ),
    "candelabra_reordered_trades": Declared(
        "counter", "Trades that arrived after trades with larger ids.", ("market",)
    ),
    "candelabra_late_trades": Declared(
        "counter", "Trades of minutes whose candle was already emitted.", ("market",)
    ),
    "candelabra_missing_trades": Declared("counter", "Times that trade ids skipped."),
    "candelabra_lag_seconds": Declared(
        "histogram",
        "Seconds from the exchange's event time to handling, of every 64th frame.",
        ("market",),
    ),
    "candelabra_loop_delay_seconds": Declared(
        "histogram", "Delay of the event loop's ticks of at most 20 ms."
    ),
    "candelabra_connections": Declared(
        "gauge",
        "Stream connections of candles or capture: down, subscribing, delivering.",
        ("market", "carries", "state"),
    ),
    "candelabra_reconnects": Declared(
        "counter", "Sockets that ended or could not be opened.", ("connection",)
    ),
    "candelabra_connects_refused": Declared(
        "counter", "Connection attempts answered with an HTTP error.", ("connection",)
    ),
    "candelabra_rotations": Declared(
        "counter",
        "Sockets replaced before they ended, without a missed frame.",
        ("connection",),
    ),
    "candelabra_symbols": Declared(
        "gauge", "Symbols by state: connecting, live, silent, halted, dead.", ("market", "state")
    ),
    "candelabra_candles_closed": Declared(
        "counter", "Closed candles passed to the writer, by status.", ("status",)
    ),
    "candelabra_verifications": Declared(
        "counter",
        "Candles compared with the exchange's klines: equal, differing (closed minutes), "
        "corrected (open minutes).",
        ("verdict",),
    ),
    "candelabra_rows_written": Declared("counter", "Closed candles written to the database."),
    "candelabra_rows_refused": Declared("counter", "Closed candles refused by the database."),
    "candelabra_rows_overflowed": Declared(
        "counter", "Closed candles dropped from a full buffer and requested from REST."
    ),
    "candelabra_write_failures": Declared("counter", "Writes that failed and are retried."),
    "candelabra_batch_rows": Declared("histogram", "Rows of one write of closed candles."),
    "candelabra_write_seconds": Declared("histogram", "Seconds of one write of closed candles."),
    "candelabra_live_candles_bytes": Declared(
        "gauge", "Size of the table that has the open candles."
    ),
    "candelabra_oldest_snapshot_seconds": Declared(
        "gauge", "Age of the oldest transaction for which PostgreSQL keeps replaced rows."
    ),
    "candelabra_database_up": Declared("gauge", "1 while the writer reaches the database, else 0."),
    "candelabra_queue_depth": Declared(
        "gauge",
        "Waiting candles and capture (rows), repairs (minutes), control (messages to the "
        "exchange), gaps (changes of ops.gaps).",
        ("queue",),
    ),
    "candelabra_queue_bound": Declared("gauge", "Maximum depth of a bounded queue.", ("queue",)),
    "candelabra_repairs_requested": Declared("counter", "Ranges requested from REST.", ("cause",)),
    "candelabra_repaired_minutes": Declared("counter", "Minutes repaired by REST."),
    "candelabra_repair_failures": Declared("counter", "Repairs that failed and are retried."),
    "candelabra_given_up_minutes": Declared(
        "counter", "Minutes that could not be repaired, left to the DAG repair_gaps."
    ),
    "candelabra_gaps_opened": Declared(
        "counter", "Gaps opened in ops.gaps, or taken over from an ended streamer."
    ),
    "candelabra_gaps_closed": Declared("counter", "Gaps whose every minute was proven complete."),
    "candelabra_gaps_open": Declared("gauge", "Gaps not closed yet, including given-up ones."),
    "candelabra_subscribers": Declared("gauge", "Readers of candle updates in this process."),
    "candelabra_updates": Declared(
        "counter",
        "Changes of candles by outcome, over all subscribers: delivered, conflated "
        "(replaced by a newer one), missed (evicted; the subscriber was notified).",
        ("outcome",),
    ),
    "candelabra_nats_up": Declared(
        "gauge", "1 while NATS is connected, else 0; absent without NATS."
    ),
    "candelabra_nats_disconnects": Declared("counter", "Connections to NATS that ended."),
    "candelabra_nats_updates": Declared(
        "counter",
        "Changes of bars by outcome: delivered to NATS, conflated, missed (readers are notified).",
        ("outcome",),
    ),
    "candelabra_captured_rows": Declared("counter", "Rows of raw capture written.", ("dataset",)),
    "candelabra_capture_events": Declared(
        "counter",
        "Rows of raw capture: repeated (stored before), refused (by the database), replayed "
        "(from the spool), filled (fetched by id), lost (where their number is known).",
        ("kind",),
    ),
    "candelabra_capture_losses": Declared(
        "counter",
        "Times that raw capture lost rows of a symbol for good, recorded in ops.gaps: by a "
        "disconnect, a dead stream, a stop, a full spool, or ids that REST does not serve.",
    ),
    "candelabra_capture_spool_bytes": Declared("gauge", "Size of the capture spool on disk."),
    "candelabra_capture_missing_ids": Declared("gauge", "Trade ids requested from REST."),
    "candelabra_started": Declared("gauge", "1 once symbols and stored minutes are known, else 0."),
}
"""Metrics by name; the sample of a counter ends in ``_total``."""

CAPTURE_EVENTS = {
    "repeated": "capture_repeated",
    "refused": "capture_refused",
    "replayed": "capture_replayed",
    "filled": "capture_filled_rows",
    "lost": "capture_lost_rows",
}
"""Kinds of events, and their names in the report of capture."""


class RunningTotals:
    """Totals that never decrease, over parts that come and go.

    The counters of a closed connection or a removed symbol disappear with it. Without these totals
    the sum would decrease, which Prometheus reads as a restart.
    """

    def __init__(self) -> None:
        self._totals: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._seen: WeakKeyDictionary[object, Counts] = WeakKeyDictionary()

    def note(self, part: object, counts: Counts) -> None:
        """Add a part's counts since the last call."""
        seen = self._seen.get(part, {})
        if counts == seen:
            return  # most symbols count nothing between two scrapes
        for key, count in counts.items():
            self._totals[key] += count - seen.get(key, 0)
        self._seen[part] = counts

    def readings(self) -> Readings:
        """Return all totals so far."""
        for (name, labels), value in self._totals.items():
            yield name, labels, value


class StreamerCollector(Collector):
    """Reads a streamer when Prometheus scrapes."""

    def __init__(self, telemetry: TelemetrySources) -> None:
        self._observed = telemetry
        self._running = RunningTotals()
        self._lags: dict[Market, list[Histogram]] = {}
        self._past_lags = {market: Histogram(LAG_SECONDS) for market in Market}

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: registering must not read the streamer."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their current values."""
        families = {name: _family(name, declared) for name, declared in METRICS.items()}
        for name, labels, value in self._readings():
            _add(families[name], labels, value)
        yield from families.values()

    def _readings(self) -> Readings:
        telemetry = self._observed
        for feed in telemetry.feeds:
            self._note_feed(feed)
        for capturing in telemetry.capture_feeds:
            self._note_capture(capturing)
        yield from self._running.readings()
        for market in Market:
            feeds = [feed for feed in telemetry.feeds if feed.market is market]
            if feeds:
                yield from _of_market(market, feeds, telemetry.states)
                yield "candelabra_lag_seconds", (market.value,), self._lag(market, feeds)
            capturing_it = [feed for feed in telemetry.capture_feeds if feed.market is market]
            yield from _of_connections(market, "candles", feeds)
            yield from _of_connections(market, "capture", capturing_it)
        yield from _of_writer(telemetry)
        yield from _of_repairs(telemetry)
        yield from _of_gaps(telemetry)
        yield from _of_hub(telemetry)
        yield from _of_capture(telemetry)
        yield from _of_bus(telemetry)
        for status in ("verified", "unconfirmed", "partial"):
            yield "candelabra_candles_closed", (status,), telemetry.counts[status]
        for verdict in ("differing", "corrected"):
            yield "candelabra_verifications", (verdict,), telemetry.counts[verdict]
        yield "candelabra_missing_trades", (), telemetry.counts["missing_trades"]
        yield "candelabra_loop_delay_seconds", (), telemetry.loop_delay_seconds
        yield "candelabra_started", (), int(telemetry.is_started)

    def _note_feed(self, feed: CandleFeed) -> None:
        market, connection = feed.market.value, feed.connection.name
        others = feed.other_frames
        trades = feed.frames - feed.klines - feed.bad_frames - others.total()
        kinds = {"trade": trades, "kline": feed.klines, "bad": feed.bad_frames}
        for kind in ("answer", "shutdown", "unknown"):
            kinds[kind] = others[kind]
        self._running.note(
            feed,
            {
                **{("candelabra_frames", (connection, kind)): n for kind, n in kinds.items()},
                ("candelabra_trades", (market, "aggregated")): trades,
                **_of_connection(feed.connection),
            },
        )
        for one in feed.aggregators:  # separately: a symbol may be removed before its connection
            not_aggregated = one.duplicates + one.void_trades + one.not_market_trades
            self._running.note(
                one,
                {
                    ("candelabra_trades", (market, "aggregated")): -not_aggregated,
                    ("candelabra_trades", (market, "duplicate")): one.duplicates,
                    ("candelabra_trades", (market, "void")): one.void_trades,
                    ("candelabra_trades", (market, "not_market")): one.not_market_trades,
                    ("candelabra_late_trades", (market,)): one.late_trades,
                    ("candelabra_reordered_trades", (market,)): one.ids.overtaken,
                    ("candelabra_verifications", ("equal",)): one.equal_klines,
                },
            )

    def _note_capture(self, feed: CaptureFeed) -> None:
        connection = feed.connection.name
        self._running.note(
            feed,
            {
                ("candelabra_frames", (connection, "captured")): feed.frames - feed.bad_frames,
                ("candelabra_frames", (connection, "bad")): feed.bad_frames,
                **_of_connection(feed.connection),
            },
        )

    def _lag(self, market: Market, feeds: list[CandleFeed]) -> Histogram:
        """Return the lags of a market, including those of closed connections."""
        present = [feed.lag_seconds for feed in feeds]
        past = self._past_lags[market]
        for lag in self._lags.get(market, ()):
            if lag not in present:
                past.add(lag)
        self._lags[market] = present
        whole = Histogram(LAG_SECONDS)
        for lag in (past, *present):
            whole.add(lag)
        return whole


def _of_connection(connection: StreamConnection) -> Counts:
    label = (connection.name,)
    return {
        ("candelabra_reconnects", label): connection.reconnects,
        ("candelabra_connects_refused", label): connection.refused,
        ("candelabra_rotations", label): connection.rotations,
    }


def _of_connections(
    market: Market, carries: str, feeds: Sequence[CandleFeed | CaptureFeed]
) -> Readings:
    counts = Counter(map(_state_of, feeds))
    for state in ("down", "subscribing", "delivering") if feeds else ():
        yield "candelabra_connections", (market.value, carries, state), counts[state]


def _state_of(feed: CandleFeed | CaptureFeed) -> str:
    if not feed.connection.is_open:
        return "down"
    if isinstance(feed, CaptureFeed):  # its symbols may be quiet, so an acknowledgement suffices
        delivers = feed.connection.session.is_subscribed
    else:
        delivers = feed.delivering_since_us is not None
    return "delivering" if delivers else "subscribing"


def _of_market(market: Market, feeds: list[CandleFeed], states: SymbolStates) -> Readings:
    symbols = [one.symbol for feed in feeds for one in feed.aggregators]
    for state, count in states.counts(symbols).items():
        yield "candelabra_symbols", (market.value, state.value), count


def _of_writer(telemetry: TelemetrySources) -> Readings:
    writer = telemetry.writer
    yield "candelabra_rows_written", (), writer.written
    yield "candelabra_rows_refused", (), writer.refused
    yield "candelabra_rows_overflowed", (), writer.overflowed
    yield "candelabra_write_failures", (), writer.failures
    yield "candelabra_batch_rows", (), writer.batch_rows
    yield "candelabra_write_seconds", (), writer.write_seconds
    if writer.live_pressure is not None:
        yield "candelabra_live_candles_bytes", (), writer.live_pressure.table_bytes
        yield "candelabra_oldest_snapshot_seconds", (), writer.live_pressure.snapshot_s
    yield "candelabra_database_up", (), int(writer.answer_age_s is not None)
    yield "candelabra_queue_depth", ("candles",), writer.waiting
    yield "candelabra_queue_bound", ("candles",), writer.buffer_rows
    feeds: list[CandleFeed | CaptureFeed] = [*telemetry.feeds, *telemetry.capture_feeds]
    control = sum(feed.connection.session.queued for feed in feeds)
    yield "candelabra_queue_depth", ("control",), control


def _of_repairs(telemetry: TelemetrySources) -> Readings:
    repairs = telemetry.repairs
    yield "candelabra_queue_depth", ("repairs",), repairs.waiting_minutes
    for cause, ranges in sorted(repairs.requested.items()):
        yield "candelabra_repairs_requested", (cause,), ranges
    yield "candelabra_repaired_minutes", (), repairs.repaired_minutes
    yield "candelabra_repair_failures", (), repairs.failures
    yield "candelabra_given_up_minutes", (), repairs.given_up_minutes


def _of_gaps(telemetry: TelemetrySources) -> Readings:
    ledger = telemetry.ledger
    yield "candelabra_gaps_opened", (), ledger.opened
    yield "candelabra_gaps_closed", (), ledger.closed
    yield "candelabra_gaps_open", (), ledger.open
    yield "candelabra_queue_depth", ("gaps",), ledger.unwritten


def _of_hub(telemetry: TelemetrySources) -> Readings:
    counts = telemetry.hub.counts
    yield "candelabra_subscribers", (), telemetry.hub.subscribers
    yield "candelabra_updates", ("delivered",), counts.delivered
    yield "candelabra_updates", ("conflated",), counts.conflated
    yield "candelabra_updates", ("missed",), counts.missed


def _of_bus(telemetry: TelemetrySources) -> Readings:
    if (bus := telemetry.publisher) is not None:
        yield "candelabra_nats_up", (), int(bus.is_connected)
        yield "candelabra_nats_disconnects", (), bus.disconnects
        for outcome in ("delivered", "conflated", "missed"):
            yield "candelabra_nats_updates", (outcome,), getattr(bus, outcome)


def _of_capture(telemetry: TelemetrySources) -> Readings:
    report = dict(telemetry.capture())
    if not report:
        return
    for kind, key in CAPTURE_EVENTS.items():
        yield "candelabra_capture_events", (kind,), report.pop(key)
    yield "candelabra_capture_losses", (), report.pop("capture_losses")
    yield "candelabra_queue_depth", ("capture",), report.pop("capture_waiting")
    yield "candelabra_capture_spool_bytes", (), report.pop("capture_spooled_bytes")
    yield "candelabra_capture_missing_ids", (), report.pop("capture_missing_ids")
    for name, rows in report.items():
        yield "candelabra_captured_rows", (name.removeprefix("captured_"),), rows


def _family(name: str, declared: Declared) -> Family:
    return _FAMILIES[declared.kind](name, declared.meaning, labels=declared.labels)


def _add(family: Family, labels: Labels, value: Value) -> None:
    if isinstance(family, HistogramMetricFamily) and isinstance(value, Histogram):
        bounds = [*map(str, map(float, value.bounds)), "+Inf"]
        family.add_metric(labels, list(zip(bounds, value.cumulative(), strict=True)), value.total)
    elif isinstance(family, HistogramMetricFamily) or isinstance(value, Histogram):
        raise TypeError(f"{family.name} is a {family.type}, and was given {value!r}")
    else:
        family.add_metric(labels, value)


_FAMILIES: dict[str, type[Family]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Exposition:
    """The metrics as text, including the metrics of the process and its garbage collector."""

    def __init__(self, telemetry: TelemetrySources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StreamerCollector(telemetry))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type, in the format that the client prefers.

        Args:
            accept: the client's Accept header.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
