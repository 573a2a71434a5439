"""``candelabra check``: check stored rows against the quality rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.counts import counted

if TYPE_CHECKING:
    from rich.console import Console

    from include.quality.report import QualityReport
    from include.store.ledgers.outages import Outage

BROKEN = 1
NOT_CHECKED = 2
SHOWN_ROWS = 20


def check(
    everything: Annotated[
        bool, typer.Option("--all", help="Every row, not only changes since the last run.")
    ] = False,
    start: Annotated[
        str,
        typer.Option("--from", help="Check minutes from this time on: 2026-11-01[T12:00], UTC."),
    ] = "",
    end: Annotated[str, typer.Option("--to", help="End, exclusive; default: now.")] = "",
    symbols: Annotated[
        str, typer.Option(help="Only candles and trades of these symbols, by comma.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check candles, trades, listings and ledgers: what changed, everything, or a period.

    Exit code 0: no error, perhaps warnings; 1: rules are broken; 2: the check could not run.
    """
    from include.errors import CandelabraError

    try:
        report, outages = _checked(everything=everything, start=start, end=end, symbols=symbols)
    except CandelabraError as error:
        if as_json:
            typer.echo(json.dumps({"success": False, "error": str(error)}))
        typer.secho(f"candelabra: {error}", err=True, fg=typer.colors.RED)
        sys.exit(NOT_CHECKED)
    if as_json:
        typer.echo(json.dumps(as_mapping(report, outages), indent=2))
    else:
        from cli.terminal.console import console

        show(report, console(), outages)
    sys.exit(0 if report.success else BROKEN)


def _checked(
    *, everything: bool, start: str, end: str, symbols: str
) -> tuple[QualityReport, list[Outage]]:
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.domain.instruments import symbol_from
    from include.errors import WrongValueError
    from include.jobs.quality import check_rules
    from include.jobs.status import recorded_outages

    if everything and start:
        raise WrongValueError("give --all or --from, not both")
    if end and not (start or everything):
        raise WrongValueError("--to needs --from: without it, changes are checked up to now")
    settings = settings_here()
    configure_command_logs("CRITICAL", settings.log_format)  # the report shows what is broken
    now = datetime.now(UTC)
    names = [symbol_from(part) for part in symbols.split(",") if part.strip()]
    report = check_rules(
        settings=settings,
        run_id=f"cli__{now:%Y-%m-%dT%H:%M:%S.%fZ}",
        scope="all" if everything else "window" if start else "changed",
        start=minute_of(start, name="--from"),
        end=minute_of(end, name="--to"),
        symbols=names or None,
    )
    return report, recorded_outages(settings=settings, symbols=names)


def minute_of(text: str, *, name: str) -> datetime | None:
    """Parse a full minute in UTC; None if empty.

    Raises:
        WrongValueError: it is malformed.
    """
    from include.errors import WrongValueError

    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise WrongValueError(
            f"{name} {text!r}: should be like 2026-11-01 or 2026-11-01T12:00"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


def as_mapping(report: QualityReport, outages: Sequence[Outage] = ()) -> dict[str, Any]:
    """Return the report as JSON values, with the stored failing rows and outages of any age."""
    from cli.terminal.outage_lines import outage_values

    return {
        "success": report.success,
        **report.summary,
        "rows": [
            {
                "rule": result.name,
                "severity": result.severity.value,
                "symbol": row.symbol,
                "time": None if row.minute is None else row.minute.isoformat(),
                "key": row.key,
                "detail": row.detail,
            }
            for result in (*report.failures, *report.warnings)
            for row in result.failing_rows
        ],
        "outages": outage_values(outages),
    }


def show(report: QualityReport, console: Console, outages: Sequence[Outage] = ()) -> None:
    """Print what was checked, each broken rule with its first rows, and outages of any age."""
    from cli.terminal.outage_lines import outage_lines

    broken = (*report.failures, *report.warnings)
    for result in broken:
        colour = "red" if result in report.failures else "yellow"
        console.print(f"[{colour}]{result.severity.value}[/] {result.name}: ", end="")
        console.print(f"{result.rule}", markup=False)
        for row in result.failing_rows[:SHOWN_ROWS]:
            console.print(f"  {row}", markup=False)
        more = result.failing_count - min(len(result.failing_rows), SHOWN_ROWS)
        if more:
            console.print(f"  and {counted(more, 'more row')}")
    if outages:
        console.print("outages of the exchange (ops.outages), whose minutes are not missing:")
        for line in outage_lines(outages):
            console.print(f"  {line}", markup=False)
    console.print(
        f"{counted(len(report.results), 'rule')} over {report.checked_period}: "
        f"{counted(report.candles, 'candle')} of {counted(report.symbols, 'symbol')}, "
        f"{counted(report.trades, 'trade')}; {counted(len(report.failures), 'error')}, "
        f"{counted(len(report.warnings), 'warning')}",
        markup=False,
    )
    if broken:
        console.print(
            f"all rows: ops.quality_failures, run_id {report.run_id}; remedies: docs/quality.md",
            markup=False,
        )
