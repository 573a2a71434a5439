"""Ctrl-C ends a command immediately, whatever its threads do."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cli.terminal.interrupts import promptly_stopped

ROOT = Path(__file__).parents[4]


def test_scratch_folder_is_removed_without_an_interrupt() -> None:
    before = tempfile.gettempdir()
    with promptly_stopped("never said"):
        scratch = Path(tempfile.gettempdir())
        (scratch / "half a file").write_text("x")
    assert not scratch.exists()
    assert tempfile.gettempdir() == before


def test_interrupt_does_not_wait_for_threads(tmp_path: Path) -> None:
    code = (
        "import tempfile, threading, time\n"
        "from cli.terminal.interrupts import promptly_stopped\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "with promptly_stopped('look again'):\n"
        "    tempfile.mkdtemp()\n"
        "    raise KeyboardInterrupt\n"
    )
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "candelabra: interrupted; look again\n")
    assert time.monotonic() - began_s < 20
    assert list(tmp_path.iterdir()) == []
