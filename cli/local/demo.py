"""`candelabra demo` and `candelabra up`: the whole platform on one machine."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.local.audit import MAX_SHOWN, AuditLine, audit
from cli.local.links import links_of, show_links
from cli.local.live_table import watch
from cli.local.stack import LocalStack
from cli.terminal.command_logs import configure_command_logs, quiet
from cli.terminal.console import console as console_of
from cli.terminal.tables import fitted
from include.config import load_settings
from include.counts import counted
from include.domain.instruments import Market
from include.domain.timeframes import MINUTE_US, from_us, to_us
from include.errors import CandelabraError, PermanentError, TransientError, WrongValueError
from include.jobs.klines.pieces import symbols_of
from include.store.postgres.pools import connect, redact, translated

DAGS = ("backfill_history", "build_marts", "check_quality", "repair_gaps", "sync_instruments")
LIVE_MINUTES = 2
"""Minutes that the stream must verify before the demo continues."""
LIVE_TIMEOUT_S = 240.0
DAG_TIMEOUT_S = 900.0
SERVES_TIMEOUT_S = 30.0


SPINNER_WIDTH = 3
"""Terminal columns of the spinner, the space beside it, and the last one."""


class Steps:
    """Prints each step, its duration, and a tick when it is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started_s = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Run one step; the function passed to it reports progress."""
        began_s = time.monotonic()
        with self.console.status(self._line(what, "")) as status:
            yield lambda detail: status.update(self._line(what, detail))
        took_s = time.monotonic() - began_s
        total_s = time.monotonic() - self._started_s
        self.console.print(
            f"[green]✓[/] {what} [dim]({took_s:.1f} s, at {total_s:.0f} s)[/]", soft_wrap=True
        )

    def _line(self, what: str, detail: str) -> Text:
        """Return the text beside the spinner, on one line."""
        line = Text(f"{what} … {detail}".replace("\n", " "))
        line.truncate(self.console.width - SPINNER_WIDTH, overflow="ellipsis")
        return line


def run_demo(*, once: bool, symbols: Sequence[str], days: int | None) -> int:
    """Run everything against the simulator; returns the exit code."""
    console = console_of()
    settings = load_settings()
    configure_command_logs(quiet(settings.log_level), settings.log_format)
    symbols = symbols_of(symbols, Market.SPOT)
    home = Path(settings.candelabra_home) / "demo"
    with (
        _interruptible(),
        _stopped_at_the_end(console),
        LocalStack(
            home,
            database_url=settings.database_url,
            role_urls=settings.role_urls() if settings.database_url else {},
            session_hours=settings.session_hours,
            fresh=True,
        ) as stack,
    ):
        try:
            return _demo(stack, console, once=once, symbols=symbols, days=days)
        except KeyboardInterrupt:
            console.print("stopping, at most ten seconds …")
            return 130 if once else 0
        except CandelabraError as error:
            _show_failure(console, stack, error)
            return 1


def run_up(*, symbols: Sequence[str]) -> int:
    """Run everything against the real exchange, until interrupted; returns the exit code."""
    console = console_of()
    settings = load_settings()
    configure_command_logs(quiet(settings.log_level), settings.log_format)
    wanted = tuple(symbols) or settings.symbols
    if not wanted:
        raise WrongValueError("no symbols: `make up SYMBOLS=BTCUSDT,ETHUSDT`, or set SYMBOLS")
    home = Path(settings.candelabra_home) / "up"
    with (
        _interruptible(),
        _stopped_at_the_end(console),
        LocalStack(
            home,
            database_url=settings.database_url,
            role_urls=settings.role_urls() if settings.database_url else {},
            session_hours=settings.session_hours,
        ) as stack,
    ):
        steps = Steps(console)
        try:
            with steps.step("PostgreSQL"):
                stack.start_database()
            named = (one for one in wanted if not set("*?[") & set(one))
            about = {"symbol": next(named, "BTCUSDT")}
            with steps.step("streamer") as progress:
                stack.start_streamer(["--symbols", ",".join(wanted)])
                _wait_until_served(stack, progress)
            _show_links(stack, console, title="The streamer runs; Airflow follows", **about)
            with steps.step("Airflow") as progress:
                stack.start_airflow(progress, DAGS)
            _show_links(stack, console, **about)
            watch(stack.environment_url("reader"), console, trouble=stack.trouble)
        except KeyboardInterrupt:
            console.print("stopping, at most ten seconds …")
        except CandelabraError as error:
            _show_failure(console, stack, error)
            return 1
    return 0


def _show_failure(console: Console, stack: LocalStack, error: CandelabraError) -> None:
    console.print("[red]✗[/] ", end="")
    console.print(str(error), highlight=False, markup=False)
    console.print(f"logs: {stack.logs} and {stack.home / 'airflow' / 'logs'}", markup=False)


def _demo(
    stack: LocalStack, console: Console, *, once: bool, symbols: Sequence[str], days: int | None
) -> int:
    steps = Steps(console)
    start = _start_of_history(days)
    with steps.step("PostgreSQL 18 with schemas and roles"):
        stack.start_database()
        _refuse_foreign_data(stack)
    with steps.step(f"simulated exchange, history since {start:%Y-%m-%d}"):
        urls = stack.start_simulator(["--start", start.strftime("%Y-%m-%d")])
    oracle_url = urls["dump_url"]
    about = {"symbol": symbols[0], "oracle_url": oracle_url}
    with steps.step("streamer") as progress:
        # With trades the chart has a volume profile, footprints and deltas.
        stack.start_streamer(["--symbols", ",".join(symbols), "--capture", "agg_trades"])
        _wait_until_served(stack, progress)
    _show_links(stack, console, title="The streamer runs; Airflow and history follow", **about)
    with steps.step("Airflow") as progress:
        stack.start_airflow(progress, DAGS)
    stack.write_links(links_of(stack, **about))
    with steps.step("registry of instruments (DAG sync_instruments)"):
        _run_dag(stack, "sync_instruments", {})
    reader_url = stack.environment_url("reader")
    with steps.step("first live minute") as progress:
        _wait_for_live(stack, reader_url, symbols, minutes=1, progress=progress)
    with steps.step(f"history of {', '.join(symbols)} (DAG backfill_history)") as progress:
        # One run for both markets, because each has to be scheduled, planned and summed up.
        conf = {"symbols": ",".join(symbols), "from": f"{start:%Y-%m-%d}"}
        _run_dag(stack, "backfill_history", conf, progress)
    with steps.step(f"{LIVE_MINUTES} live minutes, verified") as progress:
        _wait_for_live(stack, reader_url, symbols, minutes=LIVE_MINUTES, progress=progress)
    with connect(reader_url, application_name="candelabra-demo") as connection:
        cutoff_us = _complete_until(connection, symbols, to_us(start))
    with steps.step("higher timeframes (DAG build_marts, dbt)") as progress:
        _run_dag(stack, "build_marts", {}, progress)
    with steps.step("quality (DAG check_quality, Great Expectations)") as progress:
        _run_dag(stack, "check_quality", {}, progress)
    with (
        steps.step("audit: every bar against the exchange's own"),
        connect(reader_url, application_name="candelabra-demo") as connection,
    ):
        lines = audit(connection, oracle_url, symbols, start_us=to_us(start), cutoff_us=cutoff_us)
    console.print(fitted(_audit_table(lines, cutoff_us), console))
    differences = [(line, text) for line in lines for text in line.differences]
    for line, text in differences[:MAX_SHOWN]:
        console.print(f"[red]✗[/] {line.symbol} {line.timeframe}: {text}", highlight=False)
    compared = sum(line.compared for line in lines)
    console.print(
        f"{counted(compared, 'bar')} compared in nine values, "
        f"{counted(len(differences), 'difference')}"
    )
    _show_links(stack, console, **about)
    if once or differences:
        return 0 if compared and not differences else 1
    watch(reader_url, console, trouble=stack.trouble)
    return 0


def _start_of_history(days: int | None) -> datetime:
    """Return midnight some days ago, or of last month's first day: a whole month, whole weeks."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if days is not None:
        return today - timedelta(days=days)
    return (today.replace(day=1) - timedelta(days=1)).replace(day=1)


def _run_dag(
    stack: LocalStack,
    dag_id: str,
    conf: dict[str, Any],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Trigger a DAG through Airflow's API and wait for its success."""
    airflow = stack.airflow
    if airflow is None:
        raise PermanentError("Airflow is not running")
    airflow.wait_healthy(timeout_s=DAG_TIMEOUT_S)  # a part of it may be starting again
    run_id = airflow.api.trigger(dag_id, conf)

    def tell(run: Any, tasks: Any) -> None:
        stack.check()
        if progress is not None:
            done = sum(1 for task in tasks if str(task.state) == "success")
            progress(f"{run.state}, {done} of {counted(len(tasks), 'task')}")

    state = airflow.api.wait_run(dag_id, run_id, timeout_s=DAG_TIMEOUT_S, on_progress=tell)
    if state != "success":
        raise PermanentError(f"DAG {dag_id} ended {state}:\n{airflow.api.failures(dag_id, run_id)}")


def _wait_for_live(
    stack: LocalStack,
    reader_url: str,
    symbols: Sequence[str],
    *,
    minutes: int,
    progress: Callable[[str], None],
) -> None:
    """Wait until the stream has verified that many minutes of each symbol."""
    deadline_s = time.monotonic() + LIVE_TIMEOUT_S
    query = """
        SELECT symbol, count(*) FROM market.candles_1m
        WHERE source = 'kline' AND status = 'verified' AND symbol = ANY(%s) GROUP BY symbol
    """
    least = 0
    while True:
        with (
            # PostgreSQL may be starting again.
            contextlib.suppress(TransientError),
            connect(reader_url, application_name="candelabra-demo") as connection,
            translated(connection),
        ):
            counts = dict(connection.execute(query, (list(symbols),)).fetchall())
            least = min(counts.get(symbol, 0) for symbol in symbols)
        if least >= minutes:
            return
        stack.check()
        if time.monotonic() > deadline_s:
            raise TransientError(
                f"the stream verified {least} of {counted(minutes, 'minute')} in "
                f"{LIVE_TIMEOUT_S:.0f} s; "
                f"see {stack.logs / 'streamer.log'}"
            )
        progress(f"{least} of {minutes}, a minute ends at second 0")
        time.sleep(0.5)


def _complete_until(
    connection: psycopg.Connection[Any], symbols: Sequence[str], start_us: int
) -> int:
    """Return the end of the last minute that is verified for every symbol, in µs.

    Earlier minutes may be missing; the audit finds them.
    """
    query = """
        SELECT min(newest) FROM (
            SELECT max(open_time) AS newest FROM market.candles_1m
            WHERE symbol = ANY(%s) AND status = 'verified' AND open_time >= %s GROUP BY symbol
        ) AS newest_of_each
    """
    with translated(connection):
        row = connection.execute(query, (list(symbols), from_us(start_us))).fetchone()
    if row is None or row[0] is None:
        raise PermanentError("no verified minute in market.candles_1m")
    return to_us(row[0]) + MINUTE_US


def _refuse_foreign_data(stack: LocalStack) -> None:
    """Simulated candles must not be mixed with real ones."""
    with (
        connect(stack.database_url, application_name="candelabra-demo") as connection,
        translated(connection),
    ):
        if connection.execute("SELECT 1 FROM market.candles_1m LIMIT 1").fetchone():
            raise PermanentError(
                f"{redact(stack.database_url)} holds candles already; the demo writes simulated "
                "ones: give it an empty database, or unset DATABASE_URL"
            )


def _audit_table(lines: Sequence[AuditLine], cutoff_us: int) -> Table:
    """Print the number of equal bars, a row for each timeframe."""
    table = Table(title=f"equal bars up to {from_us(cutoff_us):%Y-%m-%d %H:%M} UTC")
    table.add_column("timeframe")
    symbols = list(dict.fromkeys(line.symbol for line in lines))
    for symbol in symbols:
        table.add_column(symbol, justify="right")
    for timeframe in dict.fromkeys(line.timeframe for line in lines):
        of_timeframe = {line.symbol: line for line in lines if line.timeframe == timeframe}
        cells = [
            f"[red]{counted(len(line.differences), 'differs', 'differ')}[/]"
            if line.differences
            else str(line.compared)
            for line in (of_timeframe[symbol] for symbol in symbols)
        ]
        table.add_row(timeframe, *cells)
    return table


def _wait_until_served(stack: LocalStack, progress: Callable[[str], None]) -> None:
    """Wait until the streamer serves, so that its links can be shown first.

    A streamer that waits for the exchange serves later; the steps after it go on meanwhile.
    """
    deadline_s = time.monotonic() + SERVES_TIMEOUT_S
    while load_settings().api and "API" not in stack.streamer_serves():
        stack.check()
        if time.monotonic() > deadline_s:
            break
        progress(stack.streamer_trouble())
        time.sleep(0.1)


def _show_links(
    stack: LocalStack, console: Console, *, title: str = "Candelabra runs", **about: Any
) -> None:
    """Print what can be opened so far, also by `candelabra status` in another terminal."""
    links = links_of(stack, **about)
    stack.write_links(links)
    show_links(links, console, title=title)


@contextmanager
def _stopped_at_the_end(console: Console) -> Iterator[None]:
    """Say that everything has stopped, unless it could not be started."""
    yield
    console.print("stopped")


@contextmanager
def _interruptible() -> Iterator[None]:
    """End the run on Ctrl-C, SIGTERM or a closed terminal, and stop everything once.

    After the first signal further ones are ignored: an impatient second one (or the one that
    make passes on) would leave half of the services running.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
