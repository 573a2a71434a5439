"""Logs of commands that show bars and tables: on a terminal for people, and few."""

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

    On a terminal they are written for people, whatever LOG_FORMAT says to services, and only from
    WARNING on. What libraries warn of is for developers: ``python -W default`` shows it.
    """
    is_terminal = sys.stderr.isatty()
    configure_logging(
        quiet(level) if is_terminal else level, "console" if is_terminal else log_format
    )
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
