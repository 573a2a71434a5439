"""The faults of one chaos run, drawn from a seed: the same seed, the same plan."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from include.domain.timeframes import MINUTE_US
from simulator.config import SimulatorConfig
from simulator.faults.chance import chosen_kinds, draw_plan
from tests.chaos.stage.strikes import (
    Strike,
    draw_long_stops,
    draw_refused_rows,
    draw_strikes,
)

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
DRAWN_APART: Final = frozenset({"wrong_kline"})
"""Drawn by a separate generator, so that the plans of earlier seeds stay the same."""
WRONG_KLINES_AN_HOUR: Final = 20
REFUSALS_AN_HOUR: Final = 2
LONG_MINUTES: Final = 100
"""Runs of this length have stops longer than the lookback, and jobs."""
TIGHT_WEIGHT: Final = 60
"""Weight of a minute that a start or a burst of repairs exceeds."""
BANNED: Final = 418
BLOCKED: Final = 403
"""Statuses that random plans leave out."""

WANTED: Final = {
    "names": (*SPOT, *(f"{name}.P" for name in UM)),
    "patterns": ("*USDT", "ETHBTC", "*.P"),
    "all": ("*", "*.P"),
}
"""Ways to configure the streamer's symbols. The last two follow new listings. `--all` would also
need a COIN-M symbol, of which this exchange has none."""
CAPTURES: Final = (
    (), (), (), (), ("agg_trades",), ("agg_trades",), ("agg_trades", "trades"),
    ("agg_trades", "trades", "book_tickers"),
)  # fmt: skip
"""Quotes are ten times as many as trades: few runs have them."""
STREAMS_A_CONNECTION: Final = (2, 4, 6, 1_024)
"""With 2, each symbol has a separate connection, which is silent while the symbol is halted."""

TLS_SHARE: Final = 0.3
SMALL_BUFFERS: Final = (12, 3_000)
"""Candles and captured rows in memory: two minutes, and some tenths of a real second."""
SMALL_SHARE: Final = 0.4
MAX_LATE_S = 0.2
"""Real: where the machine cannot keep up, the exchange waits, and its frames are no later."""


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
        lookback_minutes: how far back a start fills; shorter where a stop is longer.
        weight_limit: request weight of a minute of the exchange, if it binds.
        trades_at_bounds: whether each minute has trades in its first and last instant.
        is_tls: whether connections to the exchange use TLS, with the run's own authority.
        buffers: candles and captured rows that the streamer holds at most; None as by default.
        has_jobs: whether repairs and builds of the marts run beside the faults.
        is_basic: drawn without the six above, and without refused rows.
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
    lookback_minutes: int = 1_440
    weight_limit: int | None = None
    trades_at_bounds: bool = False
    is_tls: bool = False
    buffers: tuple[int, int] | None = None
    has_jobs: bool = False
    is_basic: bool = False

    @property
    def follows(self) -> bool:
        """Whether the streamer adds new listings."""
        return self.wanted != "names"

    def market(self, folder: Path) -> SimulatorConfig:
        """The exchange of this run; a certificate is written to the folder."""
        limit = self.weight_limit
        return SimulatorConfig(
            seed=self.seed,
            spot_symbols=SPOT,
            um_symbols=UM,
            cm_symbols=(),
            clock_start=self.clock_start,
            speed=self.speed,
            connection_life_s=self.connection_life_s,
            trades_at_bounds=self.trades_at_bounds,
            max_late_s=MAX_LATE_S,
            tls=folder if self.is_tls else None,
            **{} if limit is None else {"spot_weight_limit": limit, "um_weight_limit": limit},
        )


def draw(seed: int, *, minutes: float, speed: float, is_basic: bool = False) -> Scenario:
    """The run of a seed.

    Args:
        minutes: simulated minutes of faults.
        speed: simulated seconds per real second.
        is_basic: leave out long stops, tight request weight, trades at the bounds of minutes, TLS,
            small buffers, refused rows and jobs, as when the seeds of ``FOUND`` were drawn.
    """
    draws = random.Random(f"chaos {seed}")
    # Each second run begins shortly before a midnight, each fourth before a month's end.
    day = 31 if seed % 4 == 0 else draws.randint(2, 28)
    before_midnight = timedelta(minutes=draws.uniform(2, 2 + minutes))
    midnight = datetime(2026, 1, day, tzinfo=UTC) + timedelta(days=1)
    hours = 0 if seed % 2 == 0 else draws.randint(1, 23)
    capture = draws.choice(CAPTURES)
    others = random.Random(f"chaos stops and limits {seed}")
    stops: tuple[Strike, ...] = ()
    lookback_minutes = 1_440
    if not is_basic and minutes >= LONG_MINUTES and others.random() < 0.5:
        lookback_minutes = others.randint(20, 40)
        stops = draw_long_stops(others, minutes=minutes, lookback_minutes=lookback_minutes)
    weight_limit = None if is_basic else others.choice((None, None, TIGHT_WEIGHT))
    trades_at_bounds = not is_basic and others.random() < 0.5
    is_tls = not is_basic and others.random() < TLS_SHARE
    has_jobs = not is_basic and minutes >= LONG_MINUTES and others.random() < 0.5
    further = random.Random(f"chaos buffers and refused rows {seed}")
    has_small_buffers = not is_basic and further.random() < SMALL_SHARE
    if not is_basic and not has_jobs:  # a job fails with a refused row
        stops += draw_refused_rows(further, minutes=minutes, speed=speed)
    return Scenario(
        seed=seed,
        minutes=minutes,
        speed=speed,
        clock_start=midnight - before_midnight - timedelta(hours=hours),
        entries=(
            *_entries(draws, seed, minutes, speed, captures=bool(capture)),
            *_wrong_klines(seed, minutes),
            *_refusals(seed, minutes),
        ),
        strikes=(*draw_strikes(draws, minutes=minutes, speed=speed), *stops),
        rotate_after_s=draws.choice((1.5, 3.0, 10.0, 3_600.0)),
        connection_life_s=draws.choice((4 * speed, 86_400.0)),
        streams_a_connection=draws.choice(STREAMS_A_CONNECTION),
        wanted=draws.choice(list(WANTED)),
        capture=capture,
        lookback_minutes=lookback_minutes,
        weight_limit=weight_limit,
        trades_at_bounds=trades_at_bounds,
        is_tls=is_tls,
        buffers=SMALL_BUFFERS if has_small_buffers else None,
        has_jobs=has_jobs,
        is_basic=is_basic,
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
        kinds=[kind for kind in chosen_kinds(KINDS) if kind.name not in DRAWN_APART],
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


def _wrong_klines(seed: int, minutes: float) -> list[dict[str, Any]]:
    """Faults in which closed klines of one symbol or of a market are wrong."""
    draws = random.Random(f"chaos wrong klines {seed}")
    entries = []
    for number in range(max(1, round(minutes * WRONG_KLINES_AN_HOUR / 60))):
        market = draws.choice(("spot", "spot", "um"))
        of_one = [draws.choice(SPOT if market == "spot" else UM)]
        entries.append(
            {
                "kind": "wrong_kline",
                "id": f"w{seed}-{number + 1}",
                "market": market,
                "at": f"+{draws.uniform(0, minutes * 60):.6f}s",
                "duration_s": draws.randint(60, 240),
                "symbols": draws.choice((of_one, ["*"])),
                "form": draws.choice(("volume", "close", "trades")),
            }
        )
    return entries


def _refusals(seed: int, minutes: float) -> list[dict[str, Any]]:
    """Faults in which the exchange refuses the address (403), as its firewall does."""
    draws = random.Random(f"chaos refusals {seed}")
    return [
        {
            "kind": "rest_error",
            "id": f"b{seed}-{number + 1}",
            "market": draws.choice(("spot", "um")),
            "at": f"+{draws.uniform(0, minutes * 60):.6f}s",
            "duration_s": draws.randint(30, 120),
            "status": BLOCKED,
        }
        for number in range(round(minutes * REFUSALS_AN_HOUR / 60))
    ]
