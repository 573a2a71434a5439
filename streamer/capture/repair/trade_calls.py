"""Limits and retries of raw capture's requests for trades, shared by all of them."""

from __future__ import annotations

from include.backoff import Backoff
from streamer.runtime.refusals import Refusals
from streamer.runtime.rest_queue import RestCalls

CALL_TIMEOUT_S = 900.0
"""Timeout of a call: each page of a long range waits for request weight."""
QUICK_ATTEMPTS = 10
"""Quick attempts after failures of the exchange; failures of PostgreSQL and refusals of this
address do not count."""
BACKOFF = Backoff(first_s=1.0, max_s=60.0, min_s=0.1)
SLOW_BACKOFF = Backoff(first_s=660.0, max_s=660.0, min_s=540.0)
"""Slow attempts about every ten minutes: REST may be down for hours while streams work. A market
that refuses this address is not requested for as long."""


def trade_calls() -> RestCalls:
    """Return the calls of one streamer."""
    return RestCalls(
        name="trades",
        timeout_s=CALL_TIMEOUT_S,
        backoff=BACKOFF,
        quick_attempts=QUICK_ATTEMPTS,
        slow_backoff=SLOW_BACKOFF,
        refusals=Refusals(),
    )
