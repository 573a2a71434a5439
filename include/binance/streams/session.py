"""One stream connection as a state machine without a socket.

It receives frames and times, and returns what to send next. It respects these limits:

- An acknowledgement proves nothing.
- More than five control messages in a rolling second close the connection with 1008 and get the
  address banned for minutes. So one batch is sent every 500 ms, and none before the last one is
  answered, because the network may delay messages and deliver them together.
- A connection carries at most 1,024 streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from include.binance.streams.messages import ControlAnswer
from include.counts import counted

MAX_STREAMS = 1024
NAMES_PER_MESSAGE = 200
CONTROL_INTERVAL_S = 0.5
ANSWER_TIMEOUT_S = 10.0


class StreamSession:
    """Subscriptions of one connection.

    Args:
        streams: names wanted from the start (``btcusdt@aggTrade`` …).
        max_streams: maximum streams of the connection.

    Times given to its methods are seconds of one monotonic clock.
    """

    def __init__(
        self,
        streams: Sequence[str],
        *,
        max_streams: int = MAX_STREAMS,
        names_per_message: int = NAMES_PER_MESSAGE,
        control_interval_s: float = CONTROL_INTERVAL_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        if len(set(streams)) > max_streams:
            raise ValueError(
                f"{counted(len(streams), 'stream')} on a connection that carries {max_streams}"
            )
        self._max_streams = max_streams
        self._names_per_message = names_per_message
        self._control_interval_s = control_interval_s
        self._answer_timeout_s = answer_timeout_s
        self._wanted: dict[str, None] = dict.fromkeys(streams)
        self._queue: deque[tuple[str, list[str]]] = deque()
        self._unanswered: dict[int, tuple[str, list[str], float]] = {}
        self._next_id = 1
        self._next_send_at = 0.0
        self._enqueue("SUBSCRIBE", list(self._wanted))

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of streams that are subscribed or queued."""
        return tuple(self._wanted)

    @property
    def room(self) -> int:
        """Number of streams that can still be added."""
        return self._max_streams - len(self._wanted)

    @property
    def sent(self) -> int:
        """Number of control messages sent; the exchange answers each once."""
        return self._next_id - 1

    @property
    def queued(self) -> int:
        """Number of control messages waiting to be sent."""
        return len(self._queue)

    @property
    def is_subscribed(self) -> bool:
        """Whether every batch has been sent and answered."""
        return not self._queue and not self._unanswered

    def subscribe(self, names: Iterable[str]) -> None:
        """Add streams; names already present are ignored."""
        new = [name for name in dict.fromkeys(names) if name not in self._wanted]
        if len(new) > self.room:
            raise ValueError(
                f"{counted(len(new), 'more stream does', 'more streams do')} not fit; there "
                f"is room for {self.room}"
            )
        self._wanted.update(dict.fromkeys(new))
        self._enqueue("SUBSCRIBE", new)

    def unsubscribe(self, names: Iterable[str]) -> None:
        """Remove streams."""
        old = [name for name in dict.fromkeys(names) if name in self._wanted]
        for name in old:
            del self._wanted[name]
        self._enqueue("UNSUBSCRIBE", old)

    def resubscribe(self, names: Iterable[str]) -> None:
        """Subscribe silent streams again; repeated calls have no further effect."""
        queued = {name for _, names_queued in self._queue for name in names_queued}
        silent = [
            name for name in dict.fromkeys(names) if name in self._wanted and name not in queued
        ]
        self._enqueue("UNSUBSCRIBE", silent)
        self._enqueue("SUBSCRIBE", silent)

    def next_message(self, now_s: float) -> bytes | None:
        """Return the control message that is due, if any."""
        if not self._queue or self._unanswered or now_s < self._next_send_at:
            return None
        method, names = self._queue.popleft()
        request_id = self._next_id
        self._next_id += 1
        self._unanswered[request_id] = (method, names, now_s)
        self._next_send_at = now_s + self._control_interval_s
        return msgspec.json.encode({"method": method, "params": names, "id": request_id})

    def on_answer(self, answer: ControlAnswer) -> str | None:
        """Apply an answer; return a description of what was refused, or None."""
        request_id = answer.request_id
        sent = self._unanswered.pop(request_id, None) if isinstance(request_id, int) else None
        if answer.error_code is None:
            return None
        what = f"{sent[0]} of {counted(len(sent[1]), 'stream')}" if sent else "a request"
        return f"{what} refused: code {answer.error_code} {answer.error_message}"

    def is_answer_overdue(self, now_s: float) -> bool:
        """Whether the answer to a control message is overdue: the connection is half dead."""
        return any(now_s - sent > self._answer_timeout_s for *_, sent in self._unanswered.values())

    def _enqueue(self, method: str, names: list[str]) -> None:
        for start in range(0, len(names), self._names_per_message):
            self._queue.append((method, names[start : start + self._names_per_message]))
