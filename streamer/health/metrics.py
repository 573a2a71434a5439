"""What Prometheus reads of a streamer.

Nothing here is on the way of a frame: the parts count in plain integers, and one collector reads
them when somebody scrapes. Series are by market, connection or cause, never by symbol: 1,500
symbols would make tens of thousands of series (``candelabra status`` is about symbols).
``docs/operations.md`` says what each is good for; tests hold the two together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from streamer.candles.feed import LAG_SECONDS, Feed
from streamer.capture.intake.feed import CaptureFeed
from streamer.exchange.connection import StreamConnection
from streamer.health.metrics_declared import METRICS, Declared, Labels
from streamer.health.states import SymbolStates
from streamer.health.telemetry import TelemetrySources
from streamer.runtime.histogram import Histogram

Value = float | Histogram
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Readings = Iterator[tuple[str, Labels, Value]]
Counts = Mapping[tuple[str, Labels], float]


CAPTURE_EVENTS = {
    "repeated": "capture_repeated",
    "refused": "capture_refused",
    "replayed": "capture_replayed",
    "filled": "capture_filled_rows",
    "lost": "capture_lost_rows",
}
"""Kinds of events by their names in the capture's own report."""


class Running:
    """Totals that only grow, of parts that come and go.

    A connection that is given up, or a symbol that is removed, takes its counters with it; their
    sum would fall, and Prometheus would read that as a restart.
    """

    def __init__(self) -> None:
        self._totals: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._seen: WeakKeyDictionary[object, Counts] = WeakKeyDictionary()

    def note(self, part: object, counts: Counts) -> None:
        """All that a part counts now."""
        seen = self._seen.get(part, {})
        if counts == seen:
            return  # most symbols count nothing between two looks
        for key, count in counts.items():
            self._totals[key] += count - seen.get(key, 0)
        self._seen[part] = counts

    def readings(self) -> Readings:
        """All totals so far."""
        for (name, labels), value in self._totals.items():
            yield name, labels, value


class StreamerCollector(Collector):
    """Reads a streamer when Prometheus asks."""

    def __init__(self, observed: TelemetrySources) -> None:
        self._observed = observed
        self._running = Running()
        self._lags: dict[Market, list[Histogram]] = {}
        self._past_lags = {market: Histogram(LAG_SECONDS) for market in Market}

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the streamer."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Each declared metric with all it has."""
        families = {name: _family(name, declared) for name, declared in METRICS.items()}
        for name, labels, value in self._readings():
            _add(families[name], labels, value)
        yield from families.values()

    def _readings(self) -> Readings:
        observed = self._observed
        for feed in observed.feeds:
            self._note_feed(feed)
        for capturing in observed.capture_feeds:
            self._note_capture(capturing)
        yield from self._running.readings()
        for market in Market:
            feeds = [feed for feed in observed.feeds if feed.market is market]
            if feeds:
                yield from _of_market(market, feeds, observed.states)
                yield "candelabra_lag_seconds", (market.value,), self._lag(market, feeds)
            capturing_it = [feed for feed in observed.capture_feeds if feed.market is market]
            yield from _of_connections(market, "candles", feeds)
            yield from _of_connections(market, "capture", capturing_it)
        yield from _of_writer(observed)
        yield from _of_repairs(observed)
        yield from _of_gaps(observed)
        yield from _of_hub(observed)
        yield from _of_capture(observed)
        yield from _of_bus(observed)
        for status in ("verified", "unconfirmed", "partial"):
            yield "candelabra_candles_settled", (status,), observed.counts[status]
        for verdict in ("differing", "corrected"):
            yield "candelabra_checksums", (verdict,), observed.counts[verdict]
        yield "candelabra_holes", (), observed.counts["holes"]
        yield "candelabra_loop_delay_seconds", (), observed.loop_delay_seconds
        yield "candelabra_started", (), int(observed.is_started)

    def _note_feed(self, feed: Feed) -> None:
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
                ("candelabra_trades", (market, "folded")): trades,
                **_of_connection(feed.connection),
            },
        )
        for one in feed.aggregators:  # each by itself: it may go before its connection does
            unfolded = one.duplicates + one.void_trades
            self._running.note(
                one,
                {
                    ("candelabra_trades", (market, "folded")): -unfolded,
                    ("candelabra_trades", (market, "duplicate")): one.duplicates,
                    ("candelabra_trades", (market, "void")): one.void_trades,
                    ("candelabra_late_trades", (market,)): one.late_trades,
                    ("candelabra_reordered_trades", (market,)): one.ids.overtaken,
                    ("candelabra_checksums", ("equal",)): one.equal_checksums,
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

    def _lag(self, market: Market, feeds: list[Feed]) -> Histogram:
        """All lags of a market, those of connections that are gone as well."""
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


def _of_connections(market: Market, carries: str, feeds: Sequence[Feed | CaptureFeed]) -> Readings:
    counts = Counter(map(_state_of, feeds))
    for state in ("down", "subscribing", "delivering") if feeds else ():
        yield "candelabra_connections", (market.value, carries, state), counts[state]


def _state_of(feed: Feed | CaptureFeed) -> str:
    if not feed.connection.is_open:
        return "down"
    if isinstance(feed, CaptureFeed):  # the symbols may be quiet: an acknowledgement must do
        delivers = feed.connection.session.is_subscribed
    else:
        delivers = feed.delivering_since_us is not None
    return "delivering" if delivers else "subscribing"


def _of_market(market: Market, feeds: list[Feed], states: SymbolStates) -> Readings:
    symbols = [one.symbol for feed in feeds for one in feed.aggregators]
    for state, count in states.counts(symbols).items():
        yield "candelabra_symbols", (market.value, state.value), count


def _of_writer(observed: TelemetrySources) -> Readings:
    writer = observed.writer
    yield "candelabra_rows_written", (), writer.written
    yield "candelabra_rows_refused", (), writer.refused
    yield "candelabra_rows_overflowed", (), writer.overflowed
    yield "candelabra_write_failures", (), writer.failures
    yield "candelabra_batch_rows", (), writer.batch_rows
    yield "candelabra_write_seconds", (), writer.write_seconds
    yield "candelabra_database_up", (), int(writer.answer_age_s is not None)
    yield "candelabra_queue_depth", ("candles",), writer.waiting
    yield "candelabra_queue_bound", ("candles",), writer.buffer_rows
    feeds: list[Feed | CaptureFeed] = [*observed.feeds, *observed.capture_feeds]
    control = sum(feed.connection.session.queued for feed in feeds)
    yield "candelabra_queue_depth", ("control",), control


def _of_repairs(observed: TelemetrySources) -> Readings:
    repairs = observed.repairs
    yield "candelabra_queue_depth", ("repairs",), repairs.waiting_minutes
    for cause, ranges in sorted(repairs.asked.items()):
        yield "candelabra_repairs_asked", (cause,), ranges
    yield "candelabra_repaired_minutes", (), repairs.repaired_minutes
    yield "candelabra_repair_failures", (), repairs.failures
    yield "candelabra_given_up_minutes", (), repairs.given_up_minutes


def _of_gaps(observed: TelemetrySources) -> Readings:
    ledger = observed.ledger
    yield "candelabra_gaps_opened", (), ledger.opened
    yield "candelabra_gaps_closed", (), ledger.closed
    yield "candelabra_gaps_open", (), ledger.open
    yield "candelabra_queue_depth", ("gaps",), ledger.unwritten


def _of_hub(observed: TelemetrySources) -> Readings:
    counts = observed.hub.counts
    yield "candelabra_subscribers", (), observed.hub.subscribers
    yield "candelabra_updates", ("delivered",), counts.delivered
    yield "candelabra_updates", ("conflated",), counts.conflated
    yield "candelabra_updates", ("missed",), counts.missed


def _of_bus(observed: TelemetrySources) -> Readings:
    if (bus := observed.publisher) is not None:
        yield "candelabra_nats_up", (), int(bus.is_connected)
        yield "candelabra_nats_cuts", (), bus.cuts
        for outcome in ("delivered", "conflated", "missed"):
            yield "candelabra_nats_updates", (outcome,), getattr(bus, outcome)


def _of_capture(observed: TelemetrySources) -> Readings:
    report = dict(observed.capture())
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
    """The text of all metrics, those of the process and its garbage collector included."""

    def __init__(self, observed: TelemetrySources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StreamerCollector(observed))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that the asker prefers.

        Args:
            accept: its header of that name.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
