"""Publishes a streamer's bars, heartbeat and, on request, states over NATS.

NATS stores nothing, so each connection starts with the present states of all symbols, and servers
that start later request them. One batch is in flight at a time. Until NATS has received it,
further changes are conflated in a bounded mailbox: a slow or unreachable NATS costs neither memory
nor time of aggregation.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from include.backoff import Backoff, RetryLoop
from include.config import Settings
from include.domain.timeframes import Timeframe, timeframe
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import Bars, BarSubscription
from serving.sources.nats.connection import NatsConnection, first_ended, flushed
from serving.sources.nats.tick_publisher import TickPublisher
from serving.sources.nats.wire import (
    HEARTBEAT_S,
    REQUEST_ALL_STATES,
    MessageEncoder,
    heartbeat_subject,
    states_request_subject,
    states_subject,
)
from streamer.hub.trade_hub import TickHubs

log = structlog.get_logger(__name__)

BATCH_UPDATES = 200
"""Updates of one batch: encoded in a few ms, during which the event loop is blocked."""
GATHER_S = 0.02
"""Minimum pause between two batches; changes in between are conflated."""
MAX_SHARE = 0.2
"""Share of the event loop's time for encoding; beyond it, pauses grow."""
STATES_INTERVAL_S = 1.0
"""Minimum pause between two publications of all states; requests in between share one."""
POLL_INTERVAL_S = 60.0
BACKOFF = Backoff(first_s=1.0, max_s=60.0, min_s=0.1)
"""After an error of our own."""

MINUTE = timeframe("1m")


class NatsPublisher:
    """Publishes live bars.

    Args:
        streamer: unique name of this process.
        timeframes: to publish; servers need 1m.
        ticks: publishes trades and book tickers as well.
    """

    def __init__(
        self,
        nats: NatsConnection,
        live_bars: LiveBars,
        *,
        streamer: str,
        timeframes: Sequence[Timeframe] = (MINUTE,),
        ticks: TickPublisher | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.streamer = streamer
        self.delivered = 0
        """Changes of bars that NATS has received."""
        self.missed = 0
        """Ranges of minutes that were evicted; readers were notified."""
        self.states_published = 0
        """Times that all states were published on request."""
        self.failures = 0
        """Restarts after an error of our own."""
        self._nats = nats
        self._live_bars = live_bars
        self._timeframes = list(dict.fromkeys((MINUTE, *timeframes)))
        self._ticks = ticks
        self._clock = clock
        self._connections = 0
        self._subscription: BarSubscription | None = None
        self._conflated_before = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._nats.is_connected

    @property
    def disconnects(self) -> int:
        """Connections that ended."""
        return self._nats.disconnects

    @property
    def conflated(self) -> int:
        """Changes of bars that newer ones replaced before they were published."""
        return self._conflated_before + (
            0 if self._subscription is None else self._subscription.conflated
        )

    async def run(self) -> None:
        """Publish over one connection after another, until cancelled or the live bars end.

        An error of our own is logged, and publishing restarts; streaming continues.
        """
        loop = asyncio.get_running_loop()
        retries = RetryLoop(BACKOFF, retry_on=(Exception,), on_retry=self._log_failure)

        async def publish() -> bool:
            began_s = loop.time()
            try:
                await self._nats.run(self._session)
            except Exception as error:
                self.failures += 1
                self._nats.reason = f"{type(error).__name__}: {error}"
                if loop.time() - began_s > BACKOFF.max_s:
                    retries.succeeded()
                raise
            return True

        await retries.run(publish)

    def _log_failure(self, *, attempt: int, retry_in_s: float, error: str) -> None:
        log.exception(
            "nats_publisher_failed",
            error=self._nats.reason,
            so_far=self.failures,
            attempt=attempt,
            retry_in_s=retry_in_s,
        )

    def condition(self) -> dict[str, Any]:
        """Health of the connection."""
        is_well = self._nats.is_connected
        return {
            "status": "well" if is_well else "ailing",
            "reasons": [] if is_well else [f"NATS is unreachable: {self._nats.reason}"],
            "servers": self._nats.hosts,
            "disconnects": self._nats.disconnects,
        }

    def statistics(self) -> dict[str, Any]:
        """Figures since the start."""
        return {
            "servers": self._nats.hosts,
            "is_connected": self._nats.is_connected,
            "disconnects": self._nats.disconnects,
            "failures": self.failures,
            "dropped": self._nats.dropped,
            "delivered": self.delivered,
            "conflated": self.conflated,
            "missed": self.missed,
            "states_published": self.states_published,
        }

    async def _session(self, client: Client) -> None:
        self._connections += 1
        encoder = MessageEncoder(
            self.streamer, self._connections, [one.name for one in self._timeframes]
        )
        requested = asyncio.Event()

        async def on_requested(_message: Msg) -> None:
            requested.set()

        for subject in (REQUEST_ALL_STATES, states_request_subject(self.streamer)):
            await client.subscribe(subject, cb=on_requested, pending_msgs_limit=1_000)
        with self._live_bars.subscribe(
            None, self._timeframes, reports_streamed=True
        ) as subscription:
            self._subscription = subscription
            try:
                works = [
                    self._publish(client, encoder, subscription),
                    self._send_heartbeats(client, encoder),
                    self._answer_requests(client, encoder, requested),
                ]
                if self._ticks is not None:
                    works.append(self._ticks.session(client, self.streamer, self._connections))
                await first_ended(*works)
            finally:
                self._conflated_before += subscription.conflated
                self._subscription = None

    async def _publish(
        self, client: Client, encoder: MessageEncoder, subscription: BarSubscription
    ) -> None:
        while (bars := await subscription.receive(BATCH_UPDATES)) is not None:
            began_s = self._clock()
            encoder.streamed = encoder.streamed if bars.streamed is None else bars.streamed
            for subject, payload in encoder.candles(bars):
                await client.publish(subject, payload)
            if bars.streamed is not None:  # after the waiting updates of dropped symbols
                await self._publish_heartbeat(client, encoder)
            spent_s = self._clock() - began_s
            await flushed(client)
            self.delivered += len(bars.updates)
            self.missed += len(bars.missed)
            await asyncio.sleep(max(GATHER_S, spent_s * (1 / MAX_SHARE - 1)))

    async def _send_heartbeats(self, client: Client, encoder: MessageEncoder) -> None:
        while True:
            await self._publish_heartbeat(client, encoder)
            await asyncio.sleep(HEARTBEAT_S)

    async def _publish_heartbeat(self, client: Client, encoder: MessageEncoder) -> None:
        await client.publish(heartbeat_subject(self.streamer), encoder.heartbeat())

    async def _answer_requests(
        self, client: Client, encoder: MessageEncoder, requested: asyncio.Event
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await requested.wait()
            except TimeoutError:
                continue
            requested.clear()
            await self._publish_heartbeat(client, encoder)
            await self._publish_states(client, encoder)
            await asyncio.sleep(STATES_INTERVAL_S)

    async def _publish_states(self, client: Client, encoder: MessageEncoder) -> None:
        total = encoder.totals[MINUTE.name]  # the states in memory include all that was published
        subject = states_subject(self.streamer)
        with self._live_bars.subscribe(None, [MINUTE]) as subscription:
            left, part = subscription.waiting, 0
            while left > 0 or part == 0:
                bars = subscription.drain(min(left, BATCH_UPDATES)) if left else Bars([], [])
                left -= BATCH_UPDATES
                payload = encoder.states(bars, total=total, part=part, is_last=left <= 0)
                await client.publish(subject, payload)
                await flushed(client)
                part += 1
        self.states_published += 1
        log.debug("states_published", parts=part)


def nats_publisher(
    settings: Settings,
    live_bars: LiveBars,
    hubs: TickHubs,
    *,
    streamed: Callable[[], Iterable[str]],
) -> NatsPublisher:
    """Build a publisher of live bars and ticks from the settings.

    Raises:
        PermanentError: the CA file holds no certificate.
    """
    streamer = secrets.token_hex(8)
    return NatsPublisher(
        NatsConnection(
            settings.nats_url,
            name=f"candelabra-streamer-{streamer}",
            certificate=settings.nats_trusted_file,
        ),
        live_bars,
        streamer=streamer,
        timeframes=[timeframe(one) for one in settings.nats_timeframes],
        ticks=TickPublisher(hubs, streamed=streamed),
    )
