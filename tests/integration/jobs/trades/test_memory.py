"""Files of trades are aggregated in the memory of a block, however long they are."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SHORT, LONG = 40_000, 800_000
BLOCK_BYTES = 1 << 20
SLACK_MB = 24
"""Of allocators; the longer file is 60 MB of text, and several times that as a table."""

READ = """
import json, sys
from pathlib import Path
from include.binance.files.trade_files import SPOT_AGG_TRADES, TradeReader

trades = 0
reader = TradeReader("BTCUSDT", SPOT_AGG_TRADES)
for block in reader.read_file(Path(sys.argv[1]), block_bytes=int(sys.argv[2])):
    trades += block.trades
status = Path("/proc/self/status").read_text()
peak_kb = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps([trades, peak_kb / 1024]))
"""


def write_zip(path: Path, rows: int) -> int:
    """aggTrades of ten a second; returns bytes of text."""
    lines = (
        f"{number},{60_000 + number % 977}.12000000,0.{number % 89 + 1:05}000,{number},{number},"
        f"{1_730_419_200_000 + number * 100},{number % 2 == 0},True\n"
        for number in range(rows)
    )
    text = "".join(lines)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(path.with_suffix(".csv").name, text)
    return len(text)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read in /proc")
def test_peak_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks_mb = {}
    for rows in (SHORT, LONG):
        path = tmp_path / f"BTCUSDT-aggTrades-{rows}.zip"
        size = write_zip(path, rows)
        done = subprocess.run(
            [sys.executable, "-c", READ, str(path), str(BLOCK_BYTES)],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        trades, peaks_mb[rows] = json.loads(done.stdout)
        assert trades == rows
    assert size / 1e6 > 2 * SLACK_MB
    assert peaks_mb[LONG] - peaks_mb[SHORT] < SLACK_MB, peaks_mb
