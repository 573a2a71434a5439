"""Read a file's rows in blocks with line numbers, without its header."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from include.binance.files import parquet_files
from include.binance.files.archives import BLOCK_BYTES, OnRead, check_archive, read_blocks
from include.binance.files.columns import Layout, choose_layout, lines_of
from include.errors import RejectedInputError

_FIRST_BYTES = 1 << 18
"""Read to find the first line; more than the longest line."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Whole lines of a file; ``first_line`` is the number of the first, from 1."""

    first_line: int
    content: bytes

    def lines(self) -> pl.DataFrame:
        """Return the lines with their numbers; see ``columns.lines_of``."""
        return lines_of(self.content, first_line=self.first_line)


def check_file(path: Path) -> None:
    """Read a file to its end, to find damage before any row is used.

    Raises:
        RejectedInputError: it is damaged, truncated or encrypted, or does not contain exactly one
            file.
    """
    if path.suffix == parquet_files.SUFFIX:
        parquet_files.check_parquet(path)
    else:
        check_archive(path)


def layout_of(path: Path, layouts: Sequence[Layout]) -> Layout:
    """Detect a file's layout from its header, its first row, or its column names.

    Raises:
        RejectedInputError: damaged, empty, or of unknown layout.
    """
    if path.suffix == parquet_files.SUFFIX:
        return parquet_files.parquet_layout(path, layouts)
    return choose_layout(first_line_of(path), layouts, file=path.name)[0]


def first_line_of(path: Path) -> str:
    """Return a file's first non-blank line; of a Parquet file its column names.

    Raises:
        RejectedInputError: it is damaged or empty.
    """
    if path.suffix == parquet_files.SUFFIX:
        return ",".join(parquet_files.parquet_names(path))
    for block in read_blocks(path, block_bytes=_FIRST_BYTES):
        lines = lines_of(block, first_line=1)
        if lines.height:
            return str(lines["raw"][0])
    raise RejectedInputError(f"{path.name} is empty")


def text_blocks(
    path: Path,
    layouts: Sequence[Layout],
    *,
    block_bytes: int = BLOCK_BYTES,
    on_read: OnRead | None = None,
) -> Generator[TextBlock, None, None]:
    """Yield the blocks of a ``.csv``, ``.csv.gz``, ``.zip`` or ``.parquet``.

    Raises:
        RejectedInputError: damaged, or of no known layout.
    """
    next_line = 1
    if path.suffix == parquet_files.SUFFIX:
        for content, share in parquet_files.parquet_blocks(path, layouts):
            if on_read is not None:
                on_read(share)
            yield TextBlock(next_line, content)
            next_line += content.count(b"\n")
        return
    is_begun = False
    for content in read_blocks(path, block_bytes=block_bytes, on_read=on_read):
        first_line, next_line = next_line, next_line + content.count(b"\n")
        if not is_begun:
            skipped = _lines_before_rows(content, layouts, path.name)
            is_begun = skipped is not None
            for _ in range(skipped or 0):
                content = content.partition(b"\n")[2]
            first_line += skipped or 0
        if content:
            yield TextBlock(first_line, content)


def _lines_before_rows(content: bytes, layouts: Sequence[Layout], file: str) -> int | None:
    """Return the number of lines up to the header's end; None if all lines are blank."""
    begin = 0
    number = 0
    while begin < len(content):
        end = content.find(b"\n", begin)
        end = len(content) if end < 0 else end
        found = lines_of(content[begin:end], first_line=1)
        if found.height:
            _, has_header = choose_layout(found["raw"][0], layouts, file=file)
            return number + has_header
        begin, number = end + 1, number + 1
    return None
