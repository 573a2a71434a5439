"""Base class of all feeds: stream names, control frames and bad frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from include.binance.streams.messages import ControlAnswer, ServerShutdown
from include.domain.instruments import Market
from include.errors import PermanentError
from streamer.exchange.connection import StreamConnection

log = structlog.get_logger(__name__)

LOGGED_BAD_FRAMES = 10
"""Bad frames logged in full by each feed; further ones are only counted."""


class Feed:
    """Decodes the frames of one connection and passes them to its consumers.

    Args:
        kinds: streams of each symbol, such as ``aggTrade``.
    """

    connection: StreamConnection

    def __init__(self, market: Market, kinds: Sequence[str]) -> None:
        self.market = market
        self.kinds = tuple(kinds)
        self.frames = 0
        self.bad_frames = 0

    def streams_of(self, names: Iterable[str]) -> list[str]:
        """Return the stream names of symbols, given by the exchange's names."""
        return [f"{name.lower()}@{kind}" for name in names for kind in self.kinds]

    def on_control(self, frame: ControlAnswer | ServerShutdown) -> None:
        """Handle an answer to a subscription, or the announcement of a shutdown."""
        if isinstance(frame, ServerShutdown):
            self.connection.rotate("the exchange announced a shutdown")
            return
        refused = self.connection.session.on_answer(frame)
        if refused is not None:
            log.error("subscription_refused", connection=self.connection.name, what=refused)
            self.connection.reconnect(refused)

    def on_bad_frame(self, error: PermanentError | str) -> None:
        """Count an unusable frame, and log the first ones."""
        self.bad_frames += 1
        if self.bad_frames <= LOGGED_BAD_FRAMES:
            log.warning("bad_frame", connection=self.connection.name, error=str(error))
