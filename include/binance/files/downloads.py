"""Downloads that resume after an interruption.

Received bytes are beside the file under ``.part``, with the validator of its state (ETag or
Last-Modified) under ``.part.state``. The next attempt requests the rest with Range and If-Range, so
that a server whose file has changed, or that supports no ranges, sends the whole file (RFC 9110,
13.1.5 and 14.2). The caller still verifies the checksum.
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
        check_status: raises for an answer that is not the file.

    Raises:
        httpx.TransportError, httpx.DecodingError: the connection broke; received bytes are kept.
    """
    part, state = _beside(file, ".part"), _beside(file, ".part.state")
    for offset in (_size(part, state), 0):
        headers = {"Accept-Encoding": "identity"}  # a range is one of the bytes that are sent
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": state.read_text()}
        with http.stream("GET", url, headers=headers) as answer:
            if offset and _has_nothing_to_add(answer, offset):
                continue  # the bytes on disk are not the start of the file: request the whole
            check_status(answer)
            is_rest = answer.status_code == _PARTIAL
            digest = hashlib.sha256()
            if is_rest:
                log.info("download_resumed", url=url, from_bytes=offset)
                with part.open("rb") as begun:
                    while chunk := begun.read(_CHUNK_BYTES):
                        digest.update(chunk)
            else:
                _name_state(state, answer)
            with part.open("ab" if is_rest else "wb") as out:
                _drain(answer, out, digest.update)
            published = answer.headers.get("last-modified", "")
        part.replace(file)
        state.unlink(missing_ok=True)
        return Downloaded(digest.hexdigest(), published, offset if is_rest else 0)
    raise AssertionError("unreachable: a request without Range is answered as a whole")


def _drain(answer: httpx.Response, out: BinaryIO, update: Callable[[bytes], None]) -> None:
    for chunk in answer.iter_bytes():  # as they come: joined ones would be lost with the rest
        update(chunk)
        out.write(chunk)


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _size(part: Path, state: Path) -> int:
    """Bytes from which the download can resume."""
    return part.stat().st_size if part.exists() and state.exists() else 0


def _name_state(state: Path, answer: httpx.Response) -> None:
    """Store the validator of the file's state; without it the download cannot resume."""
    tag = answer.headers.get("etag", "")
    name = answer.headers.get("last-modified", "") if not tag or tag.startswith("W/") else tag
    if name:
        state.write_text(name)
    else:
        state.unlink(missing_ok=True)


def _has_nothing_to_add(answer: httpx.Response, offset: int) -> bool:
    """Whether an answer to a request for the rest is neither the rest nor the whole."""
    if answer.status_code == _NOT_SATISFIABLE:
        return True
    if answer.status_code != _PARTIAL:
        return False
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    return found is None or int(found[1]) != offset
