"""What a streamer publishes over NATS: its candles, its heartbeat, and its states when asked.

NATS remembers nothing. Each connection therefore begins with the present states of all symbols, and
servers that come later ask for them. One batch is on its way at a time: until the server has taken
it, further changes of a bar replace one another in the watch, which is bounded, so that a NATS that
is slow, or away, costs neither memory nor time of the fold.
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

from include.backoff import Backoff
from include.config import Settings
from include.domain.timeframes import Timeframe, timeframe
from serving.bars.live_bars import LiveBars
from serving.bars.subscription import Bars, BarSubscription
from serving.sources.nats.connection import NatsConnection, first_ended, flushed
from serving.sources.nats.tick_publisher import TickPublisher
from serving.sources.nats.wire import (
    ASK_ALL,
    HEARTBEAT_S,
    Numbered,
    ask_subject,
    heartbeat_subject,
    states_subject,
)
from streamer.hub.trade_hub import TickHubs

log = structlog.get_logger(__name__)

BATCH_UPDATES = 200
"""Made into messages in a few milliseconds, in which nothing else moves."""
GATHER_S = 0.02
"""Between two batches at least: what changes meanwhile is told once."""
MAX_SHARE = 0.2
"""Of the event loop's time for making messages; beyond it, changes are gathered for longer."""
STATES_INTERVAL_S = 1.0
"""Between two answers at least: all who ask meanwhile are answered at once."""
POLL_INTERVAL_S = 60.0
BACKOFF = Backoff(first_s=1.0, max_s=60.0, min_s=0.1)
"""After an error of our own."""

MINUTE = timeframe("1m")


class NatsPublisher:
    """Publishes the bars of a board.

    Args:
        streamer: names this process; no two may have one name.
        timeframes: those published; servers need 1m.
        ticks: publishes trades and best prices beside them.
    """

    def __init__(
        self,
        line: NatsConnection,
        board: LiveBars,
        *,
        streamer: str,
        timeframes: Sequence[Timeframe] = (MINUTE,),
        ticks: TickPublisher | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.streamer = streamer
        self.delivered = 0
        """Changes of bars that the server has taken."""
        self.missed = 0
        """Ranges of minutes that had to be left out; readers were told so."""
        self.answered = 0
        """Times that all states were told to who asked."""
        self.failures = 0
        """Times that it began anew after an error of our own."""
        self._line = line
        self._board = board
        self._timeframes = list(dict.fromkeys((MINUTE, *timeframes)))
        self._ticks = ticks
        self._clock = clock
        self._connections = 0
        self._watch: BarSubscription | None = None
        self._conflated_before = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at present."""
        return self._line.is_connected

    @property
    def cuts(self) -> int:
        """Connections that ended."""
        return self._line.cuts

    @property
    def conflated(self) -> int:
        """Changes of bars that newer ones replaced before they were published."""
        return self._conflated_before + (0 if self._watch is None else self._watch.conflated)

    async def run(self) -> None:
        """Publish over one connection after another, until cancelled or the board has ended.

        An error of our own is logged, and then it begins anew: ingestion goes on beside it.
        """
        loop, in_a_row = asyncio.get_running_loop(), 0
        while True:
            began_s = loop.time()
            try:
                await self._line.run(self._session)
            except Exception as error:
                self.failures += 1
                in_a_row = 1 if loop.time() - began_s > BACKOFF.max_s else in_a_row + 1
                wait_s = BACKOFF.wait_s(in_a_row)
                self._line.reason = f"{type(error).__name__}: {error}"
                log.exception(
                    "nats_publisher_failed",
                    error=self._line.reason,
                    so_far=self.failures,
                    retry_in_s=round(wait_s, 2),
                )
                await asyncio.sleep(wait_s)
            else:
                return

    def condition(self) -> dict[str, Any]:
        """How the line is."""
        is_well = self._line.is_connected
        return {
            "status": "well" if is_well else "ailing",
            "reasons": [] if is_well else [f"NATS cannot be reached: {self._line.reason}"],
            "servers": self._line.hosts,
            "cuts": self._line.cuts,
        }

    def statistics(self) -> dict[str, Any]:
        """Figures since the start."""
        return {
            "servers": self._line.hosts,
            "is_connected": self._line.is_connected,
            "cuts": self._line.cuts,
            "failures": self.failures,
            "dropped": self._line.dropped,
            "delivered": self.delivered,
            "conflated": self.conflated,
            "missed": self.missed,
            "states_told": self.answered,
        }

    async def _session(self, client: Client) -> None:
        self._connections += 1
        numbered = Numbered(
            self.streamer, self._connections, [one.name for one in self._timeframes]
        )
        asked = asyncio.Event()

        async def on_asked(_message: Msg) -> None:
            asked.set()

        for subject in (ASK_ALL, ask_subject(self.streamer)):
            await client.subscribe(subject, cb=on_asked, pending_msgs_limit=1_000)
        with self._board.subscribe(None, self._timeframes, reports_streamed=True) as watch:
            self._watch = watch
            try:
                works = [
                    self._publish(client, numbered, watch),
                    self._beat(client, numbered),
                    self._answer(client, numbered, asked),
                ]
                if self._ticks is not None:
                    works.append(self._ticks.session(client, self.streamer, self._connections))
                await first_ended(*works)
            finally:
                self._conflated_before += watch.conflated
                self._watch = None

    async def _publish(self, client: Client, numbered: Numbered, watch: BarSubscription) -> None:
        while (bars := await watch.receive(BATCH_UPDATES)) is not None:
            began_s = self._clock()
            numbered.streamed = numbered.streamed if bars.streamed is None else bars.streamed
            for subject, payload in numbered.candles(bars):
                await client.publish(subject, payload)
            if bars.streamed is not None:  # behind what waited of those that were dropped
                await self._say(client, numbered)
            spent_s = self._clock() - began_s
            await flushed(client)
            self.delivered += len(bars.updates)
            self.missed += len(bars.missed)
            await asyncio.sleep(max(GATHER_S, spent_s * (1 / MAX_SHARE - 1)))

    async def _beat(self, client: Client, numbered: Numbered) -> None:
        while True:
            await self._say(client, numbered)
            await asyncio.sleep(HEARTBEAT_S)

    async def _say(self, client: Client, numbered: Numbered) -> None:
        await client.publish(heartbeat_subject(self.streamer), numbered.heartbeat())

    async def _answer(self, client: Client, numbered: Numbered, asked: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_INTERVAL_S):
                    await asked.wait()
            except TimeoutError:
                continue
            asked.clear()
            await self._say(client, numbered)
            await self._tell_states(client, numbered)
            await asyncio.sleep(STATES_INTERVAL_S)

    async def _tell_states(self, client: Client, numbered: Numbered) -> None:
        total = numbered.totals[MINUTE.name]  # what is in memory holds all that was published
        subject = states_subject(self.streamer)
        with self._board.subscribe(None, [MINUTE]) as watch:
            left, part = watch.waiting, 0
            while left > 0 or part == 0:
                bars = watch.drain(min(left, BATCH_UPDATES)) if left else Bars([], [])
                left -= BATCH_UPDATES
                payload = numbered.states(bars, total=total, part=part, is_last=left <= 0)
                await client.publish(subject, payload)
                await flushed(client)
                part += 1
        self.answered += 1
        log.debug("states_told", parts=part)


def bus_publisher(
    settings: Settings, board: LiveBars, fans: TickHubs, *, streamed: Callable[[], Iterable[str]]
) -> NatsPublisher:
    """What publishes a board, and the ticks of its symbols, as the settings say.

    Raises:
        PermanentError: the file of whom to trust is no certificate.
    """
    streamer = secrets.token_hex(8)
    return NatsPublisher(
        NatsConnection(
            settings.nats_url,
            name=f"candelabra-streamer-{streamer}",
            certificate=settings.nats_trusted_file,
        ),
        board,
        streamer=streamer,
        timeframes=[timeframe(one) for one in settings.nats_timeframes],
        ticks=TickPublisher(fans, streamed=streamed),
    )
