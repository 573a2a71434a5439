"""One run of chaos: an exchange on a fast clock, a streamer, a PostgreSQL, and what befalls all."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psycopg

from deploy.local.postgres import EmbeddedPostgres
from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US, minute_of, to_us
from include.errors import CandelabraError, TransientError
from include.jobs.dbt_env import dbt_environment
from include.jobs.klines.repair import repair_gaps
from simulator.faults.plan import PlanError
from simulator.server import ExchangeThread
from tests.chaos.oracle.capture.captured import Judge, rows_captured
from tests.chaos.oracle.capture.exchanged import trades_of
from tests.chaos.oracle.delivered import Delivered
from tests.chaos.oracle.ledgers import given_up, reused_tickers
from tests.chaos.oracle.marts import listings, wrong_bars
from tests.chaos.oracle.meanwhile.promises import (
    closed_by_unconfirmed,
    closed_too_early,
    lost_between_memory_and_table,
    repaired_too_early,
    still_dead,
)
from tests.chaos.oracle.meanwhile.witness import Witness
from tests.chaos.oracle.readers import unpublished, wrong_in_view
from tests.chaos.oracle.verdict import (
    MAX_REPORTED,
    GapCounts,
    Truth,
    differences,
    expire_claims,
    gaps_of,
    open_gaps,
    shortened,
    sources_of,
    truth,
)
from tests.chaos.scenario import SYMBOLS, Scenario
from tests.chaos.stage.blows import Blows
from tests.chaos.stage.jobs import Jobs
from tests.chaos.stage.processes import StreamerProcess
from tests.chaos.stage.reader import Reader
from tests.chaos.stage.servers import Database, fresh_database
from tests.chaos.stage.trust import TRUST
from tests.chaos.stage.wiring import arguments, environment, settings_of_jobs
from tests.integration.faults.staging import minutes_of, oracle, read_rows

CALM_MINUTES = 6
"""Simulated: a halt is sure after five minutes."""
PATIENCE_S = 180.0
"""Real seconds of calm until the table must equal the exchange."""
START_TIMEOUT_S = 60.0
REPAIR_EVERY_S = 1.0
REPAIR_AFTER_S = 10.0
"""Younger gaps are the streamer's; older ones the DAG's, whose job is run here. The streamer has as
long a calm before the first job: until then bans and outages kept it from repairing."""
CLAIMS_END_AFTER_S = 45.0
"""Of calm, after which claims of killed streamers count as expired, for they last 15 minutes."""
READERS_TIMEOUT_S = 10.0
MIN_HITS = 0.1
"""Share of the faults that must take effect: the others met no frame or request."""
SETTLE_US = 2 * MINUTE_US
"""Simulated; after it, rows of each stream arrive again."""
MAX_RSS_BYTES = 250_000_000
MAX_LEAVE_S = 60.0
"""Wait until sessions of ended processes are gone from the server, whose disk may stall."""


class ChaosError(AssertionError):
    """What was wrong at the end; its message has the seed and how to run it again."""


@dataclass(slots=True)
class Outcome:
    """Figures of one run, for the report.

    Attributes:
        minutes: compared minutes of symbols.
        streamed: those whose stored row is the stream's own, not REST's.
        listed: symbols that were newly listed and streamed.
        captured_rows: rows of raw capture, each compared with the exchange's.
        hits: faults that took effect, of all.
        rounds: of jobs during the faults, how many succeeded and how many failed.
        gaps: gaps of candles, and who closed them.
        max_rss_bytes: peak memory of a streamer.
    """

    seed: int
    minutes: int = 0
    streamed: int = 0
    listed: int = 0
    captured_rows: int = 0
    faults: int = 0
    hits: int = 0
    strikes: list[str] = field(default_factory=list)
    rounds: dict[str, list[int]] = field(default_factory=dict)
    outage_minutes: int = 0
    gaps: GapCounts = field(default_factory=GapCounts)
    max_rss_bytes: int = 0
    seconds: float = 0.0
    equal_after_s: float = 0.0

    def __str__(self) -> str:
        strikes = ", ".join(f"{n} {kind}" for kind, n in sorted(Counter(self.strikes).items()))
        return (
            f"seed {self.seed}: {self.minutes} minutes equal and verified, {self.streamed} by the "
            f"stream; {self.outage_minutes} of outages; {self.listed} new symbols; "
            f"{self.captured_rows} rows captured; {self.hits} of {self.faults} faults hit; "
            f"{strikes}; {self.gaps.opened} gaps, {self.gaps.of_jobs} closed by jobs, "
            f"{self.gaps.silent} of them not given up; {self._jobs()}"
            f"{self.max_rss_bytes / 1e6:.0f} MB; "
            f"equal {self.equal_after_s:.1f} s after the calm; {self.seconds:.1f} s"
        )

    def _jobs(self) -> str:
        told = [f"{name} {good} of {good + bad}" for name, (good, bad) in self.rounds.items()]
        return f"jobs that succeeded: {', '.join(told)}; " if told else ""


def run(
    scenario: Scenario,
    server: EmbeddedPostgres,
    *,
    keep: Path | None = None,
    patience_s: float = PATIENCE_S,
) -> Outcome:
    """Run a scenario on a server, and hold the table to the exchange.

    Args:
        keep: folder for the streamers' logs and the fault plan; a temporary one if None.
        patience_s: real seconds of calm until the table must equal the exchange.

    Raises:
        ChaosError: the table is not the exchange's, or the streamer ended by itself.
    """
    began_s = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candelabra-chaos-")))
        folder = keep or home
        database = stack.enter_context(fresh_database(server, f"chaos_{scenario.seed}"))
        exchange = stack.enter_context(ExchangeThread(scenario.market(home)))
        stack.enter_context(TRUST.of(exchange.tls_ca_file))
        plan = [json.dumps(entry) for entry in scenario.entries]
        (folder / f"faults-{scenario.seed}.json").write_text("[\n" + ",\n".join(plan) + "\n]\n")
        settings = environment(exchange, database, scenario, home)
        streamers = []
        for name in (f"streamer-{scenario.seed}.log", f"streamer-{scenario.seed}-twin.log"):
            (folder / name).write_text("")
            one = StreamerProcess(settings, arguments(scenario), log_file=folder / name)
            streamers.append(stack.enter_context(one))
        run_ = _Run(scenario, exchange, streamers[0], streamers[1], database, home, patience_s)
        stack.callback(run_.close)
        try:
            outcome = run_.all()
        except (AssertionError, CandelabraError, psycopg.Error) as error:
            raise ChaosError(run_.failure_report(error)) from error
    outcome.seconds = time.monotonic() - began_s
    return outcome


def check_hits(hits: int, faults: int) -> None:
    """Fail a run in which so few faults took effect that it proves nothing.

    Raises:
        AssertionError: fewer than ``MIN_HITS`` of the faults took effect.
    """
    if hits < MIN_HITS * faults:
        raise AssertionError(f"only {hits} of {faults} faults took effect: the run proves nothing")


def command(scenario: Scenario) -> str:
    """How to run it again."""
    return (
        f"python -m tests.chaos --seed {scenario.seed} --minutes {scenario.minutes:g} "
        f"--speed {scenario.speed:g}" + (" --basic" if scenario.is_basic else "")
    )


class _Run:
    """The steps of one run."""

    def __init__(
        self,
        scenario: Scenario,
        exchange: ExchangeThread,
        streamer: StreamerProcess,
        twin: StreamerProcess,
        database: Database,
        home: Path,
        patience_s: float,
    ) -> None:
        self._patience_s = patience_s
        self._scenario = scenario
        self._exchange = exchange
        self._streamer = streamer
        self._twin = twin
        self._database = database
        self._settings = settings_of_jobs(exchange, database)
        self._jobs = Jobs(
            self._settings,
            dbt_environment(database.dbt_url, home=home),
            repair_after_s=REPAIR_AFTER_S,
        )
        self._serving = exchange.call(lambda: asyncio.ensure_future(exchange.exchange.wait()))
        self._repaired_s = 0.0
        self._claims_end_s: float | None = None
        self._calm_us = 0
        self._calm_s = 0.0
        self._delivered = Delivered(exchange)
        self._reader = Reader(streamer, exchange.clock.now_us)
        self._witness = Witness(database.url)
        self._outcome = Outcome(scenario.seed)

    def all(self) -> Outcome:
        """From the first start to the last comparison."""
        self._streamer.start()
        began_us = self._first_rows(SYMBOLS, START_TIMEOUT_S)
        self._reader.start()
        self._witness.start()
        if self._scenario.has_jobs:
            self._jobs.start()
        self._faults(self._now_us())
        self._calm()
        self._jobs.stop()
        until_us = minute_of(self._now_us())
        new = self._newly_listed(until_us)
        self._outcome.listed = len(new)
        began_us |= new
        true = truth(self._exchange, began_us, until_us)
        self._await_equality(true, began_us, until_us)
        self._check_readers(true, until_us)
        self._check_promises(true)
        self._streamer.terminate()
        self._check_marts()
        self._check_that_nothing_is_left()
        self._report(true, began_us, until_us)
        return self._outcome

    def check(self) -> None:
        """Raises where a streamer, or a part of the exchange, has ended by itself."""
        self._streamer.check()
        self._twin.check()
        if self._serving.done():
            raise AssertionError(f"the simulator failed: {self._serving.exception()!r}")

    def close(self) -> None:
        """End the jobs, and no longer watch the exchange."""
        try:
            self._jobs.stop()
        finally:
            self._reader.stop()
            self._witness.stop()
        self._exchange.call(self._serving.cancel)

    def failure_report(self, error: Exception) -> str:
        """What went wrong, with all that is needed to see it again."""
        scenario = self._scenario
        strikes = ", ".join(f"{one.kind} at +{one.at_us / 1e6:.0f}s" for one in scenario.strikes)
        told = scenario.entries[:MAX_REPORTED]
        faults = "\n".join(f"  {json.dumps(entry)}" for entry in told)
        return (
            f"seed {scenario.seed} failed: {error}\n"
            f"run it again: {command(scenario)}\n"
            f"streamed by {scenario.wanted}{' over TLS' * scenario.is_tls}"
            f"{', jobs beside it' * scenario.has_jobs}, "
            f"capture: {', '.join(scenario.capture) or 'none'}\n"
            f"strikes: {strikes}\nfirst of {len(scenario.entries)} faults:\n{faults}\n"
            f"open gaps:\n{self._open_gaps()}\n"
            f"logged: {dict(self._streamer.events())}\n{self._streamer.tail()}"
        )

    def _open_gaps(self) -> str:
        try:
            return shortened(open_gaps(self._database.url)) or "none"
        except psycopg.Error as error:
            return f"not read: {error}"

    # --- steps

    def _first_rows(self, symbols: Collection[str], timeout_s: float) -> dict[str, int]:
        """Wait until each symbol has a row; from there on no minute may be missing."""
        firsts: dict[str, int] = {}

        def have_rows() -> bool:
            rows = read_rows(self._database.url)
            for symbol in symbols:
                minutes = minutes_of(rows, symbol)
                if minutes:
                    firsts[symbol] = minutes[0]
            return len(firsts) == len(symbols)

        self._until(have_rows, f"a first row of each of {', '.join(symbols)}", timeout_s)
        return firsts

    def _faults(self, start_us: int) -> None:
        self._exchange.faults.add(list(self._scenario.entries))
        blows = Blows(
            self._exchange.clock,
            streamer=self._streamer,
            twin=self._twin,
            database=self._database,
            check=self.check,
        )
        self._outcome.strikes = blows.struck
        until_us = start_us + round(self._scenario.minutes * MINUTE_US)
        blows.play(self._scenario.strikes, start_us, until_us)

    def _calm(self) -> None:
        listed = self._exchange.faults.listed()
        self._outcome.faults = len(listed)
        for each in listed:
            if each["state"] == "active" and "duration_s" in each:
                with suppress(PlanError):  # it has ended meanwhile
                    self._exchange.faults.remove(each["id"])
        self._outcome.hits = sum(1 for each in listed if each["hits"])
        check_hits(self._outcome.hits, self._outcome.faults)
        self._calm_us = self._now_us() + SETTLE_US
        self._wait_until_us(self._now_us() + CALM_MINUTES * MINUTE_US)

    def _newly_listed(self, until_us: int) -> dict[str, int]:
        """Symbols that the streamer had to take up, with their first minute."""
        if not self._scenario.follows:
            return {}
        listed = [
            name if market == "spot" else f"{name}.P"
            for market, symbols in self._exchange.markets.items()
            for name in symbols
        ]
        return {
            name: min(minutes)
            for name in listed
            if name not in SYMBOLS and (minutes := oracle(self._exchange, name, 0, until_us))
        }

    def _await_equality(self, true: Truth, began_us: dict[str, int], until_us: int) -> None:
        found: list[str] = []
        url, reused = self._database.url, reused_tickers(self._exchange)
        ended, judge = given_up(self._exchange), Judge(self._exchange)

        def is_equal() -> bool:
            self._repair()
            found[:] = differences(
                url, true, began_us, until_us,
                reused=reused, given_up=ended, evidence=self._delivered,
            ) or judge.differences(
                url, self._scenario.capture, began_us, until_us, calm_us=self._calm_us
            ) or still_dead(self._streamer.entries(), self._traded(true, until_us))  # fmt: skip
            return not found

        self._calm_s = calm_s = time.monotonic()
        self._claims_end_s = calm_s + CLAIMS_END_AFTER_S
        try:
            self._until(is_equal, "the table of the exchange", self._patience_s)
        except TimeoutError as error:
            raise AssertionError(
                f"{len(found)} differences after {self._patience_s:g} s of calm:\n"
                f"{shortened(found)}"
            ) from error
        self._outcome.equal_after_s = time.monotonic() - calm_s

    def _check_readers(self, true: Truth, until_us: int) -> None:
        """Check what the hub published and what the live view shows."""
        found: list[str] = []
        ended = given_up(self._exchange)

        def is_equal() -> bool:
            found[:] = wrong_in_view(self._database.url, self._exchange, SYMBOLS)
            return not found

        with suppress(TimeoutError):
            self._until(is_equal, "the live view", READERS_TIMEOUT_S)
        self._reader.stop()
        found += unpublished(
            self._reader.connections, true, SYMBOLS, (self._calm_us, until_us), ended
        )
        if found:
            raise AssertionError(f"readers saw {len(found)} differences:\n{shortened(found)}")

    def _traded(self, true: Truth, until_us: int) -> list[str]:
        """Symbols whose trades the exchange has since the calm began."""
        return [
            symbol
            for symbol in true
            if trades_of(self._exchange, "agg_trades", symbol, self._calm_us, until_us)
        ]

    def _check_promises(self, true: Truth) -> None:
        """Check what the streamer did on its way: its ledger, and what it requested again."""
        self._witness.stop()
        url, ended = self._database.url, given_up(self._exchange)
        found = closed_by_unconfirmed(url)
        found += closed_too_early(self._witness.closed_too_early, true, ended)
        if "failover" not in self._outcome.strikes:
            found += lost_between_memory_and_table(url, true, self._delivered)
        found += repaired_too_early(
            self._streamer.logged("repair_postponed"), self._exchange.clock.time_at
        )
        if found:
            raise AssertionError(f"{len(found)} promises were broken:\n{shortened(found)}")

    def _check_marts(self) -> None:
        """Check that bars built while parts were struck equal the minutes after one more build."""
        if not self._scenario.has_jobs:
            return
        self._outcome.rounds = self._jobs.rounds
        self._jobs.build()
        if found := wrong_bars(self._database.url, reused_tickers(self._exchange)):
            known = "\n".join(listings(self._database.url))
            raise AssertionError(f"{len(found)} bars differ:\n{shortened(found)}\n{known}")

    def _repair(self) -> None:
        """Repair periodically, like the DAG ``repair_gaps``, whose tasks are retried."""
        if self._claims_end_s is not None and time.monotonic() >= self._claims_end_s:
            expire_claims(self._database.url)
            self._claims_end_s = None
        is_theirs = time.monotonic() >= self._calm_s + REPAIR_AFTER_S
        if is_theirs and time.monotonic() >= self._repaired_s + REPAIR_EVERY_S:
            with suppress(TransientError):
                repair_gaps(settings=self._settings, worker="chaos", older_than_s=REPAIR_AFTER_S)
            self._repaired_s = time.monotonic()

    def _check_that_nothing_is_left(self) -> None:
        """Check that no process, session, uncaught error or memory growth remains."""
        for streamer in (self._streamer, self._twin):
            if wrong := self._wrong_folds(streamer):
                raise AssertionError(f"candles differed from right klines:\n{shortened(wrong)}")
            if left := streamer.left():
                raise AssertionError(f"process groups {left} of ended streamers still run")
            if streamer.tracebacks():
                raise AssertionError(f"{streamer.log_file.name} has errors that nobody caught")
        until_s = time.monotonic() + MAX_LEAVE_S
        while sessions := self._database.sessions():
            if time.monotonic() > until_s:
                told = "\n".join(sessions)
                raise AssertionError(f"sessions of ended processes stay:\n{told}")
            time.sleep(0.05)
        rss_bytes = max(self._streamer.max_rss_bytes, self._twin.max_rss_bytes)
        self._outcome.max_rss_bytes = rss_bytes
        if rss_bytes > MAX_RSS_BYTES:
            raise AssertionError(f"a streamer of six symbols held {rss_bytes / 1e6:.0f} MB")

    def _wrong_folds(self, streamer: StreamerProcess) -> list[str]:
        """Whole candles of spot that differed from a closed kline that was not wrong."""
        return [
            f"{one['symbol']} {one['open_time']}: {', '.join(one['values'])}"
            for one in streamer.logged("kline_differs")
            if market_of(one["symbol"]) is Market.SPOT
            and not self._delivered.wrong_kline(
                one["symbol"], to_us(datetime.fromisoformat(one["open_time"]))
            )
        ]

    def _report(self, true: Truth, began_us: dict[str, int], until_us: int) -> None:
        outcome = self._outcome
        outcome.minutes = sum(len(minutes) for minutes in true.values())
        span = sum((until_us - start_us) // MINUTE_US for start_us in began_us.values())
        outcome.outage_minutes = span - outcome.minutes
        outcome.streamed = sources_of(self._database.url)["kline"]
        outcome.captured_rows = rows_captured(self._database.url)
        outcome.gaps = gaps_of(self._database.url)

    # --- time

    def _now_us(self) -> int:
        return int(self._exchange.clock.now_us())

    def _wait_until_us(self, moment_us: int) -> None:
        """Let time pass; the streamer must not end meanwhile."""
        while (left_s := self._exchange.clock.seconds_until(moment_us)) > 0:
            self.check()
            time.sleep(min(left_s, 0.1))

    def _until(self, holds: Callable[[], bool], what: str, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        while True:
            began_s = time.monotonic()
            if holds():
                return
            self.check()
            if began_s > until_s:  # a comparison may take minutes on a busy machine
                raise TimeoutError(f"{what} did not come in {timeout_s:g} s")
            time.sleep(0.1)
