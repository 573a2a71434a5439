"""The ``candelabra`` command line. Each command is one function in a module of this package.

A module is imported when its command runs. So ``--help`` is quick, and the streamer's small
environment needs neither alembic nor the simulator's libraries.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli.commands.archive import archive
from cli.commands.backfill import backfill
from cli.commands.backup import backup, restore
from cli.commands.check import check
from cli.commands.compare import compare
from cli.commands.import_files import import_files
from cli.commands.migrate import migrate
from cli.commands.serve import serve
from cli.commands.status import status
from cli.commands.sync_instruments import sync_instruments
from cli.commands.user import app as user
from cli.local.chosen_run import of_stack
from include import __version__
from include.errors import CandelabraError, RejectedInputError, WrongValueError

app = typer.Typer(
    name="candelabra",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"candelabra {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Every 1-minute candle of every Binance market in one PostgreSQL."""


app.command()(of_stack(backfill))
app.command()(of_stack(check))
app.command()(of_stack(compare))
app.command("import")(of_stack(import_files))
app.command()(of_stack(migrate))
app.command()(serve)
app.command()(of_stack(status))
app.command("sync-instruments")(of_stack(sync_instruments))
app.command()(of_stack(archive))
app.command()(of_stack(backup))
app.command()(of_stack(restore))
app.add_typer(user)


@app.command()
def stream(
    symbols: Annotated[
        str,
        typer.Option(help="Names and patterns, by comma: BTCUSDT,ETHUSDT.P or '*USDT'. [SYMBOLS]"),
    ] = "",
    symbols_file: Annotated[
        Path | None,
        typer.Option(
            help="File with one symbol or pattern a line; read again on SIGHUP. [SYMBOLS_FILE]"
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="Keep the N of largest 24 h volume. [TOP]")
    ] = None,
    all_symbols: Annotated[
        bool, typer.Option("--all", help="Every trading symbol of all markets.")
    ] = False,
    trade_stream: Annotated[
        str, typer.Option(help="aggTrade, or trade for recordings without aggTrades.")
    ] = "aggTrade",
    klines: Annotated[
        bool, typer.Option(help="Subscribe to the exchange's klines, which verify the candles.")
    ] = True,
    capture: Annotated[
        str,
        typer.Option(
            help="Also store agg_trades, trades, book_tickers, liquidations, depth, by comma. "
            "[CAPTURE]"
        ),
    ] = "",
) -> None:
    """Stream live trades into market.candles_1m until SIGTERM or Ctrl-C."""
    from include.config import load_settings
    from include.domain.instruments import symbol_from
    from include.logs import configure_logging
    from serving.beside_streamer import BESIDE_STREAMER
    from streamer.process import run
    from streamer.symbols.startup import StreamOptions
    from streamer.symbols.symbols_file import read_symbols
    from streamer.symbols.universe import ALL

    settings = load_settings(**({"capture": capture} if capture else {}))
    configure_logging(settings.log_level, settings.log_format)
    if trade_stream not in {"aggTrade", "trade"}:
        raise typer.BadParameter(f"--trade-stream {trade_stream}: aggTrade or trade")
    if (all_symbols, bool(symbols), symbols_file is not None).count(True) > 1:
        raise typer.BadParameter("give one of --symbols, --symbols-file and --all")
    file = symbols_file or (None if all_symbols or symbols else settings.symbols_file)
    wanted = None if file is None else read_symbols(file)
    names = ALL if all_symbols else _split(symbols) or settings.symbols
    run(
        settings,
        StreamOptions(
            symbols=tuple(map(symbol_from, names)) if wanted is None else wanted.names,
            symbols_file=wanted,
            top=top if top is not None else settings.top,
            trade_stream=trade_stream,
            klines=klines,
            capture=settings.capture,
        ),
        BESIDE_STREAMER,
    )


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def simulate(context: typer.Context) -> None:
    """Run a local Binance, or replay recorded frames; `simulate --help` lists its options."""
    from simulator.cli import configure_logs, parse_config, run

    config, log_level = parse_config(context.args)
    configure_logs(log_level)
    sys.exit(run(config))


@app.command()
@of_stack
def psql(
    commands: Annotated[
        list[str] | None,
        typer.Option("-c", "--command", help="Run this statement and exit; may be repeated."),
    ] = None,
) -> None:
    """Open psql on the reader's database; psql comes with the embedded PostgreSQL."""
    from cli.commands.psql import run_psql

    run_psql(commands or ())


@app.command("dbt-env")
@of_stack
def dbt_env() -> None:
    """Print what dbt needs as shell exports: eval "$(candelabra dbt-env)" in dbt_project/."""
    import shlex

    from cli.local.location import settings_here
    from include.jobs.dbt_env import dbt_environment

    settings = settings_here()
    for name, value in dbt_environment(
        settings.url_for("dbt"), home=settings.candelabra_home
    ).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the checks; the exit code is the result.")
    ] = False,
    symbols: Annotated[
        str, typer.Option(help="Symbols of the demo, by comma.")
    ] = "BTCUSDT,ETHBTC,BTCUSDT.P",
    days: Annotated[
        int | None,
        typer.Option(
            min=2, max=400, help="Days of history; default: since the start of last month."
        ),
    ] = None,
) -> None:
    """Run everything on this machine, offline: exchange, database, streamer, Airflow, marts."""
    from cli.local.demo import run_demo

    sys.exit(run_demo(once=once, symbols=_split(symbols), days=days))


@app.command()
def up(
    symbols: Annotated[str, typer.Option(help="Names and patterns, by comma. [SYMBOLS]")] = "",
) -> None:
    """Run everything on this machine against the real exchange."""
    from cli.local.demo import run_up

    sys.exit(run_up(symbols=_split(symbols)))


@app.command()
def clean() -> None:
    """Remove the state of the embedded services."""
    from cli.local.stack import remove_state
    from include.config import load_settings

    for place in remove_state(Path(load_settings().candelabra_home)):
        typer.echo(f"removed {place}")


def _home() -> Path | None:
    """Return CANDELABRA_HOME; None if the settings cannot be read."""
    from include.config import load_settings

    try:
        return Path(load_settings().candelabra_home).absolute()
    except CandelabraError:
        return None


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _end(message: str, code: int = 1) -> NoReturn:
    typer.secho(f"candelabra: {message}", err=True, fg=typer.colors.RED)
    sys.exit(code)


def main() -> None:
    """Run the command line; our errors become one message and exit code 1; 2 for bad values."""
    try:
        app(prog_name="candelabra", standalone_mode=True)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in {
            "include",
            "streamer",
            "serving",
            "cli",
            "simulator",
        }:
            raise
        _end(
            f"this command needs the package {error.name}, which is not in "
            "the streamer's small environment: install requirements.txt (make setup)"
        )
    except (RejectedInputError, WrongValueError) as error:
        _end(str(error), 2)
    except CandelabraError as error:
        _end(str(error))
    except OSError as error:
        if error.filename is None or (home := _home()) is None:
            raise
        place = Path(str(error.filename)).absolute()
        if not (place.is_relative_to(home) or home.is_relative_to(place)):
            raise
        _end(
            f"{error.filename}: {error.strerror}; CANDELABRA_HOME ({home}) should be a folder that "
            "you may write to"
        )
