"""Check stored candles after PostgreSQL was away: the new server may lack rows.

A standby that takes over lacks rows that its primary had acknowledged but not replicated, and a
restored backup lacks more. Gaps between newer rows, and minutes that are no longer verified, are
found as at a start. Missing first rows of a symbol show by the minute with which its streaming
began. Missing rows before a halt, or before a symbol was removed, leave no trace in the table, so
those minutes are requested from the exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import structlog

from include.config import Settings
from include.domain.ranges import Ranges
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import PermanentError, TransientError
from include.store.candles.minutes import first_minutes, last_minutes, minutes_to_request
from include.store.postgres.pools import connect
from streamer.candles.events import AFTER_DATABASE_OUTAGE, NO_FRAMES
from streamer.hub.hub import Hub
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

CHECK_DELAY_S = 150.0
"""Delay after which all symbols have newer rows, and waiting rows are stored."""
RECENT_US = 2 * MINUTE_US
"""Newer minutes are not checked: they may wait for their kline or for REST."""
CALL_TIMEOUT_S = 300.0
"""Timeout for reading the minutes of all symbols."""
POLL_S = 1.0

RequestRepair = Callable[[str, int, int, str], None]
"""Called with symbol, start, end (µs) and cause."""


class FailoverCheck:
    """Requests minutes that the table no longer has.

    Args:
        hub: source of the streamed symbols.
        exchange_us: exchange time.
        request_repair: called with ranges that are missing or not verified.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        exchange_us: Callable[[], int],
        request_repair: RequestRepair,
    ) -> None:
        self._url = settings.url_for("streamer")
        self._span_us = 2 * settings.fill_lookback_minutes * MINUTE_US
        self._hub = hub
        self._exchange_us = exchange_us
        self._request_repair = request_repair
        self._due_s: float | None = None
        self._back_us: int | None = None
        """When PostgreSQL came back first since the last check, by the exchange's time."""
        self._begun_us: dict[str, int] = {}
        self._ended_us: dict[str, int] = {}
        """Symbols removed since the last check, each with the minute of its removal."""

    def begin(self, begins_us: Mapping[str, int]) -> None:
        """Record streamed symbols, each with its first minute (µs)."""
        self._begun_us.update(begins_us)

    def end(self, symbols: Iterable[str]) -> None:
        """Record removed symbols; the next check still includes them."""
        now_us = minute_of(self._exchange_us())
        since_us = now_us - self._span_us
        self._ended_us = {one: at for one, at in self._ended_us.items() if at >= since_us}
        self._ended_us.update(dict.fromkeys(symbols, now_us))

    def schedule(self) -> None:
        """Schedule a check: PostgreSQL is back."""
        self._due_s = asyncio.get_running_loop().time() + CHECK_DELAY_S
        if self._back_us is None:
            self._back_us = minute_of(self._exchange_us())

    async def run(self) -> None:
        """Run scheduled checks until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_S)
            if self._due_s is None or loop.time() < self._due_s:
                continue
            self._due_s, back_us, self._back_us = None, self._back_us, None
            try:
                await self.check(back_us)
            except (TransientError, PermanentError, TimeoutError) as error:
                self.schedule()
                self._back_us = back_us
                reason = str(error) or f"no answer within {CALL_TIMEOUT_S:g} s"
                log.info("candles_not_checked", error=reason, retry_in_s=CHECK_DELAY_S)

    async def check(self, back_us: int | None = None) -> None:
        """Check once.

        Args:
            back_us: when PostgreSQL came back, by the exchange's time; now if None.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL fails.
        """
        until_us = minute_of(self._exchange_us() - RECENT_US)
        known = dict(self._ended_us)
        ends_us = dict.fromkeys(self._hub.symbols, until_us)
        for symbol, at_us in known.items():
            ends_us.setdefault(symbol, min(at_us, until_us))
        begun_us = {one: at for one, at in self._begun_us.items() if one in ends_us}
        self._begun_us = dict(begun_us)
        since_us = min(until_us, back_us or until_us) - self._span_us
        async with asyncio.timeout(CALL_TIMEOUT_S):
            missing, last_us = await in_thread(
                partial(self._read, list(ends_us), begun_us, since_us),
                name="failover_check",
            )
        for symbol, ranges in missing.items():
            for start_us, end_us in ranges:
                if start_us < ends_us[symbol]:
                    self._request_repair(
                        symbol, start_us, min(end_us, ends_us[symbol]), AFTER_DATABASE_OUTAGE
                    )
        for symbol, end_us in ends_us.items():
            if symbol in last_us:
                next_us = last_us[symbol] + MINUTE_US
            elif symbol in begun_us:
                next_us = begun_us[symbol]  # the symbol has no row, or lost it
            else:
                continue
            if (next_us := max(next_us, since_us)) < end_us:
                self._request_repair(symbol, next_us, end_us, NO_FRAMES)  # probably halted
        self._ended_us = dict(self._ended_us.items() - known.items())  # some were removed meanwhile

    def _read(
        self, symbols: list[str], begun_us: Mapping[str, int], since_us: int
    ) -> tuple[dict[str, Ranges], dict[str, int]]:
        """Return missing and unverified minutes up to the newest rows, and those rows' times."""
        with connect(self._url, application_name="candelabra-streamer") as connection:
            missing = minutes_to_request(connection, symbols, since_us)
            for symbol, first_us in first_minutes(connection, begun_us, since_us).items():
                begin_us = max(begun_us[symbol], since_us)
                if begin_us < first_us:
                    missing.setdefault(symbol, []).insert(0, (begin_us, first_us))
            return missing, last_minutes(connection, symbols)
