"""``candelabra status``: state of the database, for people and for machines."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.counts import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from include.jobs.status import DatabaseStatus
    from include.store.ledgers.health import SymbolHealth

MAX_ROWS = 20
NEEDS_ATTENTION = 1
NOT_READABLE = 2
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def status(
    since: Annotated[
        str, typer.Option(help="How far back minutes are counted: 90m, 24h or 7d; at most 31d.")
    ] = "24h",
    symbols: Annotated[str, typer.Option(help="Only these symbols, comma-separated.")] = "",
    show_all: Annotated[
        bool, typer.Option("--all", help="Every symbol, including those not streamed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the state of the database: live symbols, gaps, outages, quality; worst first.

    Exit code 0: all is well, or starting; 1: something needs attention; 2: a value is wrong, or
    the database cannot be read.
    """
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.domain.instruments import symbol_from
    from include.errors import CandelabraError
    from include.jobs.status import read_status

    try:
        window = window_of(since)
        settings = settings_here()
        configure_command_logs("WARNING", settings.log_format)
        found = read_status(
            settings=settings,
            window=window,
            symbols=tuple(symbol_from(part) for part in symbols.split(",") if part.strip()),
        )
    except CandelabraError as error:
        if as_json:
            typer.echo(json.dumps({"healthy": False, "error": str(error)}))
        typer.secho(f"candelabra: {error}", err=True, fg=typer.colors.RED)
        sys.exit(NOT_READABLE)
    if as_json:
        typer.echo(json.dumps(as_mapping(found), indent=2))
    else:
        from cli.local.links import link_lines, read_links
        from cli.terminal.console import console
        from cli.terminal.next_steps import next_steps

        links = read_links(settings.candelabra_home)
        out = console()
        show(found, out, show_all=show_all or bool(symbols))
        lines = link_lines(links)
        steps = [f"next       {step}" for step in next_steps(found, links)]
        for line in [*([""] if lines else []), *lines, *([""] if steps else []), *steps]:
            out.print(line, markup=False, soft_wrap=True)
    sys.exit(NEEDS_ATTENTION if found.findings else 0)


def window_of(text: str) -> timedelta:
    """Parse a duration such as ``90m``, ``24h`` or ``7d``.

    Raises:
        WrongValueError: the text is not a duration.
    """
    from include.errors import WrongValueError

    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text.strip().lower())
    if match is None:
        raise WrongValueError(f"--since {text!r}: should be like 90m, 24h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def as_mapping(found: DatabaseStatus) -> dict[str, Any]:
    """Return the status as JSON values: times in ISO 8601, durations in seconds."""
    from cli.terminal.outage_lines import outage_values

    plain = _plain(asdict(found))
    return {"healthy": not found.findings, **plain, "outages": outage_values(found.outages)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float):
        return round(value, 1)
    return value


def show(found: DatabaseStatus, console: Console, *, show_all: bool) -> None:
    """Print the status, readable at 80 columns."""
    from cli.terminal.outage_lines import outage_lines
    from include.jobs.status import worst_first

    schema = f"schema {found.revision or 'none'}"
    if found.revision not in (None, found.newest_revision):
        schema += f" (this program's: {found.newest_revision})"
    console.print(f"[bold]{found.database}[/]")
    console.print(f"PostgreSQL {found.server_version}, {schema}, {found.now:%Y-%m-%d %H:%M:%S} UTC")
    if found.health is not None:
        ranked = worst_first(found.health.symbols)
        streamed = [one for one in ranked if one.is_streamed]
        candidates = ranked if show_all else streamed
        shown = candidates if show_all else candidates[:MAX_ROWS]
        if shown:
            console.print()
            console.print(_symbol_table(shown, found))
        left = len(candidates) - len(shown)
        quiet = 0 if show_all else len(ranked) - len(streamed)
        for number, what in (
            (
                left,
                ("more symbol in equal or better state", "more symbols in equal or better state"),
            ),
            (
                quiet,
                (
                    "symbol that has rows but is not streamed",
                    "symbols that have rows but are not streamed",
                ),
            ),
        ):
            if number:
                console.print(f"[dim]… and {counted(number, *what)}; --all shows all[/]")
        console.print()
        console.print(_ledger_lines(found))
        for number, line in enumerate(outage_lines(found.outages)):
            console.print(f"{'' if number else 'outages':10}  {line}", markup=False)
    console.print()
    if not found.findings and not found.expected:
        console.print("[green]✓ all is well[/]")
    for one in found.expected:
        console.print(f"[yellow]…[/] {one.message}")
    for finding in found.findings:
        console.print(f"[red]✗[/] {finding.message}")


def _symbol_table(symbols: list[SymbolHealth], found: DatabaseStatus) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"minutes since {found.since:%Y-%m-%d %H:%M} UTC",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,  # the box has a space between columns
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("symbol", no_wrap=True)
    for name in (
        "newest",
        "behind",
        "live",
        "known",
        "veri-\nfied",
        "unpro-\nven",
        "miss-\ning",
        "re-\npaired",
        "gaps",
        "dif-\nfer",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    behind, missing = found.concerned("behind"), found.concerned("missing")
    for one in symbols:
        is_today = one.newest is not None and found.now - one.newest < timedelta(hours=20)
        pattern = "%H:%M" if is_today else "%m-%d"
        table.add_row(
            one.symbol,
            one.newest.astimezone(UTC).strftime(pattern) if one.newest else "never",
            _coloured(duration(one.behind_s), is_bad=one.symbol in behind),
            duration(one.live_age_s),
            f"{one.minutes:,}",
            f"{one.verified:,}",
            _coloured(
                _count(one.unconfirmed + one.partial), is_bad=one.unsure > 0 and one.is_streamed
            ),
            _coloured(_count(one.missing), is_bad=one.symbol in missing),
            _count(one.repaired),
            _coloured(_count(one.gaps), is_bad=one.overdue_gaps > 0),
            _count(one.discrepancies),
        )
    return table


def _count(number: int) -> str:
    return f"{number:,}" if number else "·"


def _coloured(text: str, *, is_bad: bool) -> str:
    return f"[red]{text}[/]" if is_bad and text != "·" else text


def duration(seconds: float | None) -> str:
    """Format a duration in at most five characters: ``42 s``, ``17 m``, ``5.2 h``, ``12 d``."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} m"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.0f} d"


def _ledger_lines(found: DatabaseStatus) -> RenderableType:
    from rich.table import Table

    lines = Table.grid(padding=(0, 2))
    health = found.health
    if health is None:
        return lines
    if health.quality is None:
        lines.add_row("checks", "never run (DAG check_quality)")
    else:
        age = duration((found.now - health.quality.run_at).total_seconds())
        broken = health.quality.broken or []
        verdict = (
            f"[red]{counted(len(broken), 'rule')} violated[/]"
            if broken
            else "[green]no rule violated[/]"
        )
        lines.add_row(
            "checks", f"{verdict}; last run {age} ago, {counted(health.quality.checks, 'result')}"
        )
    files = ", ".join(
        f"{one.files:,} {one.verdict} ({counted(one.rows, 'row')})" for one in health.files
    )
    lines.add_row("dump files", files or "none")
    weights = ", ".join(
        f"{one.host} {one.used:,}"
        + (" [red]requests paused by the exchange[/]" if one.blocked_until else "")
        for one in health.weights
    )
    lines.add_row("weight", f"{weights}, this minute" if weights else "none used yet")
    return lines
