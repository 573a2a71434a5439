"""Liveness and readiness of a streamer.

*Alive* means that the tasks of the process make progress. Failures of the network, the exchange or
PostgreSQL are no reason to restart the process. *Ready* means that streams deliver, the database
accepts rows and no symbol falls behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from include.counts import counted
from streamer.candles.feed import CandleFeed
from streamer.health.states import QUIET, SymbolState, SymbolStates
from streamer.health.telemetry import TelemetrySources

ANSWER_TIMEOUT_S = 15.0
"""Age of the database's last answer beyond which it counts as hanging; it is queried at least every
five seconds."""
MAX_NAMES = 20  # symbols listed in an answer


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a probe fails: a stable code, a sentence, and the first twenty symbols."""

    code: str
    message: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a probe, which passes if there are no reasons against it."""

    reasons: tuple[Reason, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        """Whether the probe passes."""
        return not self.reasons


def liveness(telemetry: TelemetrySources) -> Verdict:
    """Whether every task of the process makes progress."""
    tasks = {
        "writer": telemetry.writer.heartbeat,
        "repairs": telemetry.repairs.heartbeat,
        **{
            f"connection {feed.connection.name}": feed.connection.heartbeat
            for feed in telemetry.feeds
        },
    }
    return Verdict(
        tuple(
            Reason("stuck", f"{name} should have made progress {heartbeat.overdue_s:.0f} s ago")
            for name, heartbeat in tasks.items()
            if heartbeat.is_stuck
        ),
        {"tasks": sorted(tasks)},
    )


def readiness(telemetry: TelemetrySources) -> Verdict:
    """Whether candles of every symbol arrive from the exchange and reach the database."""
    states = telemetry.states
    counts = dict.fromkeys(SymbolState, 0)
    for feed in telemetry.feeds:
        for state, count in states.counts(one.symbol for one in feed.aggregators).items():
            counts[state] += count
    facts = {
        "symbols": {state.value: count for state, count in counts.items()},
        "quiet": _first(
            one.symbol
            for feed in telemetry.feeds
            for one in feed.aggregators
            if states.of(one.symbol) in QUIET
        ),
        "rows_waiting": telemetry.writer.waiting,
        "repair_minutes_waiting": telemetry.repairs.waiting_minutes,
    }
    if not telemetry.is_started:
        message = "the exchange's symbols and the stored minutes are being read"
        return Verdict((Reason("starting", message),), facts)
    return Verdict(
        (
            *(reason for feed in telemetry.feeds for reason in _of_feed(feed, states)),
            *_of_database(telemetry),
            *_of_symbols(telemetry),
        ),
        facts,
    )


def condition(telemetry: TelemetrySources) -> dict[str, Any]:
    """Return the readiness in the format for readers of candles."""
    verdict = readiness(telemetry)
    return {
        **_status(verdict.reasons),
        "symbols": verdict.facts["symbols"],
        "components": {
            "streams": _status(_some(verdict.reasons, "disconnected", "subscribing", "starting"))
            | {"connections": len(telemetry.feeds)},
            "writer": _status(_some(verdict.reasons, "database"))
            | {"rows_waiting": telemetry.writer.waiting},
            "symbols": _status(_some(verdict.reasons, "dead", "behind")),
            "repairs": {"status": "well", "minutes_waiting": telemetry.repairs.waiting_minutes},
            **({} if telemetry.publisher is None else {"nats": telemetry.publisher.condition()}),
        },
    }


def _status(reasons: Sequence[Reason]) -> dict[str, Any]:
    return {
        "status": "ailing" if reasons else "well",
        "reasons": [reason.message for reason in reasons],
    }


def _some(reasons: Sequence[Reason], *codes: str) -> list[Reason]:
    return [reason for reason in reasons if reason.code in codes]


def _of_feed(feed: CandleFeed, states: SymbolStates) -> Iterator[Reason]:
    name, connection = feed.connection.name, feed.connection
    if not connection.is_open:
        yield Reason("disconnected", f"connection {name} is not open")
    elif not connection.session.is_subscribed:
        yield Reason("subscribing", f"subscriptions of connection {name} are not answered yet")
    elif feed.delivering_since_us is None and any(
        states.of(one.symbol) not in QUIET for one in feed.aggregators
    ):
        yield Reason("subscribing", f"no frame has arrived on connection {name} yet")


def _of_database(telemetry: TelemetrySources) -> Iterator[Reason]:
    age_s, waiting = telemetry.writer.answer_age_s, telemetry.writer.waiting
    rows = counted(waiting, "row waits", "rows wait")
    if age_s is None:
        yield Reason(
            "database",
            f"the database cannot be reached; {rows}",
        )
    elif age_s > ANSWER_TIMEOUT_S:
        yield Reason(
            "database",
            f"the database answered {age_s:.0f} s ago; {rows}",
        )


def _of_symbols(telemetry: TelemetrySources) -> Iterator[Reason]:
    states = telemetry.states
    symbols = [one.symbol for feed in telemetry.feeds for one in feed.aggregators]
    dead = [one for one in symbols if states.of(one) is SymbolState.DEAD]
    if dead:
        yield Reason(
            "dead", f"streams of {counted(len(dead), 'symbol')} do not deliver", _first(dead)
        )
    behind = [
        one.symbol
        for feed in telemetry.feeds
        if feed.delivering_since_us is not None
        for one in feed.aggregators
        if states.is_behind(one.symbol, feed.exchange_us, feed.delivering_since_us)
    ]
    if behind:
        names = counted(len(behind), "symbol has", "symbols have")
        message = f"{names} had no closed candle for over 3 minutes"
        yield Reason("behind", message, _first(behind))


def _first(symbols: Iterator[str] | list[str]) -> tuple[str, ...]:
    return tuple(sorted(symbols)[:MAX_NAMES])
