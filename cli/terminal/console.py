"""Where commands print: the terminal's width, or a fixed one in a log or a pipe."""

from __future__ import annotations

from rich.console import Console

PIPE_WIDTH = 200
"""Width without a terminal, whose 80 columns would cut tables off."""


def console(*, stderr: bool = False) -> Console:
    """Return the console of a command's results, or of its progress and errors."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
