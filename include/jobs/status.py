"""Read the platform's health from the database, and list what needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from include.config import Settings
from include.counts import counted
from include.errors import PermanentError, WrongValueError
from include.store.ledgers.health import (
    Health,
    SymbolHealth,
    known_symbols,
    read_health,
    schema_revision,
    server_started,
    server_time,
)
from include.store.ledgers.outages import Outage, read_outages
from include.store.postgres.pools import connect, redact

BEHIND_S = 180.0
"""A minute is stored within seconds, or within about 40 s if REST has to confirm it."""
PATIENCE_S = 600.0
"""The streamer repairs a gap within ten minutes; ``check_quality`` allows the same time."""
LOADING_S = 120.0
"""History counts as loading for this long after its newest dump file; one takes seconds."""
GAP_PATIENCE_S = 1_800.0
"""``repair_gaps`` starts with gaps ten minutes old and retries every five minutes."""
MIN_DAYS_KNOWN = 31
"""Symbols whose newest row is older than this are not reported."""
MAX_WINDOW = timedelta(days=31)
MAX_NAMES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding: something that needs attention, or that a start or a load of history explains.

    Attributes:
        code: stable identifier.
        message: sentence for the user.
        symbols: symbols concerned.
    """

    code: str
    message: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """Status of the platform.

    Attributes:
        database: its URL without the password.
        server_version: of PostgreSQL.
        revision: of the database's schema; None if it was never migrated.
        newest_revision: of the schema that this program needs.
        now: the database's clock.
        since: start of the window.
        health: None where there is no schema to read.
        findings: what needs attention; empty if all is well.
        expected: what is unfinished because a start or a load of history is going on.
        outages: of any age, newest first; minutes within them are not missing.
    """

    database: str
    server_version: str
    revision: str | None
    newest_revision: str
    now: datetime
    since: datetime
    health: Health | None
    findings: tuple[Finding, ...]
    outages: tuple[Outage, ...] = ()
    expected: tuple[Finding, ...] = ()

    def concerned(self, code: str) -> frozenset[str]:
        """Return the symbols of a finding that needs attention."""
        return frozenset(
            symbol for one in self.findings if one.code == code for symbol in one.symbols
        )


def recorded_outages(*, settings: Settings, symbols: Sequence[str] = ()) -> list[Outage]:
    """Return the exchange's outages of any age, newest first, in the role of the jobs.

    Raises:
        TransientError: the database is away.
    """
    with connect(settings.url_for("jobs"), application_name="candelabra-status") as connection:
        return read_outages(connection, symbols)


def read_status(
    *, settings: Settings, window: timedelta = timedelta(days=1), symbols: Sequence[str] = ()
) -> DatabaseStatus:
    """Read the state of the configured database, in the reader role.

    Args:
        window: how far back minutes are counted; at most 31 days.
        symbols: limits the status to these; empty for all known symbols.

    Raises:
        WrongValueError: a symbol has no candle and is not listed, while others have candles.
        PermanentError: the window is too long, or URL or login are wrong.
        TransientError: the database is away.
    """
    if not timedelta(minutes=1) <= window <= MAX_WINDOW:
        raise PermanentError(
            f"--since reaches {window / timedelta(days=1):g} days back; it must be 1 minute to "
            "31 days (31d)"
        )
    url = settings.url_for("reader")
    with connect(url, application_name="candelabra-status") as connection:
        now = server_time(connection).astimezone(UTC)
        since = (now - window).replace(second=0, microsecond=0)
        revision, newest = schema_revision(connection), newest_revision()
        health, outages, up_since = None, list[Outage](), server_started(connection)
        if revision is not None:
            remembered = min(since, now - timedelta(days=MIN_DAYS_KNOWN))
            health = read_health(
                connection,
                list(symbols) or known_symbols(connection, since=remembered),
                since=since,
                now=now,
                patience_s=PATIENCE_S,
                gap_patience_s=GAP_PATIENCE_S,
            )
            outages = read_outages(connection, symbols)
            strange = [one.symbol for one in health.symbols if _is_strange(one)]
            if strange and symbols and (known := known_symbols(connection, since=remembered)):
                raise WrongValueError(
                    f"--symbols {','.join(strange)}: no candle, and not in market.instruments; "
                    f"there are {_names(known)}"
                )
        number = connection.info.server_version
    return DatabaseStatus(
        database=redact(url),
        server_version=f"{number // 10_000}.{number % 10_000}",
        revision=revision,
        newest_revision=newest,
        now=now,
        since=since,
        health=health,
        findings=(
            *schema_findings(revision, newest),
            *(findings_of(health, now=now, up_since=up_since, wanted=symbols) if health else ()),
        ),
        outages=tuple(outages),
        expected=tuple(expected_of(health, now=now, up_since=up_since) if health else ()),
    )


def newest_revision() -> str:
    """Return the revision to which this program's `candelabra migrate` migrates."""
    from alembic.script import ScriptDirectory

    from include.store.migrate import alembic_config

    return str(ScriptDirectory.from_config(alembic_config()).get_current_head())


def schema_findings(revision: str | None, newest: str) -> list[Finding]:
    """Return the finding about the schema; revisions are numbers and can be compared."""
    if revision is None:
        return [Finding("not_migrated", "the database has no schema: run `candelabra migrate`")]
    if revision == newest:
        return []
    if revision < newest:
        message = f"migrations are pending, {revision} to {newest}: run `candelabra migrate`"
        return [Finding("migrations_pending", message)]
    message = f"the schema ({revision}) is newer than this program ({newest}): update the program"
    return [Finding("schema_too_new", message)]


def findings_of(
    health: Health, *, now: datetime, up_since: datetime | None = None, wanted: Sequence[str] = ()
) -> list[Finding]:
    """Return what needs attention, most urgent first.

    Args:
        up_since: when the database server started, if known.
        wanted: symbols named by the user; those without a row are reported.
    """
    streamed = [one for one in health.symbols if one.is_streamed]
    found = []
    absent = tuple(
        one.symbol
        for one in health.symbols
        if one.symbol in wanted
        and one.newest is None
        and not _is_starting(one, now=now, up_since=up_since)
    )
    if absent:
        found.append(Finding("no_candles", f"no candle of {_names(absent)}", absent))
    if not streamed and not wanted and not _is_new(up_since, now):
        found.append(Finding("no_streamer", "no streamer wrote in this window"))
    is_loading = _is_loading(health, now)

    def is_late(one: SymbolHealth) -> bool:
        return _is_behind(one) and not _is_starting(one, now=now, up_since=up_since)

    def is_lacking(one: SymbolHealth) -> bool:
        return one.overdue > 0 and not is_loading

    for code, about, what in (
        ("behind", is_late, "no new minute for over 3 minutes"),
        ("missing", is_lacking, "minutes missing for over 10 minutes"),
        ("not_confirmed", lambda one: one.unsure > 0, "minutes not confirmed for over 10 minutes"),
        (
            "ids_break",
            lambda one: one.broken > 0,
            "trade ids do not follow those of the minute before",
        ),
    ):
        names = tuple(one.symbol for one in streamed if about(one))
        if names:
            found.append(Finding(code, f"{what}: {_names(names)}", names))
    open_gaps = tuple(one.symbol for one in health.symbols if one.overdue_gaps)
    if open_gaps:
        message = f"gaps open for over 30 minutes: {_names(open_gaps)}"
        found.append(Finding("gaps", message, open_gaps))
    if health.quality is not None and health.quality.broken:
        message = f"quality checks that do not hold: {', '.join(health.quality.broken)}"
        found.append(Finding("quality", message))
    for weight in health.weights:
        if weight.blocked_until is not None:
            seconds = round((weight.blocked_until - now).total_seconds())
            message = f"{weight.host} demands a pause, {seconds} s more"
            found.append(Finding("rate_limited", message))
    return found


def expected_of(
    health: Health, *, now: datetime, up_since: datetime | None = None
) -> list[Finding]:
    """Return what is unfinished for now, because a start or a load of history is going on."""
    streamed = [one for one in health.symbols if one.is_streamed]
    starting = tuple(
        one.symbol for one in health.symbols if _is_starting(one, now=now, up_since=up_since)
    )
    found = []
    if not streamed and _is_new(up_since, now):
        found.append(Finding("starting", "starting: no streamer has written yet", starting))
    elif starting:
        message = f"starting: no minute has closed yet: {_names(starting)}"
        found.append(Finding("starting", message, starting))
    is_loading = _is_loading(health, now)
    lacking = [one for one in streamed if one.missing and (is_loading or not one.overdue)]
    if lacking:
        names = tuple(one.symbol for one in lacking)
        minutes = f"{counted(sum(one.missing for one in lacking), 'minute')} missing"
        what = (
            f"history is loading, {minutes} so far"
            if is_loading
            else f"{minutes}, for less than 10 minutes so far"
        )
        found.append(Finding("loading", f"{what}: {_names(names)}", names))
    return found


def worst_first(symbols: Sequence[SymbolHealth]) -> list[SymbolHealth]:
    """Sort symbols: streamed before others, then symbols with problems, then by name."""

    def trouble(one: SymbolHealth) -> tuple[object, ...]:
        behind_s = one.behind_s or 0.0
        return (
            not one.is_streamed,
            -(behind_s if _is_behind(one) else 0.0),
            -(one.overdue + one.unsure),
            -one.overdue_gaps,
            -(one.missing + one.partial + one.unconfirmed),
            one.symbol,
        )

    return sorted(symbols, key=trouble)


def _is_behind(one: SymbolHealth) -> bool:
    return one.behind_s is None or one.behind_s > BEHIND_S


def _is_starting(one: SymbolHealth, *, now: datetime, up_since: datetime | None) -> bool:
    """Whether a symbol has no new minute because its stream, or the server, has just started."""
    if not _is_behind(one):
        return False
    if one.oldest_live is None:
        return _is_new(up_since, now)
    return (now - one.oldest_live).total_seconds() - 60 <= BEHIND_S


def _is_new(up_since: datetime | None, now: datetime) -> bool:
    return up_since is not None and (now - up_since).total_seconds() <= BEHIND_S


def _is_loading(health: Health, now: datetime) -> bool:
    loaded_at = health.klines_loaded_at
    return loaded_at is not None and (now - loaded_at).total_seconds() <= LOADING_S


def _is_strange(one: SymbolHealth) -> bool:
    return one.newest is None and one.live_age_s is None and not one.is_listed


def _names(symbols: Sequence[str]) -> str:
    shown = ", ".join(symbols[:MAX_NAMES])
    more = len(symbols) - MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
