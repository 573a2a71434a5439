"""The symbols file, and the errors of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import PermanentError
from streamer.symbols import symbols_file as module
from streamer.symbols.symbols_file import read_symbols


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "symbols.txt"


def test_each_line_is_a_name_or_a_pattern_without_comments(file: Path) -> None:
    file.write_text("# majors\r\nBTCUSDT\r\n\n  ETHUSDT.P  # um, größte\n*USDC\n[BE]*\nBTCUSDT\n")
    wanted = read_symbols(file)
    assert wanted.names == ("BTCUSDT", "ETHUSDT.P", "*USDC", "[BE]*")
    assert wanted.place_of("ETHUSDT.P") == f"{file}:4: "
    assert wanted.place_of("BTCUSDT") == f"{file}:2: "


def test_names_need_not_be_ascii(file: Path) -> None:
    file.write_text("币安人生USDT\n币*\nMÜNZE.P\n", encoding="utf-8")
    assert read_symbols(file).names == ("币安人生USDT", "币*", "MÜNZE.P")


def test_byte_order_mark_is_not_part_of_the_first_name(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfBTCUSDT\n")
    assert read_symbols(file).names == ("BTCUSDT",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BTCUSDT\nETH USDT\n", ":2: 'ETH USDT' is not a symbol; should be one name or pattern"),
        ("BTCUSDT,ETHUSDT\n", ":1: 'BTCUSDT,ETHUSDT' is not a symbol"),
        ("\n\nbtcusdt\n", ":3: 'btcusdt' is not a symbol; write BTCUSDT"),
        ("BTCUSDT\nBTC€\n", ":2: 'BTC€' is not a symbol"),
        ("# nothing yet\n", ": names no symbol; put one symbol or pattern on each line"),
    ],
)
def test_wrong_line_is_an_error_with_its_number(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(PermanentError) as raised:
        read_symbols(file)
    assert str(raised.value).startswith(f"{file}{message}")


def test_bytes_that_are_not_text_are_an_error_with_their_line(file: Path) -> None:
    file.write_bytes(b"BTCUSDT\n\xff\xfe\x00\n")
    with pytest.raises(PermanentError, match=r":2: .* is not a symbol"):
        read_symbols(file)


def test_missing_file_is_an_error_with_its_path(file: Path) -> None:
    with pytest.raises(
        PermanentError, match=r"symbols\.txt: No such file or directory; a symbols file"
    ):
        read_symbols(file)


def test_file_too_large_to_be_a_list_is_not_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    file.write_text("BTCUSDT\n" * 3)
    with pytest.raises(PermanentError, match="over 20 bytes"):
        read_symbols(file)
