"""The file that says what to stream: one symbol or pattern a line, read again when told to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.errors import PermanentError

MAX_BYTES = 1_048_576
"""A list of all symbols of both markets is fifty times smaller."""
NAME = re.compile(r"[A-Z0-9_*?\[\]!-]+(\.P)?")


@dataclass(frozen=True, slots=True)
class WantedSymbols:
    """What a file asks for.

    Attributes:
        lines: number of the line of each name and pattern, in their order.
    """

    path: Path
    lines: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Names and patterns, see ``universe.choose``."""
        return tuple(self.lines)

    def place_of(self, name: str) -> str:
        """Where a name stands, to begin a message with."""
        return f"{self.path}:{self.lines[name]}: "


def read_symbols(path: Path) -> WantedSymbols:
    """Read the file: one name or pattern a line; after ``#`` comes a comment.

    Raises:
        PermanentError: it cannot be read, names nothing, or a line (named with its number) holds
            something else than one name.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PermanentError(
            f"{path}: {error.strerror}; a file of symbols has one symbol or pattern a line"
        ) from None
    if len(data) > MAX_BYTES:
        raise PermanentError(f"{path}: over {MAX_BYTES} bytes; that is no list of symbols")
    lines: dict[str, int] = {}
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        name = raw.partition(b"#")[0].decode(errors="replace").strip()
        if not name:
            continue
        if not NAME.fullmatch(name):
            raise PermanentError(f"{path}:{number}: {_wrong(name)}")
        lines.setdefault(name, number)
    if not lines:
        raise PermanentError(f"{path}: names no symbol; put one symbol or pattern on each line")
    return WantedSymbols(path, lines)


def _wrong(text: str) -> str:
    told = f"{text.strip()[:60]!r} is no symbol"
    if NAME.fullmatch(text.upper()):
        return f"{told}; write {text.upper()}"
    return f"{told}; should be one name or pattern, such as BTCUSDT, BTCUSDT.P or *USDT"
