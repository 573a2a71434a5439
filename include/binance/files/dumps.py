"""List, fetch and verify files of the dump site (data.binance.vision).

Files may be published late, re-issued, truncated, or have a stale checksum. So no file is used
before its SHA-256 matches, and every version of a file is recorded by path and checksum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Self, TypeVar
from xml.etree import ElementTree

import httpx
import structlog

from include.backoff import Backoff, retried
from include.binance.files.archives import checksum_in
from include.binance.files.downloads import download
from include.binance.files.dump_paths import daily_path, klines_prefix, monthly_path
from include.binance.files.kline_files import KlineBlock, read_klines
from include.binance.tls import trusted
from include.domain.timeframes import to_us
from include.errors import (
    PermanentError,
    RateLimitedError,
    RejectedInputError,
    TransientError,
)

__all__ = [
    "DumpEntry",
    "DumpSite",
    "FetchedDump",
    "KlineBlock",
    "NotPublishedError",
    "WrongChecksumError",
    "daily_path",
    "klines_prefix",
    "monthly_path",
    "read_klines",
]

log = structlog.get_logger(__name__)

Value = TypeVar("Value")

TIMEOUT_S = 60.0
ATTEMPTS = 4
BACKOFF = Backoff(first_s=0.5, max_s=20.0)
MAX_ELAPSED_S = 300.0
"""A request is not retried after this time, however long the site asks to wait."""
MAX_PAGES = 10_000
"""Maximum pages of a listing: ten million keys, more than the site has."""


class NotPublishedError(TransientError):
    """The site does not have the file (yet)."""


class WrongChecksumError(RejectedInputError):
    """A file does not match the checksum published for it.

    Args:
        path: below the site's root.
        expected: SHA-256 that the site publishes.
        found: SHA-256 of the file it sent.
    """

    def __init__(self, path: str, *, expected: str, found: str) -> None:
        super().__init__(
            f"{path} does not fit its checksum: expected SHA-256 {expected}, found {found}"
        )
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class DumpEntry:
    """A file in the listing.

    Attributes:
        path: relative to the site's root.
        published_at_us: when this version was published.
        size_bytes: as listed; 0 if the listing has no size.
    """

    path: str
    published_at_us: int
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FetchedDump:
    """A downloaded file that matches its checksum."""

    path: str
    file: Path
    checksum: str
    published_at_us: int


class DumpSite:
    """Client of a dump site.

    Args:
        base_url: of the files.
        list_url: of the listing (S3's XML).
        proxy: URL of an HTTP proxy; empty for none.
        attempts: tries of one request.
        sleep: waits between attempts.
        transport: None for the network.
    """

    def __init__(
        self,
        base_url: str,
        list_url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        proxy: str = "",
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._list_url = list_url.rstrip("/")
        self._attempts = attempts
        self._sleep = sleep
        self._http = httpx.Client(
            timeout=timeout_s,
            proxy=proxy or None,
            trust_env=False,
            verify=trusted(),
            follow_redirects=True,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def list(self, prefix: str, *, after: str = "", until: str = "") -> Iterator[DumpEntry]:
        """List the files with a prefix, ordered by path, without checksum files.

        Args:
            after: start after this path.
            until: stop before this path; empty for all.

        Raises:
            TransientError: the site does not answer.
            PermanentError: the answer is not a listing.
        """
        marker = after
        for _ in range(MAX_PAGES):
            parameters = {"delimiter": "/", "prefix": prefix, "marker": marker}
            page = self._retried(f"the listing of {prefix}", partial(self._list_page, parameters))
            for entry in page.entries:
                if until and entry.path >= until:
                    return
                if not entry.path.endswith(".CHECKSUM"):
                    yield entry
            if page.next_marker is None:
                return
            if page.next_marker <= marker:
                raise PermanentError(f"the listing of {prefix} does not get past {marker!r}")
            marker = page.next_marker
        raise PermanentError(f"the listing of {prefix} has more than {MAX_PAGES} pages")

    def is_published(self, path: str) -> bool:
        """Whether the site has a file's checksum, which is published with the file or later.

        Raises:
            TransientError: the site does not answer.
            PermanentError: the site refuses to.
        """
        try:
            self._retried(path, partial(self._get, f"{path}.CHECKSUM"))
        except NotPublishedError:
            return False
        return True

    def fetch(self, path: str, into: Path) -> FetchedDump:
        """Download a file and verify its checksum.

        An interrupted download resumes, even if an earlier call with the same folder began it. If
        the checksum does not match, it is requested once more: a file and its checksum are not
        re-issued at the same moment.

        Args:
            path: relative to the site's root.
            into: target folder; the last part of the path is the file's name.

        Raises:
            NotPublishedError: the site has no such file, or no checksum of it.
            WrongChecksumError: the checksum does not match.
            RejectedInputError: the checksum file contains none.
            TransientError: the site does not answer.
        """
        file = into / PurePosixPath(path).name
        for is_repeat in (False, True):
            expected = self._expected_checksum(path)
            found, published = self._retried(path, partial(self._download, path, file))
            if found == expected:
                return FetchedDump(path, file, found, self._published_at_us(path, published))
            if not is_repeat:
                log.info("dump_checksum_asked_again", path=path, expected=expected, found=found)
        raise WrongChecksumError(path, expected=expected, found=found)

    # --- inside

    def _expected_checksum(self, path: str) -> str:
        text = self._retried(path, partial(self._get, f"{path}.CHECKSUM")).text
        checksum = checksum_in(text)
        if checksum is None:
            raise RejectedInputError(
                f"{path}.CHECKSUM holds {text[:80]!r}; expected a SHA-256 and a file name"
            )
        return checksum

    def _get(self, path: str) -> httpx.Response:
        try:
            answer = self._http.get(f"{self._base_url}/{path}")
        except httpx.TransportError as error:
            raise _no_answer(self._base_url, path, error) from error
        _check_status(answer, path)
        return answer

    def _download(self, path: str, file: Path) -> tuple[str, str]:
        """Stream a file to disk; return its SHA-256 and its Last-Modified header."""
        try:
            done = download(
                self._http,
                f"{self._base_url}/{path}",
                file,
                check_status=partial(_check_status, what=path),
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _no_answer(self._base_url, path, error) from error
        return done.checksum, done.last_modified

    def _published_at_us(self, path: str, header: str) -> int:
        """Return when the file was published: its Last-Modified, else the listing's time."""
        if header:
            try:
                return to_us(parsedate_to_datetime(header))
            except ValueError as error:
                raise PermanentError(
                    f"{self._base_url} sends {path} with Last-Modified: {header!r}; expected an "
                    "HTTP date"
                ) from error
        for entry in self.list(path):
            if entry.path == path:
                return entry.published_at_us
        raise NotPublishedError(f"{self._list_url} does not list {path} (yet)")

    def _list_page(self, parameters: dict[str, str]) -> _Page:
        where = self._list_url
        try:
            answer = self._http.get(where, params=parameters)
        except httpx.TransportError as error:
            raise _no_answer(where, "its listing", error) from error
        _check_status(answer, f"the listing of {parameters['prefix']}")
        return _parse(answer.content, where)

    def _retried(self, what: str, call: Callable[[], Value]) -> Value:
        """Call a function, with retries on transient errors."""
        return retried(
            call,
            backoff=BACKOFF,
            attempts=self._attempts,
            max_elapsed_s=MAX_ELAPSED_S,
            unless=(NotPublishedError,),
            on_retry=partial(log.info, "dump_retried", what=what),
            sleep=self._sleep,
        )


@dataclass(frozen=True, slots=True)
class _Page:
    entries: list[DumpEntry]
    next_marker: str | None


def _parse(content: bytes, where: str) -> _Page:
    # Safe for untrusted XML: expat since 2.4.1 limits entity expansion and loads no external ones.
    try:
        root = ElementTree.fromstring(content)  # noqa: S314
    except ElementTree.ParseError as error:
        raise TransientError(
            f"{where} answered with something other than a listing: {error}"
        ) from error
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    if root.tag != f"{space}ListBucketResult":
        raise PermanentError(f"{where} answered with <{root.tag}>, expected <ListBucketResult>")
    entries = []
    for one in root.iter(f"{space}Contents"):
        path, moment = one.findtext(f"{space}Key"), one.findtext(f"{space}LastModified")
        if not path or not moment:
            raise PermanentError(f"{where} lists a file without Key or LastModified")
        size = one.findtext(f"{space}Size", "")
        published_at_us = to_us(datetime.fromisoformat(moment).astimezone(UTC))
        entries.append(DumpEntry(path, published_at_us, int(size) if size.isdecimal() else 0))
    if root.findtext(f"{space}IsTruncated", "false").lower() != "true":
        return _Page(entries, None)
    folders = [one.text or "" for one in root.iter(f"{space}Prefix")]
    last = max([*(entry.path for entry in entries), *folders[1:]], default="")
    return _Page(entries, root.findtext(f"{space}NextMarker") or last)


def _check_status(answer: httpx.Response, what: str) -> None:
    host = answer.url.host
    if answer.status_code == 404:
        raise NotPublishedError(f"{host} has no {what} (yet)")
    if answer.status_code in (403, 451):
        raise PermanentError(
            f"{host} refuses {what} with {answer.status_code}: a firewall or a blocked region; "
            "set HTTPS_PROXY to a proxy that it serves"
        )
    if answer.status_code == 429 or answer.status_code >= 500:
        message = f"{host} answered {what} with {answer.status_code}"
        retry_after = answer.headers.get("retry-after", "")
        if retry_after.isdigit():
            raise RateLimitedError(
                f"{message}, Retry-After {retry_after} s", retry_after_s=float(retry_after)
            )
        raise TransientError(message)
    if answer.status_code >= 400:
        raise PermanentError(f"{host} answered {what} with {answer.status_code}")


def _no_answer(where: str, path: str, error: Exception) -> TransientError:
    return TransientError(f"no answer from {where} for {path}: {error or type(error).__name__}")
