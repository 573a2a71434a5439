"""The exchange's clock: simulated time runs `speed` times as fast as the wall clock."""

import math
import time
from datetime import UTC, datetime, timedelta

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(moment: datetime) -> int:
    """Return microseconds since the epoch, exactly. A time without a zone is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def from_us(time_us: int) -> datetime:
    """Return the UTC time of microseconds since the epoch."""
    return _EPOCH + timedelta(microseconds=time_us)


def wall_now_us() -> int:
    """Return the wall clock in microseconds since the epoch."""
    return time.time_ns() // 1_000


class SimulatedClock:
    """Maps the machine's monotonic time to simulated time.

    Args:
        start_us: simulated time at which the clock starts; the wall clock if None.
        speed: simulated seconds per real second; 0 stops the clock.
    """

    def __init__(self, *, start_us: int | None = None, speed: float = 1.0) -> None:
        if not (math.isfinite(speed) and speed >= 0):
            raise ValueError(f"speed is {speed}; it must be a finite number of at least 0")
        self.speed = speed
        self._start_us = wall_now_us() if start_us is None else start_us
        self._started_ns = time.monotonic_ns()
        self._holders: set[object] = set()
        self._held_ns = 0
        self._waited_ns = 0
        self._waits: list[tuple[int, int, int]] = []
        """Monotonic time, running time and length of each hold."""

    def hold(self, holder: object) -> None:
        """Stop the clock until this holder and all others release it."""
        if not self._holders:
            self._held_ns = time.monotonic_ns()
        self._holders.add(holder)

    def release(self, holder: object) -> None:
        """Let the clock run on from where it stopped; does nothing without a hold."""
        if holder not in self._holders:
            return
        if len(self._holders) == 1:
            waited_ns = time.monotonic_ns() - self._held_ns
            ran_ns = self._held_ns - self._started_ns - self._waited_ns
            self._waits.append((self._held_ns, ran_ns, waited_ns))
            self._waited_ns += waited_ns
        self._holders.discard(holder)

    def now_us(self) -> int:
        """Return simulated time in µs since the epoch. Never goes back."""
        now_ns = self._held_ns if self._holders else time.monotonic_ns()
        elapsed_us = (now_ns - self._started_ns - self._waited_ns) // 1_000
        if self.speed == 1.0:
            return self._start_us + elapsed_us
        return self._start_us + int(elapsed_us * self.speed)

    def time_at(self, monotonic_ns: int) -> int:
        """Return the simulated time (µs) at a moment of the monotonic clock."""
        waited_ns = sum(
            min(length_ns, monotonic_ns - began_ns)
            for began_ns, _, length_ns in self._waits
            if began_ns < monotonic_ns
        )
        elapsed_us = (monotonic_ns - self._started_ns - waited_ns) / 1_000
        return self._start_us + round(elapsed_us * self.speed)

    def monotonic_at(self, time_us: int) -> int:
        """Return the moment (ns) of the monotonic clock at which it was a simulated time."""
        ran_ns = round((time_us - self._start_us) / self.speed * 1_000)
        waited_ns = sum(length_ns for _, at_ns, length_ns in self._waits if at_ns < ran_ns)
        return self._started_ns + ran_ns + waited_ns

    def real_seconds(self, span_us: int) -> float:
        """Return how long a span of simulated time takes; infinite if the clock is stopped."""
        if self.speed == 0:
            return math.inf
        return span_us / SECOND_US / self.speed

    def seconds_until(self, time_us: int) -> float:
        """Return real seconds until simulated time `time_us`; 0 if it has passed."""
        left_us = time_us - self.now_us()
        return 0.0 if left_us <= 0 else self.real_seconds(left_us)
