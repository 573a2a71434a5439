"""Download files, resuming after an interruption.

Received bytes are stored beside the file as ``.part``, and the validator of the file's version
(ETag or Last-Modified) as ``.part.state``. The next attempt requests the remaining bytes with Range
and If-Range. If the file has changed, or the server does not support ranges, the server sends the
whole file (RFC 9110, 13.1.5 and 14.2). The caller still verifies the checksum.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
import structlog

log = structlog.get_logger(__name__)

_CHUNK_BYTES = 1 << 20
_PARTIAL, _NOT_SATISFIABLE = 206, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A complete file.

    Attributes:
        checksum: its SHA-256, in hex.
        last_modified: the header; empty if there was none.
        resumed_at: bytes received before this attempt.
    """

    checksum: str
    last_modified: str
    resumed_at: int


def download(
    http: httpx.Client, url: str, file: Path, *, check_status: Callable[[httpx.Response], None]
) -> Downloaded:
    """Stream a file to disk, resuming an earlier attempt.

    Args:
        check_status: raises if the answer is not the file.

    Raises:
        httpx.TransportError, httpx.DecodingError: the connection broke; received bytes stay on
        disk.
    """
    part, state = _beside(file, ".part"), _beside(file, ".part.state")
    for offset in (_size(part, state), 0):
        # A range counts bytes as sent, so request them uncompressed.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": state.read_text()}
        with http.stream("GET", url, headers=headers) as answer:
            if offset and _is_range_unsatisfiable(answer, offset):
                continue  # the bytes on disk are of another version: request the whole file
            check_status(answer)
            is_rest = answer.status_code == _PARTIAL
            digest = hashlib.sha256()
            if is_rest:
                log.info("download_resumed", url=url, from_bytes=offset)
                with part.open("rb") as begun:
                    while chunk := begun.read(_CHUNK_BYTES):
                        digest.update(chunk)
            else:
                _store_validator(state, answer)
            with part.open("ab" if is_rest else "wb") as out:
                _write_body(answer, out, digest.update)
            published = answer.headers.get("last-modified", "")
        part.replace(file)
        state.unlink(missing_ok=True)
        return Downloaded(digest.hexdigest(), published, offset if is_rest else 0)
    raise AssertionError("unreachable: a request without Range is answered as a whole")


def _write_body(answer: httpx.Response, out: BinaryIO, update: Callable[[bytes], None]) -> None:
    for chunk in answer.iter_bytes():  # unbuffered: buffered bytes would be lost on an error
        update(chunk)
        out.write(chunk)


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _size(part: Path, state: Path) -> int:
    """Return the offset from which the download can resume."""
    return part.stat().st_size if part.exists() and state.exists() else 0


def _store_validator(state: Path, answer: httpx.Response) -> None:
    """Store the validator of the file's version; without it the download cannot resume."""
    tag = answer.headers.get("etag", "")
    name = answer.headers.get("last-modified", "") if not tag or tag.startswith("W/") else tag
    if name:
        state.write_text(name)
    else:
        state.unlink(missing_ok=True)


def _is_range_unsatisfiable(answer: httpx.Response, offset: int) -> bool:
    """Whether the answer to a range request is neither the range nor the whole file."""
    if answer.status_code == _NOT_SATISFIABLE:
        return True
    if answer.status_code != _PARTIAL:
        return False
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    return found is None or int(found[1]) != offset
