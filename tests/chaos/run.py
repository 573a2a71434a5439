"""One run of chaos: an exchange on a fast clock, a streamer, a PostgreSQL, and what befalls all."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.postgres import EmbeddedPostgres
from include.config import Settings, load_settings
from include.domain.timeframes import MINUTE_US, minute_of
from include.errors import TransientError
from include.jobs.repair import repair_gaps
from simulator.server import ExchangeThread
from tests.chaos.processes import Database, StreamerProcess, fresh_database
from tests.chaos.scenario import SYMBOLS, Scenario, Strike
from tests.chaos.verdict import MOST_TOLD, Truth, differences, gaps_of, shortened, truth
from tests.integration.faults.staging import minutes_of, read_rows

FACTOR = 10.0
"""By which waits between tries are shortened."""
CALM_MINUTES = 6
"""Simulated: a halt is sure after five minutes."""
SETTLE_TIMEOUT_S = 60.0
START_TIMEOUT_S = 60.0
REPAIR_EVERY_S = 1.0
REPAIR_AFTER_S = 2.0
"""Younger gaps are the streamer's; older ones the DAG's, whose job is run here."""


class ChaosError(AssertionError):
    """What was wrong at the end; its message has the seed and how to run it again."""


@dataclass(slots=True)
class Outcome:
    """What one run did, for the report.

    Attributes:
        minutes: minutes of symbols that were compared.
        hits: faults that hit something, of all.
        gaps, gaps_of_jobs: gaps that were opened, and how many jobs closed.
    """

    seed: int
    minutes: int = 0
    faults: int = 0
    hits: int = 0
    strikes: list[str] = field(default_factory=list)
    outage_minutes: int = 0
    gaps: int = 0
    gaps_of_jobs: int = 0
    seconds: float = 0.0
    settled_after_s: float = 0.0

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.minutes} minutes equal and verified, "
            f"{self.outage_minutes} of outages; {self.hits} of {self.faults} faults hit, "
            f"{', '.join(self.strikes)}; {self.gaps} gaps, {self.gaps_of_jobs} closed by jobs; "
            f"settled {self.settled_after_s:.1f} s after the calm; {self.seconds:.1f} s"
        )


def run(scenario: Scenario, server: EmbeddedPostgres, *, keep: Path | None = None) -> Outcome:
    """Run a scenario on a server, and hold the table to the exchange.

    Args:
        keep: folder for the streamer's log and the fault plan; a temporary one if None.

    Raises:
        ChaosError: the table is not the exchange's, or the streamer ended by itself.
    """
    began_s = time.monotonic()
    with ExitStack() as stack:
        folder = keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="candelabra-chaos-"))
        )
        database = stack.enter_context(fresh_database(server, f"chaos_{scenario.seed}"))
        exchange = stack.enter_context(ExchangeThread(scenario.market))
        log_file = folder / f"streamer-{scenario.seed}.log"
        log_file.write_text("")
        plan = [json.dumps(entry) for entry in scenario.entries]
        (folder / f"faults-{scenario.seed}.json").write_text("[\n" + ",\n".join(plan) + "\n]\n")
        streamer = StreamerProcess(
            _environment(exchange, database, scenario), factor=FACTOR, log_file=log_file
        )
        stack.enter_context(streamer)
        one = _Run(scenario, exchange, streamer, database)
        stack.callback(one.close)
        try:
            outcome = one.all()
        except (AssertionError, TransientError) as error:
            raise ChaosError(one.told(error)) from error
    outcome.seconds = time.monotonic() - began_s
    return outcome


def command(scenario: Scenario) -> str:
    """How to run it again."""
    return (
        f"python -m tests.chaos --seed {scenario.seed} --minutes {scenario.minutes:g} "
        f"--speed {scenario.speed:g}"
    )


class _Run:
    """The steps of one run."""

    def __init__(
        self,
        scenario: Scenario,
        exchange: ExchangeThread,
        streamer: StreamerProcess,
        database: Database,
    ) -> None:
        self._scenario = scenario
        self._exchange = exchange
        self._streamer = streamer
        self._database = database
        self._settings = _settings(exchange, database)
        self._serving = exchange.call(lambda: asyncio.ensure_future(exchange.exchange.wait()))
        self._repaired_s = 0.0
        self._outcome = Outcome(scenario.seed)

    def all(self) -> Outcome:
        """From the first start to the last comparison."""
        self._streamer.start()
        began_us = self._first_rows()
        self._faults(self._now_us())
        self._calm()
        until_us = minute_of(self._now_us())
        true = truth(self._exchange, began_us, until_us)
        self._settle(true, began_us, until_us)
        self._streamer.terminate()
        self._report(true, began_us, until_us)
        return self._outcome

    def check(self) -> None:
        """Raises where the streamer, or a part of the exchange, has ended by itself."""
        self._streamer.check()
        if self._serving.done():
            raise AssertionError(f"the simulator failed: {self._serving.exception()!r}")

    def close(self) -> None:
        """No longer watch the exchange."""
        self._exchange.call(self._serving.cancel)

    def told(self, error: Exception) -> str:
        """What went wrong, with all that is needed to see it again."""
        scenario = self._scenario
        strikes = ", ".join(f"{one.kind} at +{one.at_us / 1e6:.0f}s" for one in scenario.strikes)
        told = scenario.entries[:MOST_TOLD]
        faults = "\n".join(f"  {json.dumps(entry)}" for entry in told)
        return (
            f"seed {scenario.seed} failed: {error}\n"
            f"run it again: {command(scenario)}\n"
            f"strikes: {strikes}\nfirst of {len(scenario.entries)} faults:\n{faults}\n"
            f"logged: {dict(self._streamer.events())}\n{self._streamer.tail()}"
        )

    # --- steps

    def _first_rows(self) -> dict[str, int]:
        """Wait until each symbol has a row; from there on no minute may be missing."""
        firsts: dict[str, int] = {}

        def have_rows() -> bool:
            rows = read_rows(self._database.url)
            for symbol in SYMBOLS:
                minutes = minutes_of(rows, symbol)
                if minutes:
                    firsts[symbol] = minutes[0]
            return len(firsts) == len(SYMBOLS)

        self._until(have_rows, "a first row of each symbol", START_TIMEOUT_S)
        return firsts

    def _faults(self, start_us: int) -> None:
        self._exchange.faults.add(list(self._scenario.entries))
        for strike in self._scenario.strikes:
            self._wait_until_us(start_us + strike.at_us)
            self._strike(strike)
            self._outcome.strikes.append(strike.kind)
        self._wait_until_us(start_us + round(self._scenario.minutes * MINUTE_US))

    def _calm(self) -> None:
        listed = self._exchange.faults.listed()
        self._outcome.faults = len(listed)
        for each in listed:
            if each["state"] == "active" and "duration_s" in each:
                self._exchange.faults.remove(each["id"])
        self._outcome.hits = sum(1 for each in listed if each["hits"])
        self._wait_until_us(self._now_us() + CALM_MINUTES * MINUTE_US)

    def _settle(self, true: Truth, began_us: dict[str, int], until_us: int) -> None:
        found: list[str] = []

        def is_settled() -> bool:
            self._repair()
            found[:] = differences(self._database.url, true, began_us, until_us)
            return not found

        calm_s = time.monotonic()
        try:
            self._until(is_settled, "the table of the exchange", SETTLE_TIMEOUT_S)
        except TimeoutError as error:
            raise AssertionError(
                f"{len(found)} differences after {SETTLE_TIMEOUT_S:g} s of calm:\n"
                f"{shortened(found)}"
            ) from error
        self._outcome.settled_after_s = time.monotonic() - calm_s

    def _repair(self) -> None:
        """As the DAG ``repair_gaps`` does, every so often."""
        if time.monotonic() >= self._repaired_s + REPAIR_EVERY_S:
            repair_gaps(settings=self._settings, worker="chaos", older_than_s=REPAIR_AFTER_S)
            self._repaired_s = time.monotonic()

    def _report(self, true: Truth, began_us: dict[str, int], until_us: int) -> None:
        outcome = self._outcome
        outcome.minutes = sum(len(minutes) for minutes in true.values())
        span = sum((until_us - start_us) // MINUTE_US for start_us in began_us.values())
        outcome.outage_minutes = span - outcome.minutes
        outcome.gaps, outcome.gaps_of_jobs = gaps_of(self._database.url)

    # --- strikes

    def _strike(self, strike: Strike) -> None:
        database, streamer = self._database, self._streamer
        hurt: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "kill": (streamer.kill, streamer.start),
            "terminate": (streamer.terminate, streamer.start),
            "freeze": (streamer.freeze, streamer.thaw),
            "postgres_kill": (database.crash, database.start),
            "postgres_restart": (database.shut_down, database.start),
            "postgres_hangs_up": (database.hang_up, lambda: None),
            "read_only": (
                lambda: database.set_read_only(True),
                lambda: database.set_read_only(False),
            ),
        }
        begin, end = hurt[strike.kind]
        until_us = self._now_us() + strike.down_us
        begin()
        try:
            self._sleep_until_us(until_us)
        finally:
            end()

    # --- time

    def _now_us(self) -> int:
        return int(self._exchange.clock.now_us())

    def _sleep_until_us(self, moment_us: int) -> None:
        time.sleep(self._exchange.clock.seconds_until(moment_us))

    def _wait_until_us(self, moment_us: int) -> None:
        """Let time pass; the streamer must not end meanwhile."""
        while (left_s := self._exchange.clock.seconds_until(moment_us)) > 0:
            self.check()
            time.sleep(min(left_s, 0.1))

    def _until(self, holds: Callable[[], bool], what: str, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        while not holds():
            self.check()
            if time.monotonic() > until_s:
                raise TimeoutError(f"{what} did not come in {timeout_s:g} s")
            time.sleep(0.1)


def _urls(exchange: ExchangeThread) -> dict[str, str]:
    return {
        "binance_ws_url": exchange.spot_ws_url,
        "binance_rest_url": exchange.spot_rest_url,
        "binance_um_ws_url": exchange.um_ws_url,
        "binance_um_rest_url": exchange.um_rest_url,
    }


def _settings(exchange: ExchangeThread, database: Database) -> Settings:
    """Of the jobs."""
    return load_settings(
        database_url=database.url, jobs_database_url=database.jobs_url, **_urls(exchange)
    )


def _environment(
    exchange: ExchangeThread, database: Database, scenario: Scenario
) -> dict[str, str]:
    """Of the streamer. Waits for the exchange's words are in its time, which runs faster here
    than threads are woken: they are given as much more of it.
    """
    return {
        **{name.upper(): url for name, url in _urls(exchange).items()},
        "STREAMER_DATABASE_URL": database.streamer_url,
        "SYMBOLS": ",".join(SYMBOLS),
        "STALE_STREAM_S": "1.5",
        "HTTP_TIMEOUT_S": "2",
        "ROTATE_AFTER_S": f"{scenario.rotate_after_s:g}",
        "CLOSE_GRACE_SPOT_MS": "3000",
        "CLOSE_GRACE_UM_MS": "3000",
        "KLINE_TIMEOUT_MS": "20000",
        "BATCH_FLUSH_TIMEOUT_MS": "50",
        "STREAMER_HTTP_PORT": "0",
        "LOG_FORMAT": "json",
    }
