"""Settings, and the command line that sets them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from simulator.cli import parse_config
from simulator.config import SimulatorConfig
from simulator.server import Exchange


@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", -1), ("http_port", 70_000), ("spot_weight_limit", 0), ("rest_kline_lag_ms", -1),
     ("replay_speed", 0), ("connection_life_s", 0), ("generated_spot", -2)],
)  # fmt: skip
def test_impossible_values_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        SimulatorConfig(**{name: value})


def test_command_line_becomes_a_configuration() -> None:
    config, level = parse_config(
        ["--seed", "9", "--symbols", "btcusdt, ETHBTC", "--um-symbols", "BTCUSDT",
         "--start", "2020-01-01", "--clock-start", "2020-02-01T12:00:00+01:00", "--speed", "60",
         "--daily-dump-delay-s", "3600", "--log-level", "debug"]
    )  # fmt: skip
    assert (config.seed, config.spot_symbols, config.speed) == (9, ("BTCUSDT", "ETHBTC"), 60)
    assert config.start == datetime(2020, 1, 1, tzinfo=UTC)
    assert config.clock_start == datetime(2020, 2, 1, 11, tzinfo=UTC)
    assert (config.daily_dump_delay_s, level) == (3_600, "debug")


def test_speed_of_a_replay_is_that_of_the_recording() -> None:
    config, _ = parse_config(["--replay", "a.gz", "b.gz", "--market", "um", "--speed", "max"])
    assert config.replay_files == (Path("a.gz"), Path("b.gz"))
    assert (config.replay_market, config.replay_speed, config.speed) == ("um", None, 1)
    assert parse_config(["--replay", "a.gz", "--speed", "2.5"])[0].replay_speed == 2.5
    assert parse_config(["--replay", "a.gz"])[0].replay_speed == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--speed", "max"], "--speed max needs --replay"),
     (["--speed", "-1"], "--speed: '-1' is not a speed"),
     (["--start", "soon"], "--start: 'soon' is not a time"),
     (["--http-port", "99999"], "--http-port is 99999"),
     (["--replay", "a.gz", "--speed", "0"], "must be positive"),
     (["--market", "xm"], "--market"),
     (["--fault-kinds", "cut"], "set --fault-seed"),
     (["--fault-rate-per-h=60"], "--fault-rate-per-h applies to random faults")],
)  # fmt: skip
def test_wrong_option_is_reported_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_config(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_history_that_starts_in_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="start"):
        Exchange(SimulatorConfig(start=datetime(2100, 1, 1, tzinfo=UTC)))


def test_replay_logs_at_info_by_default() -> None:
    assert parse_config([])[1] == "warning"
    assert parse_config(["--replay", "a.gz"])[1] == "info"
    assert parse_config(["--replay", "a.gz", "--log-level", "error"])[1] == "error"
    assert parse_config(["--replay-memory-mib", "3"])[0].replay_memory_bytes == 3 << 20


RECORDING = ("--record", "a.gz", "--record-streams", "btcusdt@aggTrade,ethusdt@trade",
             "--record-from", "2026-01-05", "--record-until", "2026-01-06T12:00")  # fmt: skip


def test_recording_has_a_file_streams_and_times() -> None:
    config, _ = parse_config([*RECORDING, "--record-unit", "us"])
    assert (config.record_file, config.record_unit_us) == (Path("a.gz"), 1)
    assert config.record_streams == ("btcusdt@aggTrade", "ethusdt@trade")
    assert config.record_until == datetime(2026, 1, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(RECORDING[:6], "--record-until"), (RECORDING[2:], "--record,"),
     ((*RECORDING, "--record-unit", "s"), "'s' is not a unit; use ms or us"),
     ((*RECORDING, "--market", "um", "--record-unit", "us"), "1000"),
     ((*RECORDING, "--fault-seed", "1"), "a recording has no faults")],
)  # fmt: skip
def test_impossible_recording_options_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_config(arguments)
    assert message in capsys.readouterr().err
