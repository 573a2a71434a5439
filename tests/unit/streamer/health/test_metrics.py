"""What a Prometheus reads, by its own parsers, of parts whose counts are known."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from include.config import load_settings
from include.store.candles.live import LivePressure
from streamer.capture.app import Capture
from streamer.exchange.connection import StreamConnection
from streamer.health.metrics import METRICS, Exposition
from streamer.hub.subscription import DeliveryCounts
from tests.unit.streamer.watched import Aggregator, Parts, publisher

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

BOOK_TICKER = b'{"u":7,"s":"BTCUSDT","b":"1","B":"2","a":"3","A":"4"}'

Samples = dict[tuple[str, tuple[str, ...]], float]


def read(exposition: Exposition) -> Samples:
    """Samples by name and the values of their labels."""
    text, content_type = exposition.text("")
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in read_text(text.decode())
        for sample in family.samples
    }


def fallen(before: Samples, after: Samples) -> set[tuple[str, tuple[str, ...]]]:
    """What only grows, and has not."""
    return {
        key
        for key, count in before.items()
        if key[0].startswith("candelabra_")
        and key[0].endswith(("_total", "_count", "_sum", "_bucket"))
        and after.get(key, 0) < count
    }


@pytest.fixture
def parts() -> Parts:
    parts = Parts()
    feed = parts.add("spot-1", "BTCUSDT", "ETHUSDT")
    feed.frames, feed.klines, feed.bad_frames = 100, 20, 3
    feed.other_frames.update({"answer": 2, "shutdown": 1, "unknown": 4})
    feed.aggregators[0].duplicates = 5
    feed.aggregators[1].void_trades = 6
    feed.aggregators[1].not_market_trades = 1
    feed.aggregators[1].late_trades = 4
    feed.aggregators[0].ids.overtaken = 9
    feed.aggregators[1].equal_klines = 7
    feed.lag_seconds.observe(0.002)
    feed.lag_seconds.observe(70)
    feed.connection.reconnects, feed.connection.refused = 8, 2
    return parts


async def test_every_frame_is_of_one_kind_and_every_trade_of_one_outcome(parts: Parts) -> None:
    found = read(Exposition(parts.telemetry))
    kinds = {"trade": 70, "kline": 20, "answer": 2, "shutdown": 1, "unknown": 4, "bad": 3}
    for kind, count in kinds.items():
        assert found["candelabra_frames_total", ("spot-1", kind)] == count
    outcomes = {"aggregated": 58, "duplicate": 5, "void": 6, "not_market": 1}
    for outcome, count in outcomes.items():
        assert found["candelabra_trades_total", ("spot", outcome)] == count
    assert found["candelabra_late_trades_total", ("spot",)] == 4
    assert found["candelabra_reordered_trades_total", ("spot",)] == 9
    assert found["candelabra_verifications_total", ("equal",)] == 7
    assert found["candelabra_reconnects_total", ("spot-1",)] == 8
    assert found["candelabra_connects_refused_total", ("spot-1",)] == 2


async def test_lag_is_a_histogram_in_seconds(parts: Parts) -> None:
    found = read(Exposition(parts.telemetry))
    buckets = {
        labels[0]: count
        for (name, labels), count in found.items()
        if name == "candelabra_lag_seconds_bucket"
    }
    assert (buckets["0.001"], buckets["0.003"], buckets["60.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert found["candelabra_lag_seconds_sum", ("spot",)] == pytest.approx(70.002)


async def test_counters_keep_the_counts_of_closed_connections(parts: Parts) -> None:
    exposition = Exposition(parts.telemetry)
    first = read(exposition)
    parts.feeds.clear()
    later = parts.add("spot-1", "BTCUSDT")
    later.frames = 10
    later.lag_seconds.observe(0.002)
    second = read(exposition)
    assert fallen(first, second) == set()
    assert second["candelabra_frames_total", ("spot-1", "trade")] == 70 + 10
    assert second["candelabra_lag_seconds_count", ("spot",)] == 2 + 1


async def test_counters_keep_the_counts_of_removed_symbols(parts: Parts) -> None:
    exposition = Exposition(parts.telemetry)
    (feed,) = parts.feeds
    first = read(exposition)
    del feed.aggregators[1]
    second = read(exposition)
    assert fallen(first, second) == set()
    feed.aggregators[0].duplicates += 2
    feed.frames += 3
    feed.aggregators.append(Aggregator("XRPUSDT", void_trades=1, equal_klines=4))
    third = read(exposition)
    assert fallen(second, third) == set()
    outcomes = {"aggregated": 58, "duplicate": 5 + 2, "void": 6 + 1, "not_market": 1}
    for outcome, count in outcomes.items():
        assert third["candelabra_trades_total", ("spot", outcome)] == count
    assert third["candelabra_verifications_total", ("equal",)] == 7 + 4
    assert third["candelabra_late_trades_total", ("spot",)] == 4
    assert third["candelabra_reordered_trades_total", ("spot",)] == 9


async def test_metrics_include_connections_of_candles_and_raw_capture(parts: Parts) -> None:
    feed = parts.add_capture("spot-capture-1", "BTCUSDT")
    feed.on_texts([BOOK_TICKER, BOOK_TICKER.replace(b'"u":7', b'"u":8'), b"{"])
    feed.connection.reconnects, feed.connection.refused, feed.connection.rotations = 4, 3, 1
    exposition = Exposition(parts.telemetry)
    found = read(exposition)
    states = {
        labels: count for (name, labels), count in found.items() if name == "candelabra_connections"
    }
    assert states == {
        ("candles", "spot", "down"): 0,
        ("candles", "spot", "subscribing"): 0,
        ("candles", "spot", "delivering"): 1,
        ("capture", "spot", "down"): 1,
        ("capture", "spot", "subscribing"): 0,
        ("capture", "spot", "delivering"): 0,
    }
    for name, count in (("reconnects", 4), ("connects_refused", 3), ("rotations", 1)):
        assert found[f"candelabra_{name}_total", ("spot-capture-1",)] == count
    assert found["candelabra_frames_total", ("spot-capture-1", "captured")] == 2
    assert found["candelabra_frames_total", ("spot-capture-1", "bad")] == 1
    assert found["candelabra_frames_total", ("spot-1", "trade")] == 70
    parts.capture_feeds.clear()
    assert fallen(found, read(exposition)) == set()


async def test_connection_of_raw_capture_delivers_once_its_streams_are_acknowledged(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = parts.add_capture("um-capture-1", "BTCUSDT")
    monkeypatch.setattr(StreamConnection, "is_open", True)
    exposition = Exposition(parts.telemetry)
    assert read(exposition)["candelabra_connections", ("capture", "um", "subscribing")] == 1
    feed.connection.session.next_message(0.0)
    feed.on_texts([b'{"result":null,"id":1}'])
    assert read(exposition)["candelabra_connections", ("capture", "um", "delivering")] == 1


async def test_states_of_connections_and_symbols_are_all_named(parts: Parts) -> None:
    parts.add("spot-2", "XRPUSDT").connection.is_open = False
    parts.add("um-1", "BTCUSDT.P").delivering_since_us = None
    found = read(Exposition(parts.telemetry))
    states = {
        labels: count for (name, labels), count in found.items() if name == "candelabra_connections"
    }
    assert states == {
        ("candles", "spot", "down"): 1,
        ("candles", "spot", "subscribing"): 0,
        ("candles", "spot", "delivering"): 1,
        ("candles", "um", "down"): 0,
        ("candles", "um", "subscribing"): 1,
        ("candles", "um", "delivering"): 0,
    }
    assert found["candelabra_symbols", ("spot", "connecting")] == 3
    assert found["candelabra_symbols", ("um", "dead")] == 0


async def test_metrics_show_writer_and_repairs(parts: Parts) -> None:
    parts.repairs.request("BTCUSDT", 0, 120_000_000, "no closed kline")
    parts.repairs.repaired_minutes = 9
    parts.writer.written, parts.writer.failures = 11, 3
    parts.writer.batch_rows.observe(11)
    parts.telemetry.counts.update(
        {"verified": 10, "differing": 1, "corrected": 3, "missing_trades": 2}
    )
    exposition = Exposition(parts.telemetry)
    found = read(exposition)
    assert found["candelabra_repairs_requested_total", ("no closed kline",)] == 1
    assert found["candelabra_queue_depth", ("repairs",)] == 2
    assert found["candelabra_repaired_minutes_total", ()] == 9
    assert found["candelabra_rows_written_total", ()] == 11
    assert found["candelabra_write_failures_total", ()] == 3
    assert found["candelabra_batch_rows_sum", ()] == 11
    assert found["candelabra_queue_bound", ("candles",)] == 1_000
    assert found["candelabra_candles_closed_total", ("verified",)] == 10
    assert found["candelabra_verifications_total", ("differing",)] == 1
    assert found["candelabra_verifications_total", ("corrected",)] == 3
    assert found["candelabra_missing_trades_total", ()] == 2
    assert found["candelabra_database_up", ()] == 0
    parts.database_answered()
    assert read(exposition)["candelabra_database_up", ()] == 1


async def test_metrics_show_the_hub(parts: Parts) -> None:
    parts.hub.subscribe()
    parts.hub._counts_before = DeliveryCounts(delivered=5, conflated=6, missed=7)
    found = read(Exposition(parts.telemetry))
    assert found["candelabra_subscribers", ()] == 1
    outcomes = {"delivered": 5, "conflated": 6, "missed": 7}
    for outcome, count in outcomes.items():
        assert found["candelabra_updates_total", (outcome,)] == count


CAPTURED = {
    "captured_trades": 20,
    "captured_book_tickers": 30,
    "capture_waiting": 1,
    "capture_repeated": 2,
    "capture_refused": 3,
    "capture_replayed": 4,
    "capture_spooled_bytes": 5,
    "capture_lost_rows": 6,
    "capture_losses": 9,
    "capture_missing_ids": 7,
    "capture_filled_rows": 8,
}


async def test_metrics_show_gaps_and_capture(parts: Parts) -> None:
    exposition = Exposition(parts.telemetry)
    assert ("candelabra_queue_depth", ("capture",)) not in read(exposition)
    parts.captured.update(CAPTURED)
    parts.ledger.missed("BTCUSDT", 0, 120_000_000, "connection lost")
    found = read(exposition)
    assert found["candelabra_gaps_opened_total", ()] == 1
    assert found["candelabra_gaps_open", ()] == found["candelabra_queue_depth", ("gaps",)] == 1
    assert found["candelabra_gaps_closed_total", ()] == 0
    assert found["candelabra_captured_rows_total", ("trades",)] == 20
    assert found["candelabra_captured_rows_total", ("book_tickers",)] == 30
    assert found["candelabra_queue_depth", ("capture",)] == 1
    assert found["candelabra_capture_spool_bytes", ()] == 5
    assert found["candelabra_capture_missing_ids", ()] == 7
    assert found["candelabra_capture_losses_total", ()] == 9
    events = {
        labels[0]: value
        for (name, labels), value in found.items()
        if name == "candelabra_capture_events_total"
    }
    assert events == {"repeated": 2, "refused": 3, "replayed": 4, "filled": 8, "lost": 6}


def test_capture_report_has_the_keys_of_the_metrics(tmp_path: Path) -> None:
    settings = load_settings(database_url="postgresql://here/candles", candelabra_home=tmp_path)
    datasets = ("trades", "book_tickers")
    capture = Capture(settings, datasets, trade_stream="aggTrade", traded_us=lambda _: 0)
    assert capture.report().keys() == CAPTURED.keys()


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_each_metric_has_its_declared_type_in_both_formats(parts: Parts, accept: str) -> None:
    parts.repairs.request("BTCUSDT", 0, 60_000_000, "no closed kline")
    parts.captured.update(CAPTURED)
    parts.telemetry.publisher = publisher()
    parts.writer.live_pressure = LivePressure(table_bytes=8192, snapshot_s=1.5)
    text, content_type = Exposition(parts.telemetry).text(accept)
    if accept:
        assert content_type.startswith("application/openmetrics-text")
    parse = read_openmetrics if accept else read_text
    families = {family.name: family for family in parse(text.decode())}
    ours = {name for name in families if name.startswith("candelabra_")}
    assert ours == METRICS.keys()
    for name, declared in METRICS.items():
        family = families[name]
        assert (family.type, family.documentation) == (declared.kind, declared.meaning)
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(declared.labels)
    assert "process_cpu_seconds" in families
    assert "python_gc_collections" in families
