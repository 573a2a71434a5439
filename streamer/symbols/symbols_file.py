"""Read the symbols file: one symbol or pattern on each line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from include.errors import WrongValueError

MAX_BYTES = 1_048_576
"""A list of all symbols of both markets has a fiftieth of this."""
NAME = re.compile(r"(?:[^\W_a-z]|[_*?\[\]!-])+(\.P)?")
"""Some symbols have letters that are not ASCII, such as 币安人生USDT."""


@dataclass(frozen=True, slots=True)
class WantedSymbols:
    """The names and patterns of a file.

    Attributes:
        lines: line number of each name and pattern, in order.
    """

    path: Path
    lines: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Names and patterns; see ``universe.choose``."""
        return tuple(self.lines)

    def place_of(self, name: str) -> str:
        """Return the place of a name, as the prefix of an error."""
        return f"{self.path}:{self.lines[name]}: "


def read_symbols(path: Path) -> WantedSymbols:
    """Read names and patterns; ``#`` starts a comment.

    Raises:
        PermanentError: the file cannot be read or is empty, or a line is not one name; the
            error has the line number.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WrongValueError(
            f"{path}: {error.strerror}; a symbols file has one symbol or pattern on each line"
        ) from None
    if len(data) > MAX_BYTES:
        raise WrongValueError(f"{path}: over {MAX_BYTES} bytes; should be a list of symbols")
    lines: dict[str, int] = {}
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        name = raw.partition(b"#")[0].decode(errors="replace").strip()
        if not name:
            continue
        if not NAME.fullmatch(name):
            raise WrongValueError(f"{path}:{number}: {_wrong(name)}")
        lines.setdefault(name, number)
    if not lines:
        raise WrongValueError(f"{path}: names no symbol; put one symbol or pattern on each line")
    return WantedSymbols(path, lines)


def _wrong(text: str) -> str:
    problem = f"{text.strip()[:60]!r} is not a symbol"
    if NAME.fullmatch(text.upper()):
        return f"{problem}; write {text.upper()}"
    return f"{problem}; should be one name or pattern, such as BTCUSDT, BTCUSDT.P or *USDT"
