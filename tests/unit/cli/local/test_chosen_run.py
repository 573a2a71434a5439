"""--demo and --up of every command that looks for the running stack."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from cli.app import app
from cli.local.chosen_run import chosen_run, of_stack


def of_choice() -> typer.Typer:
    found = typer.Typer()

    @found.command()
    @of_stack
    def show(name: str = "nobody") -> None:
        """Show the choice."""
        typer.echo(f"{name} {chosen_run()}")

    return found


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], "nobody None"),
        (["--demo"], "nobody demo"),
        (["--name", "me", "--up"], "me up"),
    ],
)
def test_command_is_told_the_choice(arguments: list[str], shown: str) -> None:
    assert CliRunner().invoke(of_choice(), arguments).output == f"{shown}\n"
    assert chosen_run() is None


def test_both_are_refused() -> None:
    done = CliRunner().invoke(of_choice(), ["--demo", "--up"])
    assert done.exit_code == 2
    assert "give one of --demo and --up" in done.output


@pytest.mark.parametrize(
    "command",
    [
        "archive", "backfill", "backup", "check", "compare", "dbt-env", "import", "migrate", "psql",
        "status", "sync-instruments", "user list", "user token add", "user watch list",
    ],
)  # fmt: skip
def test_commands_of_the_running_stack_have_both_options(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert "--demo" in shown
    assert "--up" in shown
