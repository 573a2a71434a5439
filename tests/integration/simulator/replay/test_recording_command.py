"""`python -m simulator --record` and `--replay` on the command line."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.integration.simulator.command_line import exit_code

ROOT = Path(__file__).parents[4]
SPAN = ("--record-from", "2026-01-05", "--record-until", "2026-01-05T00:20")


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "simulator", *options]


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*options), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_recording_is_replayed_frame_by_frame(tmp_path: Path) -> None:
    path = tmp_path / "day.gz"
    streams = "btcusdt@aggTrade/ethusdt@kline_1m"
    done = _run("--record", str(path), "--record-streams", streams, *SPAN)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    frames = [
        line.split(" ", 1)[1] for line in gzip.decompress(path.read_bytes()).decode().splitlines()
    ]
    assert (printed["event"], printed["frames"], printed["file"]) == (
        "recorded",
        len(frames),
        str(path),
    )
    process = subprocess.Popen(
        _command("--replay", str(path), "--speed", "max"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["spot_ws_url"]
        with connect(f"{url}/stream?streams={streams}/ethusdt@trade", close_timeout=0.1) as ws:
            assert [ws.recv(timeout=10) for _ in frames] == frames
        process.send_signal(signal.SIGTERM)
        _, logs = process.communicate(timeout=30)
    finally:
        process.kill()
    events = {entry["event"]: entry for entry in map(json.loads, logs.splitlines())}
    assert process.returncode == 0
    assert events["replay_finished"]["sent"] == len(frames)
    assert events["replay_stream_missing"]["stream"] == "ethusdt@trade"


@pytest.mark.parametrize(
    ("stream", "file", "message"),
    [
        ("nobody@trade", "day.gz", "no stream 'nobody@trade'"),
        ("btcusdt@trade", "missing/day.gz", "cannot write the recording"),
        ("btcusdt@trade", ".", "cannot write the recording"),
    ],
)
def test_impossible_recording_is_reported_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stream: str, file: str, message: str
) -> None:
    assert exit_code("--record", str(tmp_path / file), "--record-streams", stream, *SPAN) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_recording_leaves_no_file(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "year.gz"
    process = subprocess.Popen(
        _command("--record", str(path), "--record-streams", "btcusdt@trade",
                 "--record-from", "2026-01-01", "--record-until", "2027-01-01"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not any(one.stat().st_size for one in tmp_path.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (130, "")
    assert f"{path} was not written" in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_truncated_recording_is_reported_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "frames.gz"
    lines = "".join(
        f'{10**18 + number} {{"stream":"a@bookTicker","data":{{"E":{number}}}}}\n'
        for number in range(9_999)
    )
    path.write_bytes(gzip.compress(lines.encode())[:-500])
    assert exit_code("--replay", str(path)) == 2
    assert "frames.gz is truncated: its gzip stream ends after line" in capsys.readouterr().err
