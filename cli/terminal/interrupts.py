"""Ctrl-C in a loading command: the command ends at once with one line and leaves no damage."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
"""Exit code of a program that ended by SIGINT, by the convention of shells."""


@contextmanager
def promptly_stopped(consequence: str) -> Iterator[None]:
    """Run a block that Ctrl-C ends within a moment.

    Threads may be in the middle of a request or a merge, and are not waited for. The process ends,
    the database rolls back uncommitted changes, and files being written are in a folder of this
    process that is removed.

    Args:
        consequence: message that says what the user should know or do next.
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
