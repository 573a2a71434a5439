"""What the exchange holds clients to: message rate, pongs, connects; times are real seconds."""

from collections import deque

MESSAGE_WINDOW_S = 1.0
CONNECT_WINDOW_S = 300.0


class MessageRate:
    """Inbound messages of one connection in a rolling second."""

    def __init__(self) -> None:
        self._arrivals: deque[float] = deque()

    def exceeds(self, limit: int, now_s: float) -> bool:
        """Counts a message; True if it is one too many."""
        arrivals = self._arrivals
        while arrivals and now_s - arrivals[0] >= MESSAGE_WINDOW_S:
            arrivals.popleft()
        arrivals.append(now_s)
        return len(arrivals) > limit


class OpenPings:
    """Pings of one connection that wait for their pong.

    A pong counts only with the payload of such a ping, and then answers the earlier ones too
    (RFC 6455 section 5.5.3); any other pong is unsolicited and keeps nothing alive.
    """

    def __init__(self) -> None:
        self._sent: dict[bytes, float] = {}

    def send(self, payload: bytes, deadline_s: float) -> None:
        """Notes a ping and when its pong is due."""
        self._sent[payload] = deadline_s

    def answer(self, payload: bytes) -> bool:
        """Notes a pong; False if it answers nothing."""
        if payload not in self._sent:
            return False
        for earlier in list(self._sent):
            del self._sent[earlier]
            if earlier == payload:
                break
        return True

    def are_overdue(self, now_s: float) -> bool:
        """Whether a pong has been due."""
        return any(deadline_s <= now_s for deadline_s in self._sent.values())


class ConnectLimit:
    """Connects of each address within a rolling window; refused ones do not count.

    Args:
        limit: connects in a window.
        window_s: its length.
    """

    def __init__(self, limit: int, *, window_s: float = CONNECT_WINDOW_S) -> None:
        self._limit = limit
        self._window_s = window_s
        self._connects: dict[str, deque[float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """Counts a connect and returns 0, or the seconds until the address may connect again."""
        self._forget(now_s)
        connects = self._connects.setdefault(address, deque())
        if len(connects) >= self._limit:
            return connects[0] + self._window_s - now_s
        connects.append(now_s)
        return 0.0

    def _forget(self, now_s: float) -> None:
        for address, connects in list(self._connects.items()):
            while connects and now_s - connects[0] >= self._window_s:
                connects.popleft()
            if not connects:
                del self._connects[address]
