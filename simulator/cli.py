"""The command line of `python -m simulator` and `candelabra simulate`."""

import argparse
import asyncio
import json
import logging
import math
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import structlog
import uvloop

from simulator.config import SimulatorConfig
from simulator.faults.kinds import KINDS
from simulator.http.listeners import PortTakenError
from simulator.market.instruments import MARKETS
from simulator.replay.recorder import record
from simulator.server import Exchange

_LEVELS = ("debug", "info", "warning", "error")
_UNITS_US = {"ms": 1_000, "us": 1}


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time; use 2026-01-31 or 2026-01-31T12:00:00+00:00"
        ) from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _symbols(text: str) -> tuple[str, ...]:
    return tuple(name.strip().upper() for name in text.split(",") if name.strip())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _streams(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in text.replace(",", "/").split("/") if name))


def _unit_us(text: str) -> int:
    if text not in _UNITS_US:
        raise argparse.ArgumentTypeError(f"{text!r} is not a unit; use ms or us")
    return _UNITS_US[text]


def _speed(text: str) -> float | None:
    """Parse a multiple of the real or recorded pace; None for `max`."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = -1
    if not 0 <= speed < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a speed; use 0 or a positive number, or max in a replay"
        )
    return speed


class _Parser(argparse.ArgumentParser):
    """Parser that prints errors without the usage: forty options would hide the message."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, ()) else super()._get_help_string(action)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser. Each option is a field of `SimulatorConfig`."""
    defaults = SimulatorConfig()
    parser = _Parser(
        prog="simulator",
        description="A local Binance: WebSocket, REST and dump site over one deterministic market.",
        formatter_class=_HelpFormatter,
    )
    market = parser.add_argument_group("market")
    market.add_argument(
        "--seed", type=int, default=defaults.seed, help="determines the whole market"
    )
    market.add_argument(
        "--symbols",
        dest="spot_symbols",
        type=_symbols,
        metavar="A,B",
        default=defaults.spot_symbols,
        help="spot symbols",
    )
    market.add_argument(
        "--um-symbols",
        type=_symbols,
        metavar="A,B",
        default=defaults.um_symbols,
        help="USD-M symbols; BTCUSDT_QUARTER: the pair's dated contracts",
    )
    market.add_argument(
        "--cm-symbols",
        type=_symbols,
        metavar="A,B",
        default=defaults.cm_symbols,
        help="COIN-M symbols, e.g. BTCUSD_PERP, BTCUSD_QUARTER",
    )
    market.add_argument(
        "--generated-spot",
        type=int,
        default=0,
        metavar="N",
        help="add N spot symbols SIM0001USDT …",
    )
    market.add_argument(
        "--generated-um", type=int, default=0, metavar="N", help="add N USD-M symbols"
    )
    market.add_argument(
        "--start",
        type=_moment,
        metavar="TIME",
        help="first minute of history, UTC (default: three days ago)",
    )
    clock = parser.add_argument_group("clock")
    clock.add_argument(
        "--clock-start",
        type=_moment,
        metavar="TIME",
        help="simulated time at start-up, UTC (default: now)",
    )
    clock.add_argument(
        "--speed",
        type=_speed,
        default="1",
        metavar="N|max",
        help="simulated seconds per real second; in a replay a multiple of the recorded "
        "pace, or max: as fast as the client reads",
    )
    network = parser.add_argument_group("network")
    network.add_argument("--host", default=defaults.host)
    for name in ("http", "spot-ws", "um-ws", "cm-ws"):
        network.add_argument(
            f"--{name}-port", type=int, default=0, metavar="PORT", help="0 lets the system choose"
        )
    network.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="serve https and wss with this certificate"
    )
    network.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    network.add_argument(
        "--tls",
        type=Path,
        metavar="FOLDER",
        help="serve https and wss with a new certificate for the exchange's host names; "
        "clients trust FOLDER/simulator-ca.pem",
    )
    limits = parser.add_argument_group("limits and delays")
    for option, text in (
        ("spot_weight_limit", "request weight per clock minute on spot"),
        ("um_weight_limit", "request weight per clock minute on USD-M"),
        ("cm_weight_limit", "request weight per clock minute on COIN-M"),
        ("rest_kline_lag_ms", "REST klines omit trades younger than N ms"),
        ("rest_trade_lag_ms", "REST aggTrades omit trades younger than N ms"),
        ("daily_dump_delay_s", "seconds from midnight to publication of daily dumps"),
        ("monthly_dump_delay_s", "seconds from the end of a month to publication of its dumps"),
        ("connects_in_5_minutes", "WebSocket connects per address in 5 minutes"),
        ("connection_life_s", "WebSocket connections are closed after N simulated seconds"),
    ):
        default = getattr(defaults, option)
        limits.add_argument(
            f"--{option.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N",
            help=text,
        )
    replay = parser.add_argument_group("replay")
    replay.add_argument(
        "--replay",
        dest="replay_files",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="serve recorded frames instead of the simulated market",
    )
    replay.add_argument(
        "--market",
        dest="replay_market",
        choices=MARKETS,
        default="spot",
        help="market of the recording",
    )
    replay.add_argument(
        "--replay-start",
        choices=("subscription", "immediately"),
        default=defaults.replay_start,
        help="when the replay starts",
    )
    replay.add_argument(
        "--replay-settle-s",
        type=float,
        default=defaults.replay_settle_s,
        metavar="N",
        help="start once no subscription was added for N seconds",
    )
    replay.add_argument(
        "--replay-memory-mib",
        dest="replay_memory_bytes",
        type=lambda text: int(text) << 20,
        default=str(defaults.replay_memory_bytes >> 20),
        metavar="N",
        help="memory for encoded frames with --speed max",
    )
    _add_recording(parser)
    _add_faults(parser, defaults)
    parser.add_argument(
        "--log-level",
        choices=_LEVELS,
        help="level of the logs on stderr (default: warning; info in a replay)",
    )
    return parser  # fmt: skip


def _add_recording(parser: argparse.ArgumentParser) -> None:
    record = parser.add_argument_group("recording")
    record.add_argument(
        "--record",
        dest="record_file",
        type=Path,
        metavar="FILE",
        help="write frames of the simulated --market to FILE (.gz: gzipped), then exit",
    )
    record.add_argument(
        "--record-streams", type=_streams, metavar="A/B", default=(), help="e.g. btcusdt@aggTrade"
    )
    for name in ("from", "until"):
        record.add_argument(f"--record-{name}", type=_moment, metavar="TIME", help="UTC")
    record.add_argument(
        "--record-unit",
        dest="record_unit_us",
        type=_unit_us,
        default="ms",
        metavar="ms|us",
        help="unit of times in the frames (us: spot only)",
    )


def _add_faults(parser: argparse.ArgumentParser, defaults: SimulatorConfig) -> None:
    faults = parser.add_argument_group("faults", "see docs/testing-your-bot.md")
    faults.add_argument(
        "--faults",
        dest="fault_file",
        type=Path,
        metavar="FILE",
        help="fault plan (JSON)",
    )
    faults.add_argument(
        "--fault-seed", type=int, metavar="N", help="draw a random plan from this seed"
    )
    for option, text in (
        ("fault_rate_per_h", "random faults per simulated hour"),
        ("fault_span_h", "simulated hours that the random plan covers"),
    ):
        faults.add_argument(
            f"--{option.replace('_', '-')}",
            type=float,
            default=getattr(defaults, option),
            metavar="N",
            help=text,
        )
    faults.add_argument(
        "--fault-kinds",
        type=_names,
        metavar="A,B",
        default=(),
        help=f"kinds or groups to draw from; kinds: {', '.join(KINDS)}; groups: connection, "
        "frame, market, rest, dump (default: all that keep the listed symbols)",
    )
    faults.add_argument(
        "--fault-export",
        type=Path,
        metavar="FILE",
        help="write the plan to FILE, for --faults",
    )


def parse_config(arguments: Sequence[str]) -> tuple[SimulatorConfig, str]:
    """Return configuration and log level of a command line. Exits with a message on errors."""
    parser = build_parser()
    values = vars(parser.parse_args(arguments))
    log_level = values.pop("log_level") or ("info" if values["replay_files"] else "warning")
    speed = values.pop("speed")
    values["replay_files"] = tuple(values["replay_files"])
    try:
        if values["replay_files"]:
            values["replay_speed"] = speed
        elif speed is None:
            parser.error("--speed max needs --replay; the simulated market needs a number")
        else:
            values["speed"] = speed
        if values["fault_seed"] is None:
            _refuse_idle_options(parser, arguments)
        return SimulatorConfig(**values), log_level
    except ValueError as error:
        parser.error(_in_options(parser, str(error)))


def _refuse_idle_options(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    for option in ("--fault-rate-per-h", "--fault-span-h"):
        if any(text.partition("=")[0] == option for text in arguments):
            parser.error(f"{option} applies to random faults; add --fault-seed to draw some")


def _in_options(parser: argparse.ArgumentParser, message: str) -> str:
    """Replace setting names in a message by option names."""
    names = {action.dest: action.option_strings[-1] for action in parser._actions if action.dest}
    return re.sub(r"\b[a-z]+(?:_[a-z0-9]+)+\b", lambda word: names.get(word[0], word[0]), message)


def configure_logs(level: str) -> None:
    """Write JSON lines to stderr; stdout carries only the ready line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def serve(config: SimulatorConfig) -> None:
    """Serve until SIGTERM or SIGINT; print the ready line once the ports are open."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Exchange(config) as exchange:
        ready = {"event": "simulator_ready", **exchange.urls.shown()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        waits = {
            loop.create_task(stopped.wait()),
            loop.create_task(exchange.wait()),
        }
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        for task in done:
            task.result()


def run(config: SimulatorConfig) -> int:
    """Run the simulator until it is stopped, or write the requested recording.

    Returns 2 if a port or file is not usable.
    """
    try:
        if config.record_file is not None:
            return _record(config)
        uvloop.run(serve(config))
    except (PortTakenError, ValueError) as error:
        sys.stderr.write(f"simulator: {error}\n")
        return 2
    except (FileNotFoundError, PermissionError) as error:
        sys.stderr.write(f"simulator: cannot use {error.filename}: {error.strerror}\n")
        return 2
    return 0


def _record(config: SimulatorConfig) -> int:
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: signals.append(received))
    try:
        recorded = record(config, is_stopped=lambda: bool(signals))
    except InterruptedError:
        sys.stderr.write(f"simulator: interrupted; {config.record_file} was not written\n")
        return 130
    sys.stdout.write(json.dumps({"event": "recorded", **asdict(recorded)}) + "\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m simulator`."""
    config, log_level = parse_config(sys.argv[1:] if arguments is None else arguments)
    configure_logs(log_level)
    return run(config)
