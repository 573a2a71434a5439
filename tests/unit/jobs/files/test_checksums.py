"""A CHECKSUM beside a file is verified before anything of the file is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cli.commands.import_files import _files
from include.errors import RejectedInputError
from include.jobs.files.user_files import open_file

ROW = "1735689600000,1,2,1,2,3,1735689659999,4,5,1,1,0"
NAME = "ABC-1m-2025-01-01.csv"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / NAME
    file.write_text(ROW)
    return file


def beside(path: Path, text: str) -> Path:
    checksum = path.with_name(f"{path.name}.CHECKSUM")
    checksum.write_text(text)
    return checksum


@pytest.mark.parametrize("text", ["{sum}  {name}", "{upper} *{name}\n", "{sum}"])
def test_fitting_checksum_passes(path: Path, text: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    beside(path, text.format(sum=found, upper=found.upper(), name=path.name))
    assert open_file(path).symbol == "ABC"


def test_other_checksum_refuses_the_file_and_names_both_sums(path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    beside(path, f"{'0123456789abcdef' * 4}  {path.name}")
    with pytest.raises(RejectedInputError) as error:
        open_file(path)
    assert str(error.value).startswith(
        f"{NAME} does not fit its CHECKSUM: expected SHA-256 0123456789ab…, found {found[:12]}…"
    )


@pytest.mark.parametrize("text", ["", "secret words", "ab" * 31])
def test_checksum_without_a_sum_is_refused_unquoted(path: Path, text: str) -> None:
    beside(path, text)
    with pytest.raises(RejectedInputError, match="CHECKSUM has no SHA-256") as error:
        open_file(path)
    assert "secret" not in str(error.value)


def test_patterns_and_folders_leave_the_checksums_to_their_files(path: Path) -> None:
    checksum = beside(path, "x")
    assert _files([str(path.parent)]) == [path]
    assert _files([str(path.parent / "*")]) == [path]
    assert _files([str(checksum), str(path)]) == [path]
    assert _files([str(checksum)]) == [checksum]
    with pytest.raises(RejectedInputError, match="no file beside it"):
        open_file(checksum)
