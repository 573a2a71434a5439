"""What Prometheus reads of a streamer.

Nothing here is on the way of a frame: the parts count in plain integers, and one collector reads
them when somebody scrapes. Series are by market, connection or cause, never by symbol: 1,500
symbols would make tens of thousands of series (``candelabra status`` is about symbols).
``docs/operations.md`` says what each is good for; tests hold the two together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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
from streamer.feed import LAG_SECONDS, Feed
from streamer.histogram import Histogram
from streamer.observed import Observed
from streamer.states import SymbolStates

Labels = tuple[str, ...]
Value = float | Histogram
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Readings = Iterator[tuple[str, Labels, Value]]


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric: its name without the suffixes of its kind, and what it says."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: Labels = ()


METRICS = {
    "candelabra_frames": Declared(
        "counter",
        "Frames received: trade, kline, answer, shutdown, unknown (well-formed), bad (unreadable).",
        ("connection", "kind"),
    ),
    "candelabra_trades": Declared(
        "counter",
        "Trades by what became of them: folded, duplicate (id seen before), void (no price).",
        ("market", "outcome"),
    ),
    "candelabra_reordered_trades": Declared(
        "counter", "Of these, overtaken by trades with larger ids on their way.", ("market",)
    ),
    "candelabra_late_trades": Declared(
        "counter", "Of these, folded into minutes that were settled already.", ("market",)
    ),
    "candelabra_holes": Declared("counter", "Times that ids of trades skipped."),
    "candelabra_lag_seconds": Declared(
        "histogram",
        "Event time of the exchange to handling here, of every 64th frame.",
        ("market",),
    ),
    "candelabra_loop_delay_seconds": Declared(
        "histogram", "By how much the ticks of 20 ms came late: a busy event loop."
    ),
    "candelabra_connections": Declared(
        "gauge", "Stream connections: down, subscribing, delivering.", ("market", "state")
    ),
    "candelabra_reconnects": Declared(
        "counter", "Connections that ended or could not be made.", ("connection",)
    ),
    "candelabra_connects_refused": Declared(
        "counter", "Of these, answered with an error of HTTP.", ("connection",)
    ),
    "candelabra_rotations": Declared(
        "counter",
        "Connections succeeded by another before they ended, unnoticed by all above.",
        ("connection",),
    ),
    "candelabra_symbols": Declared(
        "gauge", "Symbols by state: connecting, live, silent, halted, dead.", ("market", "state")
    ),
    "candelabra_candles_settled": Declared(
        "counter", "Candles handed to the writer, by status.", ("status",)
    ),
    "candelabra_checksums": Declared(
        "counter",
        "Folds held against the exchange's klines: equal, differing (of closed minutes), corrected "
        "(of open ones).",
        ("verdict",),
    ),
    "candelabra_rows_written": Declared("counter", "Settled candles that the database took."),
    "candelabra_rows_refused": Declared("counter", "Settled candles that the database refused."),
    "candelabra_rows_overflowed": Declared(
        "counter", "Settled candles that left a full buffer; REST is asked for them."
    ),
    "candelabra_write_failures": Declared("counter", "Writes put off as the database was away."),
    "candelabra_batch_rows": Declared("histogram", "Rows of one write of settled candles."),
    "candelabra_write_seconds": Declared("histogram", "Time of one write of settled candles."),
    "candelabra_database_up": Declared("gauge", "1 while the writer reaches the database, else 0."),
    "candelabra_queue_depth": Declared(
        "gauge",
        "Waiting: candles and capture (rows), repairs (minutes), control (messages to the "
        "exchange), gaps (changes of ops.gaps).",
        ("queue",),
    ),
    "candelabra_queue_bound": Declared(
        "gauge", "Most that may wait, where it is fixed.", ("queue",)
    ),
    "candelabra_repairs_asked": Declared("counter", "Ranges asked of REST.", ("cause",)),
    "candelabra_repaired_minutes": Declared("counter", "Minutes that REST repaired."),
    "candelabra_repair_failures": Declared("counter", "Repairs that failed and are tried again."),
    "candelabra_given_up_minutes": Declared(
        "counter", "Minutes that REST could not repair, left to the DAG repair_gaps."
    ),
    "candelabra_gaps_opened": Declared("counter", "Gaps of symbols entered in ops.gaps."),
    "candelabra_gaps_closed": Declared("counter", "Of these, every minute was proven complete."),
    "candelabra_gaps_open": Declared("gauge", "Gaps that are not closed yet."),
    "candelabra_subscribers": Declared("gauge", "Readers of candle updates in this process."),
    "candelabra_updates": Declared(
        "counter",
        "Changes of candles by what became of them, over all subscribers: told, conflated (a newer "
        "one took its place), missed (had to leave; the subscriber was told so).",
        ("outcome",),
    ),
    "candelabra_nats_up": Declared("gauge", "1 while NATS is reached, else 0; none without one."),
    "candelabra_nats_cuts": Declared("counter", "Connections to NATS that ended."),
    "candelabra_nats_updates": Declared(
        "counter",
        "Changes of bars by what became of them: told to NATS, conflated, missed (readers know).",
        ("outcome",),
    ),
    "candelabra_captured_rows": Declared("counter", "Rows of raw capture written.", ("dataset",)),
    "candelabra_capture_events": Declared(
        "counter",
        "Rows of raw capture: repeated (there already), refused (by the database), replayed (from "
        "the spool), filled (fetched by id), lost (recorded in ops.gaps).",
        ("kind",),
    ),
    "candelabra_capture_spool_bytes": Declared("gauge", "Disk that the spool of capture takes."),
    "candelabra_capture_missing_ids": Declared("gauge", "Ids of trades that are asked of REST."),
    "candelabra_started": Declared("gauge", "1 once symbols and stored minutes are known, else 0."),
}
"""Each metric by its name; a counter's sample is called ``…_total``."""


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

    A connection that is given up takes its counters with it; their sum would fall, and
    Prometheus would read that as a restart.
    """

    def __init__(self) -> None:
        self._totals: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._seen: WeakKeyDictionary[object, Counter[tuple[str, Labels]]] = WeakKeyDictionary()

    def note(self, part: object, name: str, labels: Labels, value: float) -> None:
        """What a part counts now."""
        seen = self._seen.setdefault(part, Counter())
        self._totals[name, labels] += value - seen[name, labels]
        seen[name, labels] = value  # type: ignore[assignment]

    def readings(self) -> Readings:
        """All totals so far."""
        for (name, labels), value in self._totals.items():
            yield name, labels, value


class StreamerCollector(Collector):
    """Reads a streamer when Prometheus asks."""

    def __init__(self, observed: Observed) -> None:
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
        yield from self._running.readings()
        for market in Market:
            feeds = [feed for feed in observed.feeds if feed.market is market]
            if feeds:
                yield from _of_market(market, feeds, observed.states)
                yield "candelabra_lag_seconds", (market.value,), self._lag(market, feeds)
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
        for kind, frames in kinds.items():
            self._running.note(feed, "candelabra_frames", (connection, kind), frames)
        duplicates = voids = late = equal = reordered = 0
        for one in feed.aggregators:
            duplicates += one.duplicates
            voids += one.void_trades
            late += one.late_trades
            reordered += one.ids.overtaken
            equal += one.equal_checksums
        for outcome, count in (
            ("folded", trades - duplicates - voids),
            ("duplicate", duplicates),
            ("void", voids),
        ):
            self._running.note(feed, "candelabra_trades", (market, outcome), count)
        self._running.note(feed, "candelabra_late_trades", (market,), late)
        self._running.note(feed, "candelabra_reordered_trades", (market,), reordered)
        self._running.note(feed, "candelabra_checksums", ("equal",), equal)
        for name, count in (
            ("candelabra_reconnects", feed.connection.reconnects),
            ("candelabra_connects_refused", feed.connection.refused),
            ("candelabra_rotations", feed.connection.rotations),
        ):
            self._running.note(feed, name, (connection,), count)

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


def _of_market(market: Market, feeds: list[Feed], states: SymbolStates) -> Readings:
    connections = dict.fromkeys(("down", "subscribing", "delivering"), 0)
    for feed in feeds:
        connections[_state_of(feed)] += 1
    for state, count in connections.items():
        yield "candelabra_connections", (market.value, state), count
    symbols = [one.symbol for feed in feeds for one in feed.aggregators]
    for symbol_state, count in states.counts(symbols).items():
        yield "candelabra_symbols", (market.value, symbol_state.value), count


def _state_of(feed: Feed) -> str:
    if not feed.connection.is_open:
        return "down"
    return "subscribing" if feed.delivering_since_us is None else "delivering"


def _of_writer(observed: Observed) -> Readings:
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
    control = sum(feed.connection.session.queued for feed in observed.feeds)
    yield "candelabra_queue_depth", ("control",), control


def _of_repairs(observed: Observed) -> Readings:
    repairs = observed.repairs
    yield "candelabra_queue_depth", ("repairs",), repairs.waiting_minutes
    for cause, ranges in sorted(repairs.asked.items()):
        yield "candelabra_repairs_asked", (cause,), ranges
    yield "candelabra_repaired_minutes", (), repairs.repaired_minutes
    yield "candelabra_repair_failures", (), repairs.failures
    yield "candelabra_given_up_minutes", (), repairs.given_up_minutes


def _of_gaps(observed: Observed) -> Readings:
    ledger = observed.ledger
    yield "candelabra_gaps_opened", (), ledger.opened
    yield "candelabra_gaps_closed", (), ledger.closed
    yield "candelabra_gaps_open", (), ledger.open
    yield "candelabra_queue_depth", ("gaps",), ledger.unwritten


def _of_hub(observed: Observed) -> Readings:
    tally = observed.hub.tally
    yield "candelabra_subscribers", (), observed.hub.subscribers
    yield "candelabra_updates", ("told",), tally.told
    yield "candelabra_updates", ("conflated",), tally.conflated
    yield "candelabra_updates", ("missed",), tally.missed


def _of_bus(observed: Observed) -> Readings:
    if (bus := observed.bus) is not None:
        yield "candelabra_nats_up", (), int(bus.is_connected)
        yield "candelabra_nats_cuts", (), bus.cuts
        for outcome in ("told", "conflated", "missed"):
            yield "candelabra_nats_updates", (outcome,), getattr(bus, outcome)


def _of_capture(observed: Observed) -> Readings:
    report = dict(observed.capture())
    if not report:
        return
    for kind, key in CAPTURE_EVENTS.items():
        yield "candelabra_capture_events", (kind,), report.pop(key)
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

    def __init__(self, observed: Observed) -> None:
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
