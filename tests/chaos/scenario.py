"""What goes wrong in one run of chaos, drawn from a seed: the same seed, the same plan."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from include.domain.timeframes import MINUTE_US
from simulator.config import SimulatorConfig
from simulator.faults.chance import chosen_kinds, draw_plan

SPOT: Final = ("BTCUSDT", "ETHBTC", "PEPEUSDT", "OPUSDT")
UM: Final = ("BTCUSDT", "PEPEUSDT")
SYMBOLS: Final = (*SPOT, *(f"{name}.P" for name in UM))
KINDS: Final = ("connection", "frame", "rest", "halt", "delisting", "ticker_reuse")
"""Kinds and groups of faults of the exchange: all that a streamer meets. It reads no dumps."""
FAULTS_A_MINUTE: Final = 6

STREAMER_STRIKES: Final = ("kill", "kill", "kill", "terminate", "freeze")
POSTGRES_STRIKES: Final = ("postgres_kill", "postgres_restart", "postgres_hangs_up", "read_only")
MINUTES_A_STRIKE: Final = 3
LONGEST_DOWN_MINUTES: Final = 1.5
FOR_GOOD: Final = ("delisting", "ticker_reuse")
MOST_FOR_GOOD: Final = 2
"""So many symbols of six are delisted at most: of one that is gone nothing more is to be seen."""
LONGEST_PAUSE_S: Final = 240
"""Simulated; a ticker comes back within the run, not after it."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Something that happens to a process.

    Attributes:
        at_us: simulated time from the beginning of the faults.
        kind: one of ``STREAMER_STRIKES`` and ``POSTGRES_STRIKES``.
        down_us: simulated time until what was struck is well again.
    """

    at_us: int
    kind: str
    down_us: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run.

    Attributes:
        minutes: simulated minutes of faults; the calm comes after them.
        entries: the fault plan, with offsets from its beginning.
        rotate_after_s: age at which the streamer replaces a connection, real seconds.
    """

    seed: int
    minutes: float
    speed: float
    clock_start: datetime
    entries: tuple[dict[str, Any], ...]
    strikes: tuple[Strike, ...]
    rotate_after_s: float

    @property
    def market(self) -> SimulatorConfig:
        """The exchange of this run."""
        return SimulatorConfig(
            seed=self.seed,
            spot_symbols=SPOT,
            um_symbols=UM,
            clock_start=self.clock_start,
            speed=self.speed,
        )


def draw(seed: int, *, minutes: float, speed: float) -> Scenario:
    """The run of a seed.

    Args:
        minutes: simulated minutes of faults.
        speed: simulated seconds per real second.
    """
    draws = random.Random(f"chaos {seed}")
    # Each second run begins shortly before a midnight, each fourth before a month's end.
    day = 31 if seed % 4 == 0 else draws.randint(2, 28)
    before_midnight = timedelta(minutes=draws.uniform(2, 2 + minutes))
    midnight = datetime(2026, 1, day, tzinfo=UTC) + timedelta(days=1)
    hours = 0 if seed % 2 == 0 else draws.randint(1, 23)
    return Scenario(
        seed=seed,
        minutes=minutes,
        speed=speed,
        clock_start=midnight - before_midnight - timedelta(hours=hours),
        entries=tuple(_entries(seed, minutes)),
        strikes=_strikes(draws, minutes),
        rotate_after_s=draws.choice((1.5, 3.0, 10.0, 3_600.0)),
    )


def _entries(seed: int, minutes: float) -> list[dict[str, Any]]:
    """The fault plan; what is told in real seconds is made as quick as the clock."""
    drawn = draw_plan(
        seed,
        rate_per_h=60 * FAULTS_A_MINUTE,
        span_us=round(minutes * MINUTE_US),
        symbols={"spot": SPOT, "um": UM},
        kinds=chosen_kinds(KINDS),
    )
    entries = [fault.to_json() for fault in drawn]
    last = [entry for entry in entries if entry["kind"] in FOR_GOOD][MOST_FOR_GOOD:]
    entries = [entry for entry in entries if entry not in last]
    for entry in entries:
        if entry["kind"] == "rest_error" and entry["status"] == 429:
            entry["retry_after_s"] = 0.5
        if entry["kind"] == "slow_rest":
            entry["delay_s"] = 0.5
        if entry["kind"] == "ticker_reuse":
            entry["pause_s"] = min(entry["pause_s"], LONGEST_PAUSE_S)
    return entries


def _strikes(draws: random.Random, minutes: float) -> tuple[Strike, ...]:
    """At least a kill -9 of the streamer and one blow to PostgreSQL, at any moments."""
    kinds = ["kill", draws.choice(POSTGRES_STRIKES)]
    while len(kinds) < minutes / MINUTES_A_STRIKE:
        kinds.append(draws.choice(STREAMER_STRIKES + POSTGRES_STRIKES))
    draws.shuffle(kinds)
    span_us = round(minutes * MINUTE_US)
    moments = sorted(draws.randrange(span_us) for _ in kinds)
    longest_us = round(LONGEST_DOWN_MINUTES * MINUTE_US)
    return tuple(
        Strike(at_us, kind, draws.randrange(longest_us))
        for at_us, kind in zip(moments, kinds, strict=True)
    )
