"""Frames that an exchange withholds undetectably.

Ids of book tickers and of single USD-M trades skip by design. If such a frame is dropped while the
connection stands, or is unreadable, no streamer can know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from include.domain.instruments import exchange_symbol_of, market_of
from simulator.faults.plan import Fault, parse_plan
from simulator.server import ExchangeThread

Spans = list[tuple[int, int]]
"""From and to, both included; µs of the exchange."""

STREAM_OF = {"trades": "trade", "book_tickers": "bookTicker"}
SLACK_US = 5_000_000
"""Of the exchange: frames are due some milliseconds after their event, and sent in batches."""


def withheld(exchange: ExchangeThread, dataset: str, symbol: str) -> Spans:
    """When frames of a symbol's stream may have been kept back without a trace."""
    name = exchange_symbol_of(symbol)
    stream = f"{name.lower()}@{STREAM_OF[dataset]}"
    faults = parse_plan(exchange.faults.plan())
    market = market_of(symbol).value
    # A stalled connection is chosen by any of its streams.
    stalled = exchange.call(lambda: list(exchange.stream_servers[market].withheld_us))
    spans = [
        (fault.at_us, fault.end_us or fault.at_us)
        for fault in _silent(faults)
        if market in fault.markets and fault.hits_symbol(name) and fault.hits_stream(stream)
    ]
    return [(start - SLACK_US, end + SLACK_US) for start, end in [*stalled, *spans]]


def held_back_until(exchange: ExchangeThread, dataset: str, symbol: str) -> Callable[[int], int]:
    """Return the latest time (µs of the exchange) at which a frame due at a given time arrived.

    A frame that the exchange withheld beyond a disconnect never arrived: it is missing after the
    disconnect, though a later one arrived before it.
    """
    name = exchange_symbol_of(symbol)
    stream = f"{name.lower()}@{STREAM_OF[dataset]}"
    # Frames are sent late where the machine has other work.
    behind_us = exchange.stream_servers[market_of(symbol).value].hub.max_behind_us + SLACK_US
    held = [
        (
            fault.at_us - SLACK_US,
            (fault.end_us or fault.at_us) + SLACK_US,
            fault.span_us("delay_ms")
            + (fault.span_us("within_ms") if fault.kind.name == "late" else 0),
        )
        for fault in parse_plan(exchange.faults.plan())
        if fault.kind.name in ("reorder", "late")
        and market_of(symbol).value in fault.markets
        and fault.hits_symbol(name)
        and fault.hits_stream(stream)
    ]

    def until(due_us: int) -> int:
        delays = [delay for start, end, delay in held if start <= due_us <= end]
        return due_us + max(delays) + behind_us if delays else due_us

    return until


def _silent(faults: Iterable[Fault]) -> Iterable[Fault]:
    return (
        fault for fault in faults if fault.kind.name == "drop" or fault.parameters.get("replaces")
    )
