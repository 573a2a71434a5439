"""The faults of one chaos run, drawn from a seed: the same seed, the same plan."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from include.domain.timeframes import MINUTE_US
from simulator.config import SimulatorConfig
from simulator.faults.chance import chosen_kinds, draw_plan
from tests.chaos.stage.strikes import Strike, draw_strikes

SPOT: Final = ("BTCUSDT", "ETHBTC", "PEPEUSDT", "OPUSDT")
UM: Final = ("BTCUSDT", "PEPEUSDT")
SYMBOLS: Final = (*SPOT, *(f"{name}.P" for name in UM))
KINDS: Final = ("connection", "frame", "rest", "market")
"""Groups of faults of the exchange: all that a streamer meets. It reads no dumps."""
FAULTS_A_SECOND: Final = 12
"""Real seconds. Each lasts up to three minutes of the exchange, halts up to fifteen."""

MAX_OF: Final = {"delisting": 2, "ticker_reuse": 2, "new_listing": 4}
"""Of a symbol that is gone nothing more is to be seen: few of the six are."""
FOR_GOOD: Final = ("delisting", "ticker_reuse")
LONGEST_PAUSE_S: Final = 240
"""Simulated; a ticker comes back within the run, not after it."""
UNDETECTABLE: Final = {"wrong_kline"}
"""Where trades are missing too, only the daily comparison with REST finds a wrong kline."""
BANNED: Final = 418
"""Status that random plans leave out."""

WANTED: Final = {
    "names": (*SPOT, *(f"{name}.P" for name in UM)),
    "patterns": ("*USDT", "ETHBTC", "*.P"),
    "all": (),
}
"""Ways to configure the streamer's symbols. The last two follow new listings."""
CAPTURES: Final = (
    (), (), (), (), ("agg_trades",), ("agg_trades",), ("agg_trades", "trades"),
    ("agg_trades", "trades", "book_tickers"),
)  # fmt: skip
"""Quotes are ten times as many as trades: few runs have them."""
STREAMS_A_CONNECTION: Final = (2, 4, 6, 1_024)
"""With 2, each symbol has a connection of its own, which is silent while the symbol is halted."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run.

    Attributes:
        minutes: simulated minutes of faults; the calm comes after them.
        entries: the fault plan, with offsets from its beginning.
        rotate_after_s: age at which the streamer replaces a connection, real seconds.
        connection_life_s: age at which the exchange closes one, simulated seconds.
        streams_a_connection: most that a connection carries.
        wanted: key of ``WANTED``.
        capture: tables of raw capture that are filled.
    """

    seed: int
    minutes: float
    speed: float
    clock_start: datetime
    entries: tuple[dict[str, Any], ...]
    strikes: tuple[Strike, ...]
    rotate_after_s: float
    connection_life_s: float
    streams_a_connection: int
    wanted: str
    capture: tuple[str, ...]

    @property
    def follows(self) -> bool:
        """Whether the streamer adds new listings."""
        return self.wanted != "names"

    @property
    def market(self) -> SimulatorConfig:
        """The exchange of this run."""
        return SimulatorConfig(
            seed=self.seed,
            spot_symbols=SPOT,
            um_symbols=UM,
            clock_start=self.clock_start,
            speed=self.speed,
            connection_life_s=self.connection_life_s,
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
    capture = draws.choice(CAPTURES)
    return Scenario(
        seed=seed,
        minutes=minutes,
        speed=speed,
        clock_start=midnight - before_midnight - timedelta(hours=hours),
        entries=tuple(_entries(draws, seed, minutes, speed, captures=bool(capture))),
        strikes=draw_strikes(draws, minutes=minutes, speed=speed),
        rotate_after_s=draws.choice((1.5, 3.0, 10.0, 3_600.0)),
        connection_life_s=draws.choice((4 * speed, 86_400.0)),
        streams_a_connection=draws.choice(STREAMS_A_CONNECTION),
        wanted=draws.choice(list(WANTED)),
        capture=capture,
    )


def _entries(
    draws: random.Random, seed: int, minutes: float, speed: float, *, captures: bool
) -> list[dict[str, Any]]:
    """The fault plan; durations in real seconds are divided by the clock's speed.

    Args:
        captures: whether rows of raw capture are compared with the exchange; only then is a ticker
            reused.
    """
    drawn = draw_plan(
        seed,
        rate_per_h=FAULTS_A_SECOND * 3_600 / speed,
        span_us=round(minutes * MINUTE_US),
        symbols={"spot": SPOT, "um": UM},
        kinds=[kind for kind in chosen_kinds(KINDS) if kind.name not in UNDETECTABLE],
    )
    entries: list[dict[str, Any]] = []
    made: Counter[str] = Counter()
    reused: set[str] = set()
    for fault in drawn:
        entry = fault.to_json()
        made[entry["kind"]] += 1
        if made[entry["kind"]] > MAX_OF.get(entry["kind"], len(drawn)):
            continue
        if captures and entry["kind"] == "ticker_reuse":
            # The key of raw capture is an id of a day: a third instrument has the second's ids.
            name = f"{entry['market']} {entry['symbols']}"
            if name in reused:
                continue
            reused.add(name)
        if entry["kind"] == "rest_error":
            if draws.random() < 0.2:
                entry["status"] = BANNED
            if entry["status"] in (BANNED, 429):
                entry["retry_after_s"] = 1
        if entry["kind"] == "slow_rest":
            entry["delay_s"] = 0.5
        if entry["kind"] == "ticker_reuse":
            entry["pause_s"] = min(entry["pause_s"], LONGEST_PAUSE_S)
        entries.append(entry)
    return entries
