"""Large blocks are given back to the system as they are freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streamer.runtime import heap

SCRIPT = """
import ctypes, sys
from streamer.runtime import heap

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "flat":
    heap.return_freed_memory()
libc.free(libc.malloc(4 * 1024 * 1024))  # from then on glibc takes such blocks from its heap
mapped = libc.mallinfo2().hblks
libc.malloc(2 * heap.LARGE_BYTES)
print(libc.mallinfo2().hblks - mapped)
"""


@pytest.mark.skipif(
    not hasattr(heap.ctypes.CDLL(None), "mallinfo2"), reason="a C library of another kind"
)
@pytest.mark.parametrize(("how", "mapped"), [("flat", 1), ("as it comes", 0)])
def test_large_block_is_mapped_even_after_larger_ones_were_freed(how: str, mapped: int) -> None:
    command = [sys.executable, "-c", SCRIPT, how]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(told.stdout) == mapped


def test_another_c_library_stays_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _name: object())
    heap.return_freed_memory()
