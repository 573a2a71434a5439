"""What makes a streamer unwell, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from include.domain.timeframes import MINUTE_US
from streamer.health.probes import condition, liveness, readiness
from streamer.health.states import SymbolState
from streamer.runtime.heartbeat import SLACK_S
from tests.unit.streamer.watched import Parts, PlayedFeed, publisher

NOW_US = 1_700_000_000_000_000


@pytest.fixture
def parts() -> Parts:
    parts = Parts()
    for feed in (parts.add("spot-1", "BTCUSDT", "ETHUSDT"), parts.add("um-1", "BTCUSDT.P")):
        feed.exchange_us = NOW_US
        feed.delivering_since_us = NOW_US - MINUTE_US
    return parts


def codes(parts: Parts) -> list[str]:
    return [reason.code for reason in readiness(parts.telemetry).reasons]


async def test_ready_when_all_streams_deliver_and_the_database_answers(parts: Parts) -> None:
    parts.database_answered()
    verdict = readiness(parts.telemetry)
    assert verdict.is_well
    assert verdict.facts["symbols"]["connecting"] == 3
    assert verdict.facts["quiet"] == ()


async def test_starting_is_the_only_reason_before_symbols_are_known(parts: Parts) -> None:
    parts.telemetry.is_started = False
    assert codes(parts) == ["starting"]


def close(feed: PlayedFeed) -> None:
    feed.connection.is_open = False


def subscribe(feed: PlayedFeed) -> None:
    feed.connection.session.subscribe(["btcusdt@aggTrade"])


def stop_delivery(feed: PlayedFeed) -> None:
    feed.delivering_since_us = None


@pytest.mark.parametrize(
    ("happens", "code", "message"),
    [
        (close, "disconnected", "connection um-1 is not open"),
        (subscribe, "subscribing", "subscriptions of connection um-1 are not answered yet"),
        (stop_delivery, "subscribing", "no frame has arrived on connection um-1 yet"),
    ],
)
async def test_each_connection_must_deliver(
    parts: Parts, happens: Callable[[PlayedFeed], None], code: str, message: str
) -> None:
    parts.database_answered()
    happens(parts.feeds[1])
    (reason,) = readiness(parts.telemetry).reasons
    assert (reason.code, reason.message) == (code, message)


async def test_connection_with_only_silent_symbols_need_not_deliver(parts: Parts) -> None:
    parts.database_answered()
    stop_delivery(parts.feeds[1])
    parts.telemetry.states.enter("BTCUSDT.P", SymbolState.SILENT)
    verdict = readiness(parts.telemetry)
    assert verdict.is_well
    assert verdict.facts["quiet"] == ("BTCUSDT.P",)


async def test_unavailable_or_hanging_database_is_a_reason(parts: Parts) -> None:
    assert codes(parts) == ["database"]
    parts.database_answered(seconds_ago=14)
    assert codes(parts) == []
    parts.database_answered(seconds_ago=16)
    (reason,) = readiness(parts.telemetry).reasons
    assert reason.message == "the database answered 16 s ago; 0 rows wait"


async def test_dead_streams_are_named(parts: Parts) -> None:
    parts.database_answered()
    parts.telemetry.states.enter("ETHUSDT", SymbolState.DEAD)
    (reason,) = readiness(parts.telemetry).reasons
    assert (reason.code, reason.symbols) == ("dead", ("ETHUSDT",))


async def test_symbols_that_fall_behind_are_named_twenty_at_most(parts: Parts) -> None:
    parts.database_answered()
    feed = parts.add("spot-2", *(f"A{number:02}USDT" for number in range(30)))
    feed.exchange_us, feed.delivering_since_us = NOW_US, NOW_US - 10 * MINUTE_US
    assert readiness(parts.telemetry).is_well  # they may have joined just now
    feed.exchange_us += 5 * MINUTE_US
    (reason,) = readiness(parts.telemetry).reasons
    assert reason.code == "behind"
    assert reason.message == "30 symbols have had no closed candle for over 3 minutes"
    assert reason.symbols == tuple(f"A{number:02}USDT" for number in range(20))


def test_tasks_with_a_heartbeat_are_alive_despite_other_failures(parts: Parts) -> None:
    close(parts.feeds[0])
    for pulse in (
        parts.writer.heartbeat,
        parts.repairs.heartbeat,
        parts.feeds[0].connection.heartbeat,
    ):
        pulse.beat(60)
    parts.clock.now_s += 60
    verdict = liveness(parts.telemetry)
    assert verdict.is_well
    works = ["connection spot-1", "connection um-1", "repairs", "writer"]
    assert verdict.facts == {"tasks": works}


@pytest.mark.parametrize("work", ["writer", "repairs", "connection um-1"])
def test_stuck_task_is_named(parts: Parts, work: str) -> None:
    pulses = {
        "writer": parts.writer.heartbeat,
        "repairs": parts.repairs.heartbeat,
        "connection um-1": parts.feeds[1].connection.heartbeat,
    }
    pulses[work].beat(5)
    parts.clock.now_s += 5 + SLACK_S + 2
    (reason,) = liveness(parts.telemetry).reasons
    assert reason.code == "stuck"
    assert reason.message == f"{work} should have made progress 32 s ago"


def test_condition_includes_the_connection_to_nats(parts: Parts) -> None:
    parts.telemetry.publisher = publisher()
    told = condition(parts.telemetry)["components"]["nats"]
    assert told["status"] == "ailing"
    assert told["reasons"] == ["NATS is unreachable: not connected yet"]
    assert told["servers"] == "nats.test:4222"
    assert "s3cret" not in str(told)
