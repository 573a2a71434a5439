"""The dump site is listed page by page, and a file is used only where its checksum fits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from include.binance.files.dumps import (
    DumpSite,
    NotPublishedError,
    WrongChecksumError,
    daily_path,
    klines_prefix,
    monthly_path,
)
from include.domain.timeframes import to_us
from include.errors import (
    PermanentError,
    RateLimitedError,
    RejectedInputError,
    TransientError,
)

MOMENT = datetime(2026, 11, 19, 4, 30, 5, tzinfo=UTC)
BODY = b"PK content"
SUM = hashlib.sha256(BODY).hexdigest()
PATH = "data/spot/daily/klines/X/1m/X-1m-2026-11-18.zip"
DATE = "Thu, 19 Nov 2026 04:30:05 GMT"

Handler = Callable[[httpx.Request], httpx.Response]


def site(handler: Handler, **options: int) -> DumpSite:
    return DumpSite(
        "https://dumps.test",
        "https://list.test/bucket",
        transport=httpx.MockTransport(handler),
        sleep=lambda _: None,
        **options,
    )


def listing(*keys: str, more: bool = False, space: bool = True, marker: str = "") -> httpx.Response:
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-19T04:30:05.000Z</LastModified></Contents>"
        for key in keys
    )
    name = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if space else ""
    following = f"<NextMarker>{marker}</NextMarker>" if marker else ""
    return httpx.Response(
        200,
        text=f"<ListBucketResult{name}><Prefix>p</Prefix>{following}"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{entries}</ListBucketResult>",
    )


def served(files: dict[str, httpx.Response | list[httpx.Response]]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        answer = files.get(request.url.path.lstrip("/"), httpx.Response(404))
        return answer.pop(0) if isinstance(answer, list) else answer

    return handler


def dump(body: bytes = BODY, **headers: str) -> httpx.Response:
    return httpx.Response(200, content=body, headers={"Last-Modified": DATE, **headers})


def test_paths_equal_those_of_the_site() -> None:
    assert daily_path("BTCUSDT", MOMENT) == (
        "data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11-19.zip"
    )
    assert monthly_path("BTCUSDT.P", MOMENT) == (
        "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-11.zip"
    )


@pytest.mark.parametrize("space", [True, False])
@pytest.mark.parametrize("marker", ["", "a/2.zip.CHECKSUM"])
def test_listing_covers_all_pages_without_checksum_files(space: bool, marker: str) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["marker"])
        if asked[-1] == "":
            keys = ("a/1.zip", "a/1.zip.CHECKSUM", "a/2.zip", "a/2.zip.CHECKSUM")
            return listing(*keys, more=True, space=space, marker=marker)
        return listing("a/3.zip", space=space)

    entries = list(site(handler).list("a/"))
    assert [entry.path for entry in entries] == ["a/1.zip", "a/2.zip", "a/3.zip"]
    assert {entry.published_at_us for entry in entries} == {to_us(MOMENT)}
    assert asked == ["", "a/2.zip.CHECKSUM"]


def test_listing_excludes_both_bounds() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["marker"])
        return listing("a/2", "a/3", "a/4", more=True)

    assert [one.path for one in site(handler).list("a/", after="a/1", until="a/4")] == [
        "a/2",
        "a/3",
    ]
    assert asked == ["a/1"]


def test_listing_that_repeats_its_page_is_an_error() -> None:
    with pytest.raises(PermanentError, match="does not get past"):
        list(site(lambda _: listing("a/1", more=True)).list("a/"))


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (httpx.Response(200, text="<html"), TransientError, "other than a listing"),
        (httpx.Response(200, text="<html/>"), PermanentError, "expected <ListBucketResult>"),
        (httpx.Response(403), PermanentError, "HTTPS_PROXY"),
        (httpx.Response(400), PermanentError, "400"),
        (httpx.Response(503), TransientError, "503"),
    ],
)
def test_invalid_listing_is_an_error(
    answer: httpx.Response, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        list(site(lambda _: answer).list("a/"))


@pytest.mark.parametrize("end", ["", "\n"])
def test_file_that_matches_its_checksum_is_fetched(tmp_path: Path, end: str) -> None:
    checksum = httpx.Response(200, text=f"{SUM.upper()}  X-1m-2026-11-18.zip{end}")
    fetched = site(served({PATH: dump(), f"{PATH}.CHECKSUM": checksum})).fetch(PATH, tmp_path)
    assert fetched.file == tmp_path / "X-1m-2026-11-18.zip"
    assert fetched.file.read_bytes() == BODY
    assert (fetched.checksum, fetched.published_at_us) == (SUM, to_us(MOMENT))


def test_mismatch_error_names_both_checksums(tmp_path: Path) -> None:
    checksum = httpx.Response(200, text=f"{'a' * 64}  x")
    with pytest.raises(
        WrongChecksumError, match=f"expected SHA-256 {'a' * 64}, found {SUM}"
    ) as told:
        site(served({PATH: dump(), f"{PATH}.CHECKSUM": checksum})).fetch(PATH, tmp_path)
    assert (told.value.expected, told.value.found) == ("a" * 64, SUM)


def test_file_reissued_between_checksum_and_content_is_fetched_again(tmp_path: Path) -> None:
    old, new = httpx.Response(200, text="b" * 64), httpx.Response(200, text=SUM)
    files = {PATH: [dump(), dump()], f"{PATH}.CHECKSUM": [old, new]}
    assert site(served(files)).fetch(PATH, tmp_path).checksum == SUM


def test_checksum_file_without_a_checksum_is_refused(tmp_path: Path) -> None:
    files = {PATH: dump(), f"{PATH}.CHECKSUM": httpx.Response(200, text="<html>")}
    with pytest.raises(RejectedInputError, match="expected a SHA-256"):
        site(served(files)).fetch(PATH, tmp_path)


def test_missing_file_is_not_requested_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(404)

    with pytest.raises(NotPublishedError, match=r"has no data/spot.*\(yet\)"):
        site(handler).fetch(PATH, tmp_path)
    assert len(asked) == 1


def test_transient_failure_is_retried_up_to_a_bound(tmp_path: Path) -> None:
    checksum = [httpx.Response(500), httpx.Response(200, text=SUM)]
    files = {PATH: [httpx.Response(503), dump()], f"{PATH}.CHECKSUM": checksum}
    assert site(served(files)).fetch(PATH, tmp_path).checksum == SUM
    files = {PATH: dump(), f"{PATH}.CHECKSUM": [httpx.Response(500) for _ in range(9)]}
    with pytest.raises(TransientError, match="500"):
        site(served(files), attempts=3).fetch(PATH, tmp_path)
    assert len(files[f"{PATH}.CHECKSUM"]) == 6  # type: ignore[arg-type]


def test_busy_site_is_retried_after_its_retry_after(tmp_path: Path) -> None:
    busy = httpx.Response(503, headers={"Retry-After": "7"})
    slept: list[float] = []
    handler = served({PATH: [busy, dump()], f"{PATH}.CHECKSUM": httpx.Response(200, text=SUM)})
    with DumpSite(
        "https://dumps.test",
        "https://list.test",
        transport=httpx.MockTransport(handler),
        sleep=slept.append,
    ) as dumps:
        assert dumps.fetch(PATH, tmp_path).checksum == SUM
    (waited_s,) = slept
    assert 7 <= waited_s <= 7.5


def test_long_retry_after_is_raised_to_the_caller(tmp_path: Path) -> None:
    handler = served({f"{PATH}.CHECKSUM": httpx.Response(429, headers={"Retry-After": "3600"})})
    with site(handler) as dumps, pytest.raises(RateLimitedError) as told:
        dumps.fetch(PATH, tmp_path)
    assert told.value.retry_after_s == 3_600


def test_listing_gives_the_date_that_a_mirror_omits(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.host == "list.test":
            return listing(PATH, f"{PATH}.CHECKSUM")
        if request.url.path.endswith(".CHECKSUM"):
            return httpx.Response(200, text=SUM)
        return httpx.Response(200, content=BODY)

    assert site(handler).fetch(PATH, tmp_path).published_at_us == to_us(MOMENT)


def test_unreadable_date_is_an_error(tmp_path: Path) -> None:
    files = {
        PATH: dump(**{"Last-Modified": "yesterday"}),
        f"{PATH}.CHECKSUM": httpx.Response(200, text=SUM),
    }
    with pytest.raises(PermanentError, match="Last-Modified: 'yesterday'"):
        site(served(files)).fetch(PATH, tmp_path)


def test_folder_of_a_symbol_ends_with_its_interval() -> None:
    assert klines_prefix("X", "daily") == "data/spot/daily/klines/X/1m/"
