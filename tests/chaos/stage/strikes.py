"""Strikes on processes in a chaos run: kinds, targets and times."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

Target = Literal["streamer", "twin", "postgres"]

TARGETS: Final[dict[str, Target]] = {
    "kill": "streamer",
    "terminate": "streamer",
    "freeze": "streamer",
    "twin": "twin",
    "postgres_kill": "postgres",
    "failover": "postgres",
    "postgres_restart": "postgres",
    "postgres_hangs_up": "postgres",
    "postgres_freeze": "postgres",
    "read_only": "postgres",
    "refuse_rows": "postgres",
    "long_stop": "streamer",
    "long_outage": "postgres",
}
"""Each kind of strike, and its target. A target that is down is not struck until it has recovered.
"""

STREAMER_STRIKES: Final = ("kill", "kill", "kill", "terminate", "freeze", "twin", "twin")
POSTGRES_STRIKES: Final = (
    "postgres_kill", "postgres_restart", "postgres_hangs_up", "postgres_freeze", "read_only",
)  # fmt: skip
FAILOVERS: Final = 0.4
"""Share of the kills of PostgreSQL after which a lagging standby takes over."""
SECONDS_A_STRIKE: Final = 2.0
"""Real ones: a streamer needs one to start, and is to stream between the strikes."""
LONGEST_DOWN_S: Final = 1.5
"""Real seconds, too: minutes of the exchange."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Something that happens to a process.

    Attributes:
        at_us: simulated time from the beginning of the faults.
        kind: a key of ``TARGETS``.
        down_us: simulated time until what was struck is well again, or the twin ends.
    """

    at_us: int
    kind: str
    down_us: int

    @property
    def target(self) -> Target:
        """The target."""
        return TARGETS[self.kind]


def draw_strikes(draws: random.Random, *, minutes: float, speed: float) -> tuple[Strike, ...]:
    """At least a kill -9 of the streamer and one blow to PostgreSQL, at any moments.

    Args:
        minutes: simulated minutes in which they begin.
        speed: simulated seconds per real second.
    """
    span_us = round(minutes * 60_000_000)
    kinds = ["kill", draws.choice(POSTGRES_STRIKES)]
    while len(kinds) < minutes * 60 / speed / SECONDS_A_STRIKE:
        # Both sides are hit as often.
        kinds.append(draws.choice(draws.choice((STREAMER_STRIKES, POSTGRES_STRIKES))))
    draws.shuffle(kinds)
    moments = sorted(draws.randrange(span_us) for _ in kinds)
    # From a separate random generator: everything else that a seed means is unchanged.
    behind = random.Random(sum(moments))
    kinds = [
        "failover" if kind == "postgres_kill" and behind.random() < FAILOVERS else kind
        for kind in kinds
    ]
    longest_us = round(LONGEST_DOWN_S * speed * 1_000_000)
    return tuple(
        Strike(at_us, kind, draws.randrange(longest_us))
        for at_us, kind in zip(moments, kinds, strict=True)
    )


def draw_refused_rows(draws: random.Random, *, minutes: float, speed: float) -> tuple[Strike, ...]:
    """In half of the runs: PostgreSQL refuses some rows for a while, and takes the others."""
    if draws.random() < 0.5:
        return ()
    at_us = round(draws.uniform(0.1, 0.9) * minutes * 60_000_000)
    down_us = round(draws.uniform(0.3, 0.9) * LONGEST_DOWN_S * speed * 1_000_000)
    return (Strike(at_us, "refuse_rows", down_us),)


def draw_long_stops(
    draws: random.Random, *, minutes: float, lookback_minutes: int
) -> tuple[Strike, ...]:
    """A stop of the streamer that is longer than its lookback; in half of the runs PostgreSQL is
    away as well, since shortly before.

    Args:
        minutes: simulated minutes of the run.
        lookback_minutes: `FILL_LOOKBACK_MINUTES`.
    """
    minute_us = 60_000_000
    at_us = round(draws.uniform(0.1, 0.5) * minutes * minute_us)
    down_us = round((lookback_minutes + draws.uniform(5, 15)) * minute_us)
    stop = Strike(at_us, "long_stop", down_us)
    if draws.random() < 0.5:
        return (stop,)
    before_us = round(draws.uniform(1, 4) * minute_us)
    return (Strike(at_us - before_us, "long_outage", down_us + before_us // 2), stop)
