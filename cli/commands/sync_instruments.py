"""``candelabra sync-instruments``: bring the exchange's list of symbols into the database."""

from __future__ import annotations

from typing import Annotated

import typer

from include.counts import counted


def sync_instruments(
    markets: Annotated[str, typer.Option(help="Markets, by comma: spot, um, cm.")] = "spot,um,cm",
) -> None:
    """Write the exchange's symbols to market.instruments: once a day, streamer and Airflow do."""
    from cli.local.location import settings_here
    from cli.terminal.command_logs import configure_command_logs
    from include.domain.instruments import Market
    from include.jobs.instruments import sync_instruments as sync

    names = [name.strip() for name in markets.split(",") if name.strip()]
    wrong = sorted(set(names) - {market.value for market in Market})
    if wrong or not names:
        raise typer.BadParameter(
            f"{', '.join(wrong) or 'nothing'} given; the markets are spot, um and cm",
            param_hint="--markets",
        )
    settings = settings_here()
    configure_command_logs("WARNING", settings.log_format)
    counts = sync(settings=settings, markets=names)
    for name in names:
        typer.echo(
            f"{name}: {counted(counts.listed[name], 'symbol')}, {counts.trading[name]:,} trading"
        )
    typer.echo(f"{counted(counts.ended, 'listing has', 'listings have')} ended since the last time")
