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

    They are written for people, and only from WARNING on: on a terminal always, in a pipe or file
    unless LOG_FORMAT is ``json``. What libraries warn of is for developers: ``python -W default``
    shows it.
    """
    if log_format == "json" and not sys.stderr.isatty():
        configure_logging(level, "json")
    else:
        configure_logging(quiet(level), "console")
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
