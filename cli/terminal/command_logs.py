"""Logs of commands that show bars and tables: for people, and few, unless JSON is asked for."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Literal

from include.config import LogFormat, LogLevel
from include.logs import configure_logging

Level = LogLevel | Literal["CRITICAL"]


def quiet(level: Level) -> Level:
    """Return the level of a screen that shows the progress itself: INFO becomes WARNING."""
    return "WARNING" if level == "INFO" else level


def configure_command_logs(level: Level = "WARNING", log_format: LogFormat = "auto") -> None:
    """Set up the logs of a command; they go to stderr.

    They are written for people, unless LOG_FORMAT is ``json`` and they go to a pipe or file. A
    terminal, where bars show the progress, has them only from WARNING on. What libraries warn of is
    for developers: ``python -W default`` shows it.
    """
    is_terminal = sys.stderr.isatty()
    configure_logging(
        quiet(level) if is_terminal else level,
        "json" if log_format == "json" and not is_terminal else "console",
    )
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
