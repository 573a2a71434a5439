"""Whether a streamer is alive, and whether it can be relied upon: two questions.

*Alive* is about the process: its works move. What the network, the exchange or PostgreSQL do
is no reason to start it anew. *Ready* is about what it is for: streams deliver, the database
takes rows, no symbol falls behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamer.candles.feed import Feed
from streamer.health.states import QUIET, SymbolState, SymbolStates
from streamer.health.telemetry import TelemetrySources

ANSWER_AFTER_S = 15.0
"""The database is asked at least each five seconds: so much later, it hangs."""
MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not: a word for machines, a sentence, and the symbols it is about (the first twenty)."""

    code: str
    message: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer: well if there is no reason against it; ``facts`` are told either way."""

    reasons: tuple[Reason, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def liveness(observed: TelemetrySources) -> Verdict:
    """Whether each work of the process moves; that it answers shows that its loop does."""
    works = {
        "writer": observed.writer.pulse,
        "repairs": observed.repairs.pulse,
        **{f"connection {feed.connection.name}": feed.connection.pulse for feed in observed.feeds},
    }
    return Verdict(
        tuple(
            Reason("stuck", f"{name} should have moved {pulse.overdue_s:.0f} s ago")
            for name, pulse in works.items()
            if pulse.is_stuck
        ),
        {"works": sorted(works)},
    )


def readiness(observed: TelemetrySources) -> Verdict:
    """Whether candles of every symbol come from the exchange and reach the database."""
    states = observed.states
    counts = dict.fromkeys(SymbolState, 0)
    for feed in observed.feeds:
        for state, count in states.counts(one.symbol for one in feed.aggregators).items():
            counts[state] += count
    facts = {
        "symbols": {state.value: count for state, count in counts.items()},
        "quiet": _first(
            one.symbol
            for feed in observed.feeds
            for one in feed.aggregators
            if states.of(one.symbol) in QUIET
        ),
        "rows_waiting": observed.writer.waiting,
        "minutes_asked_of_rest": observed.repairs.waiting_minutes,
    }
    if not observed.is_started:
        message = "the exchange's symbols and the stored minutes are being read"
        return Verdict((Reason("starting", message),), facts)
    return Verdict(
        (
            *(reason for feed in observed.feeds for reason in _of_feed(feed, states)),
            *_of_database(observed),
            *_of_symbols(observed),
        ),
        facts,
    )


def condition(observed: TelemetrySources) -> dict[str, Any]:
    """Readiness as those are told it who read candles."""
    verdict = readiness(observed)
    return {
        **_told(verdict.reasons),
        "symbols": verdict.facts["symbols"],
        "components": {
            "streams": _told(_some(verdict.reasons, "disconnected", "subscribing", "starting"))
            | {"connections": len(observed.feeds)},
            "writer": _told(_some(verdict.reasons, "database"))
            | {"rows_waiting": observed.writer.waiting},
            "symbols": _told(_some(verdict.reasons, "dead", "behind")),
            "repairs": {"status": "well", "minutes_waiting": observed.repairs.waiting_minutes},
            **({} if observed.publisher is None else {"nats": observed.publisher.condition()}),
        },
    }


def _told(reasons: Sequence[Reason]) -> dict[str, Any]:
    return {
        "status": "ailing" if reasons else "well",
        "reasons": [reason.message for reason in reasons],
    }


def _some(reasons: Sequence[Reason], *codes: str) -> list[Reason]:
    return [reason for reason in reasons if reason.code in codes]


def _of_feed(feed: Feed, states: SymbolStates) -> Iterator[Reason]:
    name, connection = feed.connection.name, feed.connection
    if not connection.is_open:
        yield Reason("disconnected", f"connection {name} is not open")
    elif not connection.session.is_subscribed:
        yield Reason("subscribing", f"subscriptions of connection {name} are not answered yet")
    elif feed.delivering_since_us is None and any(
        states.of(one.symbol) not in QUIET for one in feed.aggregators
    ):
        yield Reason("subscribing", f"no frame came on connection {name} yet")


def _of_database(observed: TelemetrySources) -> Iterator[Reason]:
    age_s, waiting = observed.writer.answer_age_s, observed.writer.waiting
    if age_s is None:
        yield Reason("database", f"the database cannot be reached; {waiting} rows wait")
    elif age_s > ANSWER_AFTER_S:
        yield Reason("database", f"the database answered {age_s:.0f} s ago; {waiting} rows wait")


def _of_symbols(observed: TelemetrySources) -> Iterator[Reason]:
    states = observed.states
    symbols = [one.symbol for feed in observed.feeds for one in feed.aggregators]
    dead = [one for one in symbols if states.of(one) is SymbolState.DEAD]
    if dead:
        yield Reason("dead", f"streams of {len(dead)} symbols do not deliver", _first(dead))
    behind = [
        one.symbol
        for feed in observed.feeds
        if feed.delivering_since_us is not None
        for one in feed.aggregators
        if states.is_behind(one.symbol, feed.exchange_us, feed.delivering_since_us)
    ]
    if behind:
        message = f"{len(behind)} symbols have had no settled minute for over 3 minutes"
        yield Reason("behind", message, _first(behind))


def _first(symbols: Iterator[str] | list[str]) -> tuple[str, ...]:
    return tuple(sorted(symbols)[:MAX_NAMES])
