"""Reads minutes from the table that were published while this server was not connected.

Of a symbol it reads all minutes since shortly before its newest, and older ones written since. It
goes back a day at most; older minutes are reported as missed. A streamer may write a minute after
it is read here, so absent minutes are read again for a while, and then reported as missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import structlog

from include.backoff import Backoff, RetryLoop
from include.domain.timeframes import MINUTE_US, SECOND_US, from_us_text
from include.errors import PermanentError, TransientError
from include.store.candles.resumed_minutes import MinutesRequest, StoredMinute
from serving.sources.candle_mailbox import CandleMailbox
from serving.sources.nats.minute_states import MinuteStates
from streamer.hub.subscription import CandleUpdate
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

OVERLAP_US = 10 * MINUTE_US
"""Minutes before the newest that are read again: they may not have been closed."""
MAX_BACK_US = 23 * 60 * MINUTE_US
WRITTEN_BEFORE_US = 60 * SECOND_US
"""Margin for writes that began before the last message, and for clock differences."""
SYMBOLS_AT_ONCE = 50
MAX_READ_S = 60.0
MAX_ABSENT_S = 300.0
"""Time for which absent minutes are read again: a streamer may need to catch up with its writes."""
FINAL_AFTER_US = MINUTE_US
"""The streamer has yet to close minutes this close to the newest."""
POLL_INTERVAL_S = 60.0
"""Fallback poll; requests normally wake us."""
BACKOFF = Backoff(first_s=0.5, max_s=30.0, min_s=0.05)

Read = Callable[[Mapping[str, MinutesRequest], int], list[StoredMinute]]
"""Reads minutes of symbols that open at or after a time (µs); blocking."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A pending read of a symbol.

    Attributes:
        newest_us: its newest minute at the first request.
        oldest_us: its oldest remembered minute at that time; earlier ones reached no reader.
        times: number of requests; a request during a read needs another read.
        due_s: when to read, by the event loop's clock.
        reads: reads that lacked minutes.
        absent_s: when the first of them ended.
    """

    requested: MinutesRequest
    newest_us: int
    oldest_us: int
    times: int = 1
    due_s: float = 0.0
    reads: int = 0
    absent_s: float | None = None


class CandleResumption:
    """Reads and delivers missed minutes, symbol by symbol.

    Args:
        put: receives each minute.
        wall_us: wall clock in µs.
    """

    def __init__(
        self,
        states: MinuteStates,
        mailbox: CandleMailbox,
        read: Read,
        publish: Callable[[CandleUpdate], None],
        *,
        wall_us: Callable[[], int],
    ) -> None:
        self.resumed = 0
        """Minutes that were read."""
        self._states = states
        self._mailbox = mailbox
        self._read = read
        self._publish = publish
        self._wall_us = wall_us
        self._received_us: dict[str, int] = {}
        """Wall-clock time of each symbol's last message."""
        self._requests: dict[str, _Wanted] = {}
        self._has_requests = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Symbols to be read."""
        return len(self._requests)

    def note_received(self, symbol: str) -> None:
        """Note a message about a symbol."""
        self._received_us[symbol] = self._wall_us()

    def request(self, symbol: str) -> None:
        """Request what was published of a symbol since its last message."""
        newest_us, oldest_us = self._states.newest_us_of(symbol), self._states.oldest_us_of(symbol)
        if newest_us is None or oldest_us is None:
            return  # no reader has received anything
        requested = MinutesRequest(
            newest_us - OVERLAP_US, self._received_us[symbol] - WRITTEN_BEFORE_US
        )
        known, wanted = self._requests.get(symbol), _Wanted(requested, newest_us, oldest_us)
        if known is not None:
            start_us = min(requested.start_us, known.requested.start_us)
            changed_us = min(requested.changed_us, known.requested.changed_us)
            wanted = replace(
                known,
                requested=MinutesRequest(start_us, changed_us),
                times=known.times + 1,
                due_s=0.0,
            )
        self._requests[symbol] = wanted
        self._states.hold(symbol)
        self._has_requests.set()

    def is_waiting_for(self, symbol: str) -> bool:
        """Whether a symbol is still to be read."""
        return symbol in self._requests

    def drop(self, symbol: str) -> None:
        """Forget a symbol that is no longer streamed and not to be read."""
        self._received_us.pop(symbol, None)

    async def run(self) -> None:
        """Read what was requested, until cancelled."""
        loop = RetryLoop(
            BACKOFF,
            retry_on=(TransientError, PermanentError, TimeoutError),
            on_retry=self._log_retry,
            timeout_text=f"timed out after {MAX_READ_S:g} s",
        )
        await loop.run(self._read_due)

    def _log_retry(self, **fields: object) -> None:
        log.warning("minutes_not_resumed", symbols=len(self._requests), **fields)

    async def _read_due(self) -> None:
        """Read and deliver the minutes of due symbols, or wait until one is due."""
        now_s = asyncio.get_running_loop().time()
        due = ((symbol, one) for symbol, one in self._requests.items() if one.due_s <= now_s)
        requested = dict(islice(due, SYMBOLS_AT_ONCE))
        if not requested:
            await self._until_due(now_s)
            return
        first_us = self._states.newest_us - MAX_BACK_US
        wanted = {symbol: one.requested for symbol, one in requested.items()}
        async with asyncio.timeout(MAX_READ_S):
            rows = await in_thread(partial(self._read, wanted, first_us), name="minutes_resumed")
        await self._deliver(rows, {symbol: one.newest_us for symbol, one in requested.items()})
        for symbol, one in requested.items():
            if self._requests[symbol].times == one.times:  # else it was requested again meanwhile
                self._conclude(symbol, one, first_us)

    async def _until_due(self, now_s: float) -> None:
        self._has_requests.clear()
        next_s = min(
            (one.due_s - now_s for one in self._requests.values()), default=POLL_INTERVAL_S
        )
        try:
            async with asyncio.timeout(next_s):
                await self._has_requests.wait()
        except TimeoutError:
            return

    def _conclude(self, symbol: str, one: _Wanted, first_us: int) -> None:
        """Finish a symbol after a read, or schedule another read if minutes are absent.

        Args:
            first_us: the read covered no earlier minutes.
        """
        if one.requested.start_us < first_us:
            self._mailbox.report_missed_minutes(symbol, one.requested.start_us, first_us)
            one = replace(one, requested=replace(one.requested, start_us=first_us))
        newest_us = self._states.newest_us_of(symbol) or 0
        absent = self._states.not_closed(
            symbol, max(one.requested.start_us, one.oldest_us), newest_us - FINAL_AFTER_US
        )
        now_s = asyncio.get_running_loop().time()
        absent_s = now_s if one.absent_s is None else one.absent_s
        if absent and now_s - absent_s < MAX_ABSENT_S:
            due_s = now_s + BACKOFF.wait_s(one.reads + 1)
            self._requests[symbol] = replace(
                one, due_s=due_s, reads=one.reads + 1, absent_s=absent_s
            )
            return
        if absent:
            self._mailbox.report_missed_minutes(symbol, absent[0], absent[-1] + MINUTE_US)
            log.warning(
                "minutes_absent",
                symbol=symbol,
                start=from_us_text(absent[0]),
                end=from_us_text(absent[-1] + MINUTE_US),
                minutes=len(absent),
            )
        del self._requests[symbol]
        self._states.release(symbol)

    async def _deliver(self, rows: list[StoredMinute], newest: Mapping[str, int]) -> None:
        for row in rows:
            await self._mailbox.room_for_past()
            symbol, open_time_us = row.candle.symbol, row.candle.open_time_us
            self.resumed += 1
            self._publish(
                CandleUpdate(
                    row.candle,
                    is_closed=True,
                    status=row.status,
                    source=row.source,
                    # A forgotten minute may have been delivered with other values.
                    is_revision=open_time_us <= newest[symbol]
                    and not self._states.knows(symbol, open_time_us),
                )
            )
