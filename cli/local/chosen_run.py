"""The options ``--demo`` and ``--up`` of commands that talk to a running stack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from cli.local.stack import Run

Command = TypeVar("Command", bound=Callable[..., object])

_chosen: ContextVar[Run | None] = ContextVar("chosen_run", default=None)


def chosen_run() -> Run | None:
    """Return the stack that the user named on the command line; None without an option."""
    return _chosen.get()


def of_stack(command: Command) -> Command:
    """Give a command the options ``--demo`` and ``--up``, which ``settings_here`` follows."""

    @wraps(command)
    def run(*arguments: Any, demo: bool = False, up: bool = False, **options: Any) -> object:
        if demo and up:
            raise typer.BadParameter("give one of --demo and --up")
        token = _chosen.set("demo" if demo else "up" if up else None)
        try:
            return command(*arguments, **options)
        finally:
            _chosen.reset(token)

    own = inspect.signature(command, eval_str=True)
    # Typer reads a command's options from its signature.
    run.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*own.parameters.values(), _option("demo"), _option("up")]
    )
    return run  # type: ignore[return-value]


def _option(run: Run) -> inspect.Parameter:
    text = f"Talk to the running `{run}`; one is needed where both run."
    return inspect.Parameter(
        run,
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option(f"--{run}", help=text)],
    )
