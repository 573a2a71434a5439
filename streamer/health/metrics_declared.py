"""Each metric of a streamer: its name, what kind it is, what it says and by what it is split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric: its name without the suffixes of its kind, and what it says."""

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
        "histogram", "By how much the ticks of at most 20 ms came late: a busy event loop."
    ),
    "candelabra_connections": Declared(
        "gauge",
        "Stream connections: down, subscribing, delivering; they carry candles or capture.",
        ("market", "carries", "state"),
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
    "candelabra_gaps_opened": Declared(
        "counter", "Gaps of symbols entered in ops.gaps, or taken over from an ended streamer."
    ),
    "candelabra_gaps_closed": Declared("counter", "Of these, every minute was proven complete."),
    "candelabra_gaps_open": Declared(
        "gauge", "Of these, not closed yet, those that were given up among them."
    ),
    "candelabra_subscribers": Declared("gauge", "Readers of candle updates in this process."),
    "candelabra_updates": Declared(
        "counter",
        "Changes of candles by what became of them, over all subscribers: delivered, "
        "conflated (replaced by a newer one), missed (evicted; the subscriber was notified).",
        ("outcome",),
    ),
    "candelabra_nats_up": Declared("gauge", "1 while NATS is reached, else 0; none without one."),
    "candelabra_nats_cuts": Declared("counter", "Connections to NATS that ended."),
    "candelabra_nats_updates": Declared(
        "counter",
        "Changes of bars by outcome: delivered to NATS, conflated, missed (readers were notified).",
        ("outcome",),
    ),
    "candelabra_captured_rows": Declared("counter", "Rows of raw capture written.", ("dataset",)),
    "candelabra_capture_events": Declared(
        "counter",
        "Rows of raw capture: repeated (there already), refused (by the database), replayed (from "
        "the spool), filled (fetched by id), lost (as far as anybody can count them).",
        ("kind",),
    ),
    "candelabra_capture_losses": Declared(
        "counter",
        "Times that raw capture lost rows of a symbol for good, entered in ops.gaps: by a cut, a "
        "dead stream, a stop, a full spool, ids that nobody serves.",
    ),
    "candelabra_capture_spool_bytes": Declared("gauge", "Disk that the spool of capture takes."),
    "candelabra_capture_missing_ids": Declared("gauge", "Ids of trades that are asked of REST."),
    "candelabra_started": Declared("gauge", "1 once symbols and stored minutes are known, else 0."),
}
"""Each metric by its name; a counter's sample is called ``…_total``."""
