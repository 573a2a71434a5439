"""Archives are read in bounded blocks of whole lines, and damage is reported before use."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from include.binance.files import archives as module
from include.binance.files.archives import MAX_LINE_BYTES, check_archive, read_blocks, sha256_of
from include.errors import RejectedInputError

TEXT = b"".join(b"line %d\n" % number for number in range(5_000))


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(params=["x.csv", "x.csv.gz", "x.zip"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = tmp_path / request.param
    if request.param.endswith(".zip"):
        return zipped(place, **{"x.csv": TEXT})
    place.write_bytes(gzip.compress(TEXT) if request.param.endswith(".gz") else TEXT)
    return place


def test_blocks_have_complete_lines_and_lose_nothing(path: Path) -> None:
    blocks = list(read_blocks(path, block_bytes=1_000))
    assert b"".join(blocks) == TEXT
    assert len(blocks) > 10
    assert all(block.endswith(b"\n") for block in blocks)


def test_reading_reports_progress(path: Path) -> None:
    shares: list[float] = []
    list(read_blocks(path, block_bytes=10_000, on_read=shares.append))
    assert shares == sorted(shares)
    assert (shares[-1] > 0.9, max(shares) <= 1) == (True, True)


def test_last_line_without_newline_is_read(tmp_path: Path) -> None:
    place = tmp_path / "x.csv"
    place.write_bytes(b"a\nb")
    assert b"".join(read_blocks(place)) == b"a\nb"


@pytest.mark.parametrize("name", ["x.csv.gz", "x.zip"])
def test_truncated_archive_is_damaged(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    whole = gzip.compress(TEXT) if name.endswith(".gz") else zipped(place, a=TEXT).read_bytes()
    place.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RejectedInputError, match=f"{name} is damaged"):
        check_archive(place)


def test_flipped_byte_is_damage(tmp_path: Path) -> None:
    place = zipped(tmp_path / "x.zip", a=TEXT)
    body = bytearray(place.read_bytes())
    body[len(body) // 2] ^= 0xFF
    place.write_bytes(body)
    with pytest.raises(RejectedInputError, match="damaged"):
        check_archive(place)


def test_names_inside_an_archive_are_never_used_as_paths(tmp_path: Path) -> None:
    place = zipped(tmp_path / "x.zip", **{"../../outside.csv": b"a\n"})
    assert list(read_blocks(place)) == [b"a\n"]
    assert [one.name for one in tmp_path.iterdir()] == ["x.zip"]


def test_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    place = zipped(tmp_path / "x.zip", a=b"1\n", b=b"2\n")
    with pytest.raises(RejectedInputError, match="holds 2 files"):
        check_archive(place)


def test_macos_metadata_in_archives_is_ignored(tmp_path: Path) -> None:
    place = zipped(tmp_path / "x.zip", **{"a.csv": b"1\n", "__MACOSX/._a.csv": b"x"})
    assert list(read_blocks(place)) == [b"1\n"]


def test_endless_line_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "x.csv"
    place.write_bytes(b"\0" * (MAX_LINE_BYTES + 2))
    with pytest.raises(RejectedInputError, match="not a text file"):
        list(read_blocks(place, block_bytes=MAX_LINE_BYTES))


@pytest.mark.parametrize("name", ["none.csv", "folder"])
def test_missing_file_or_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RejectedInputError, match=r"does not exist|is a folder"):
        check_archive(tmp_path / name)


def test_checksum_is_sha256(tmp_path: Path) -> None:
    place = tmp_path / "x"
    place.write_bytes(b"abc")
    assert sha256_of(place).startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("suffix", [".zip", ".csv.gz"])
@pytest.mark.parametrize(
    ("bound", "value", "reason"),
    [
        ("MAX_TEXT_BYTES", 2 << 20, "GiB of text"),
        ("MAX_RATIO", 5, "5 times its size"),
        ("MAX_READ_S", -1.0, "to read"),
    ],
)
def test_archives_are_bounded_in_size_ratio_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, bound: str, value: float,
    reason: str,
) -> None:  # fmt: skip
    text = b"0\n" * (2 << 20)
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.csv", text)
    else:
        path.write_bytes(gzip.compress(text))
    assert len(b"".join(read_blocks(path))) == len(text)  # small files may have any ratio
    monkeypatch.setattr(module, bound, value)
    if bound == "MAX_RATIO":
        monkeypatch.setattr(module, "RATIO_FROM_BYTES", 1 << 20)
    for read in (check_archive, lambda one: list(read_blocks(one))):
        with pytest.raises(RejectedInputError, match=reason):
            read(path)
