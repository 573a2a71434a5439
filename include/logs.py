"""Structured logs: an event name and fields, JSON for machines, colours for people."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TextIO, cast

import structlog

CACHES_LOGGERS = True
"""Tests switch it off: they set up logs more than once in a process."""
MAX_LINES = 5
"""Lines of one kind from a library in ``WINDOW_S``; further ones are only counted."""
WINDOW_S = 60.0


class _PresentStderr:
    """Writes to what ``sys.stderr`` is at that moment: a progress bar puts itself in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(level: str, log_format: Literal["auto", "json", "console"]) -> None:
    """Set up logging for a process; called once, at an entry point. Logs go to stderr."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=_has_colours())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _PresentStderr())),
        cache_logger_on_first_use=CACHES_LOGGERS,
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.addHandler(LibraryLines())
    root.setLevel(logging.WARNING)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to stderr by itself


def _has_colours() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


@dataclass(slots=True)
class _Kind:
    began_s: float
    lines: int = 0
    left_out: int = 0


class LibraryLines(logging.Handler):
    """Logs records of libraries (``logging``) like our own events, and not too often.

    A server logs a line for each bad request or frame, so a client could fill the disk.

    Args:
        clock: in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._kinds: dict[tuple[str, str, int], _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, unless there were many of its kind."""
        kind = self._kind_of(record)
        kind.lines += 1
        if kind.lines > MAX_LINES:
            kind.left_out += 1
            return
        fields: dict[str, object] = {"library": record.name, "message": _message_of(record)}
        if kind.left_out:
            fields["left_out"], kind.left_out = kind.left_out, 0
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, UnicodeError):  # of what a client sent: a traceback does not help
            fields["error"] = str(error)
        elif error is not None:
            fields["exc_info"] = error
        log = structlog.get_logger(__name__)
        (log.error if record.levelno >= logging.ERROR else log.warning)("library_logged", **fields)

    def _kind_of(self, record: logging.LogRecord) -> _Kind:
        """Lines of one place in the code are one kind; their text may differ each time."""
        now_s, place = self._clock(), (record.name, record.pathname, record.lineno)
        kind = self._kinds.setdefault(place, _Kind(now_s))
        if now_s - kind.began_s >= WINDOW_S:
            kind.began_s, kind.lines = now_s, 0
        return kind


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except (TypeError, ValueError):  # the library gave wrong arguments
        return str(record.msg)
