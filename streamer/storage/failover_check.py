"""A look at the stored candles after PostgreSQL was away: the server that is back may have less.

A standby that takes over lacks what its primary had acknowledged and not sent on, and a backup that
was restored lacks more. Rows written since then show it, as a hole, or as a minute that is not
verified any more; they are looked for as at a start. That the first rows of a symbol are gone,
or all of them, shows by the minute with which it was begun here. Nothing shows that the last ones
before a halt are, or before a symbol left: the exchange is asked.
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
from include.store.candles.minutes import first_minutes, last_minutes, minutes_to_ask
from include.store.postgres.pools import connect
from streamer.candles.events import LACKING, NOTHING_CAME
from streamer.hub.hub import Hub
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

LOOK_AFTER_S = 150.0
"""By then all symbols have rows of newer minutes, and what was under way is stored."""
STILL_UNDER_WAY_US = 2 * MINUTE_US
"""Minutes that ended so lately are not looked at: they may wait for their kline, or for REST."""
MAX_CALL_S = 300.0
"""For the minutes of all symbols; longer than that, PostgreSQL hangs."""
POLL_S = 1.0

Ask = Callable[[str, int, int, str], None]
"""Given symbol, start, end (µs) and cause."""


class FailoverCheck:
    """Asks for minutes that the table has no longer.

    Args:
        hub: knows the symbols that are streamed.
        exchange_us: the exchange's clock.
        ask: given the ranges of minutes that are missing, or not verified.
    """

    def __init__(
        self, settings: Settings, hub: Hub, exchange_us: Callable[[], int], ask: Ask
    ) -> None:
        self._url = settings.url_for("streamer")
        self._lookback_us = settings.fill_lookback_minutes * MINUTE_US
        self._hub = hub
        self._exchange_us = exchange_us
        self._ask = ask
        self._due_s: float | None = None
        self._begun_us: dict[str, int] = {}
        self._left_us: dict[str, int] = {}
        """Symbols that left since the last look, and the minute in which they did."""

    def begun(self, begins_us: Mapping[str, int]) -> None:
        """Symbols were begun, each with a minute (µs) of its past."""
        self._begun_us.update(begins_us)

    def left(self, symbols: Iterable[str]) -> None:
        """Symbols are streamed no longer; the next look is for what the table lacks of them too."""
        now_us = minute_of(self._exchange_us())
        since_us = now_us - self._lookback_us
        self._left_us = {one: at for one, at in self._left_us.items() if at >= since_us}
        self._left_us.update(dict.fromkeys(symbols, now_us))

    def note(self) -> None:
        """PostgreSQL is back."""
        self._due_s = asyncio.get_running_loop().time() + LOOK_AFTER_S

    async def run(self) -> None:
        """Look, some time after each return, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_S)
            if self._due_s is None or loop.time() < self._due_s:
                continue
            self._due_s = None
            try:
                await self.look()
            except (TransientError, PermanentError, TimeoutError) as error:
                self.note()
                reason = str(error) or f"hangs for {MAX_CALL_S:g} s"
                log.info("candles_not_looked_at", error=reason, retry_in_s=LOOK_AFTER_S)

    async def look(self) -> None:
        """Look once.

        Raises:
            TransientError, PermanentError, TimeoutError: PostgreSQL does not answer as it should.
        """
        until_us = minute_of(self._exchange_us() - STILL_UNDER_WAY_US)
        known = dict(self._left_us)
        ends_us = dict.fromkeys(self._hub.symbols, until_us)
        for symbol, at_us in known.items():
            ends_us.setdefault(symbol, min(at_us, until_us))
        begun_us = {one: at for one, at in self._begun_us.items() if one in ends_us}
        self._begun_us = dict(begun_us)
        since_us = until_us - self._lookback_us
        async with asyncio.timeout(MAX_CALL_S):
            lacking, last_us = await in_thread(
                partial(self._read, list(ends_us), begun_us, since_us),
                name="look_back",
            )
        for symbol, ranges in lacking.items():
            for start_us, end_us in ranges:
                if start_us < ends_us[symbol]:
                    self._ask(symbol, start_us, min(end_us, ends_us[symbol]), LACKING)
        for symbol, end_us in ends_us.items():
            if symbol in last_us:
                next_us = last_us[symbol] + MINUTE_US
            elif symbol in begun_us:
                next_us = begun_us[symbol]  # no row is left of it, if it had one
            else:
                continue
            if (next_us := max(next_us, since_us)) < end_us:
                self._ask(symbol, next_us, end_us, NOTHING_CAME)  # mostly it is halted
        self._left_us = dict(self._left_us.items() - known.items())  # some left meanwhile

    def _read(
        self, symbols: list[str], begun_us: Mapping[str, int], since_us: int
    ) -> tuple[dict[str, Ranges], dict[str, int]]:
        """What is missing up to the newest rows, or not verified; and the newest rows' times."""
        with connect(self._url, application_name="candelabra-streamer") as connection:
            lacking = minutes_to_ask(connection, symbols, since_us)
            for symbol, first_us in first_minutes(connection, begun_us, since_us).items():
                begin_us = max(begun_us[symbol], since_us)
                if begin_us < first_us:
                    lacking.setdefault(symbol, []).insert(0, (begin_us, first_us))
            return lacking, last_minutes(connection, symbols)
