"""Keep ``market.instruments`` current while no scheduler does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from include.backoff import Backoff, RetryLoop
from include.config import Settings
from include.domain.instruments import Market
from include.errors import PermanentError, TransientError
from include.jobs.instruments import sync_instruments
from streamer.runtime.threads import in_thread

log = structlog.get_logger(__name__)

INTERVAL_S = 86_400.0
BACKOFF = Backoff(first_s=1.0, max_s=300.0)
SYNC_TIMEOUT_S = 300.0


class Registry:
    """Writes the exchange's list of instruments at the start, daily, and after each new symbol.

    Searches, UDF and the rules of quality read the list. The DAG ``sync_instruments`` does the
    same; a list that is older than the stored one changes nothing.

    Args:
        markets: the markets that are streamed now.
    """

    def __init__(self, settings: Settings, markets: Callable[[], Sequence[Market]]) -> None:
        self._settings = settings
        self._markets = markets
        self._wake = asyncio.Event()

    def refresh(self) -> None:
        """Write the list soon, because there are new symbols."""
        self._wake.set()

    async def run(self) -> None:
        """Synchronise until cancelled."""
        while True:
            self._wake.clear()
            try:
                await RetryLoop(
                    BACKOFF,
                    retry_on=(TransientError, TimeoutError),
                    on_retry=partial(log.warning, "instruments_postponed"),
                ).run(self._synchronise)
            except PermanentError as error:
                # Streaming does not need the registry.
                log.error("instruments_not_synchronised", error=str(error))  # noqa: TRY400
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._wake.wait()

    async def _synchronise(self) -> bool:
        markets = tuple(self._markets())
        async with asyncio.timeout(SYNC_TIMEOUT_S):
            await in_thread(
                lambda: sync_instruments(
                    settings=self._settings, markets=markets, url=self._settings.url_for("streamer")
                ),
                name="instruments",
            )
        return True
