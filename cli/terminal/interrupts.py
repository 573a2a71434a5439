"""Ctrl-C in a command that loads: it ends immediately, with one line, and does no harm."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
"""Exit code of a program that ended by SIGINT, as shells have it."""


@contextmanager
def promptly_stopped(consequence: str) -> Iterator[None]:
    """Run a block that Ctrl-C ends within a moment.

    Threads may be in the middle of a request or a merge. They are not waited for: the process
    ends, the database undoes what was not committed, and whatever they were writing to disk lies
    in a folder of this process that is removed.

    Args:
        consequence: what the person should know or do then.
    """
    before = tempfile.tempdir
    scratch = tempfile.mkdtemp(prefix="candelabra-")
    tempfile.tempdir = scratch
    try:
        yield
    except KeyboardInterrupt:
        shutil.rmtree(scratch, ignore_errors=True)
        _leave(f"candelabra: interrupted; {consequence}")
    finally:
        tempfile.tempdir = before
        shutil.rmtree(scratch, ignore_errors=True)


def _leave(message: str) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    # sys.exit would join the threads.
    os._exit(INTERRUPTED)
