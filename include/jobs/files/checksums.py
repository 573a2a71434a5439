"""Verify a file against the CHECKSUM beside it, as the dump site publishes one for each file."""

from __future__ import annotations

from pathlib import Path

from include.binance.files.archives import checksum_in, sha256_of
from include.errors import RejectedInputError

CHECKSUM = ".CHECKSUM"
_MAX_BYTES = 4_096
_SHOWN_DIGITS = 12


def checksum_beside(path: Path) -> Path:
    """Return the place of a file's CHECKSUM: ``FILE.CHECKSUM``."""
    return path.with_name(f"{path.name}{CHECKSUM}")


def check_sum(path: Path) -> None:
    """Compare a file with the CHECKSUM beside it, if there is one.

    Raises:
        RejectedInputError: they differ, or the CHECKSUM has no SHA-256.
    """
    beside = checksum_beside(path)
    try:
        with beside.open("rb") as file:
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RejectedInputError(f"{beside.name} cannot be read: {error.strerror}") from error
    expected = checksum_in(text.decode("ascii", "replace"))
    if expected is None:
        raise RejectedInputError(
            f"{beside.name} has no SHA-256: it should be 64 hex digits and the name {path.name}; "
            "fetch it again, or remove it"
        )
    found = sha256_of(path)
    if found != expected:
        raise RejectedInputError(
            f"{path.name} does not fit its CHECKSUM: expected SHA-256 {expected[:_SHOWN_DIGITS]}…, "
            f"found {found[:_SHOWN_DIGITS]}…; fetch both again"
        )
