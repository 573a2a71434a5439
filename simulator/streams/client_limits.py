"""The exchange's limits on clients: messages, pongs, connects. Times are real seconds."""

from collections import deque

MESSAGE_WINDOW_S = 1.0
CONNECT_WINDOW_S = 300.0


class MessageRate:
    """Inbound messages of one connection in a rolling window, by default a second."""

    def __init__(self, *, window_s: float = MESSAGE_WINDOW_S) -> None:
        self._window_s = window_s
        self._arrivals: deque[float] = deque()

    def exceeds(self, limit: int, now_s: float) -> bool:
        """Count a message and return whether it exceeds the limit."""
        arrivals = self._arrivals
        while arrivals and now_s - arrivals[0] >= self._window_s:
            arrivals.popleft()
        arrivals.append(now_s)
        return len(arrivals) > limit


class OpenPings:
    """Pings of one connection that wait for their pong.

    A pong counts only with the payload of such a ping, and then answers earlier pings too (RFC 6455
    section 5.5.3). Any other pong is unsolicited and does not keep the connection.
    """

    def __init__(self) -> None:
        self._sent: dict[bytes, float] = {}

    def send(self, payload: bytes, deadline_s: float) -> None:
        """Record a ping and the deadline of its pong."""
        self._sent[payload] = deadline_s

    def answer(self, payload: bytes) -> bool:
        """Record a pong; return False if it answers no ping."""
        if payload not in self._sent:
            return False
        for earlier in list(self._sent):
            del self._sent[earlier]
            if earlier == payload:
                break
        return True

    def are_overdue(self, now_s: float) -> bool:
        """Whether a pong has missed its deadline."""
        return any(deadline_s <= now_s for deadline_s in self._sent.values())


class ConnectLimit:
    """Connects of each address within a rolling window; refused ones do not count.

    Args:
        limit: connects per window.
        window_s: length of the window.
    """

    def __init__(self, limit: int, *, window_s: float = CONNECT_WINDOW_S) -> None:
        self._limit = limit
        self._window_s = window_s
        self._connects: dict[str, deque[float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """Count a connect and return 0, or the seconds until the address may connect again."""
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
