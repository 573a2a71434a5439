"""The simulator's settings: one dataclass for the command line, tests and embedding."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from simulator.market.instruments import (
    CM_QUARTERS,
    DEFAULT_CM,
    DEFAULT_SPOT,
    DEFAULT_UM,
    UM_QUARTERS,
    MarketName,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """All settings. The defaults are the exchange's own figures.

    Attributes:
        seed: determines the whole market.
        spot_symbols, um_symbols, cm_symbols: listed symbols. On spot and USD-M any name that ends
            with a quote asset, on COIN-M with `USD_PERP`. A date makes a dated contract, e.g.
            `BTCUSD_260327`; `BTCUSD_QUARTER` stands for all dated contracts of the pair.
        generated_spot, generated_um: number of further symbols SIM0001USDT, SIM0002USDT and so on.
        start: first minute of history, UTC; if None, 00:00 three days before the clock's start.
        clock_start: simulated time at start-up, UTC; the wall clock if None.
        speed: simulated seconds per real second; 0 stops the clock.
        max_late_s: the clock waits while frames are later than this (real seconds), because the
            machine is busy; if None, it never waits.
        http_port, spot_ws_port, um_ws_port, cm_ws_port: 0 lets the system choose.
        tls_cert, tls_key: serve TLS with these PEM files, on all ports.
        tls: serve TLS with a new certificate, whose authority is written to this folder.
        spot_weight_limit, um_weight_limit, cm_weight_limit: request weight per clock minute and
            client address.
        rest_kline_lag_ms: REST klines omit trades younger than this.
        rest_trade_lag_ms: REST aggTrades omit trades younger than this.
        daily_dump_delay_s, monthly_dump_delay_s: from the end of the period to publication.
        inbound_messages_per_s: 5 on spot and 10 on the futures if None.
        connects_in_5_minutes: WebSocket connects allowed per address in five simulated minutes;
            further ones get 429.
        connection_life_s: connections are closed after this simulated time.
        trades_at_bounds: each minute has trades in its first and in its last instant.
        write_buffer_bytes: a client with more unread bytes is disconnected.
        replay_files: recordings to serve instead of the simulated market.
        replay_speed: multiple of the recorded pace; None: as fast as the client reads.
        replay_start: start with the first subscription, or immediately.
        replay_settle_s: after the first subscription, start once none was added for this long.
        replay_memory_bytes: encoded frames held in memory for a replay at full speed; the rest is
            read from the file while it plays.
        fault_file: a fault plan (JSON); offsets count from the clock's start.
        fault_seed: add a random plan drawn from this seed.
        fault_rate_per_h, fault_span_h: random faults per simulated hour, and the hours they cover.
        fault_kinds: kinds or groups to draw from; if empty, all that keep the listed symbols.
        fault_export: write the complete plan to this file at start-up.
        record_file: write a recording of the simulated market (`replay_market`) here, then exit.
        record_streams, record_from, record_until: streams and period to record; the end is
            exclusive.
        record_unit_us: unit of times in the frames: 1000, or 1 on spot.
    """

    seed: int = 1
    spot_symbols: tuple[str, ...] = DEFAULT_SPOT
    um_symbols: tuple[str, ...] = (*DEFAULT_UM, *UM_QUARTERS)
    cm_symbols: tuple[str, ...] = (*DEFAULT_CM, *CM_QUARTERS)
    generated_spot: int = 0
    generated_um: int = 0
    start: datetime | None = None
    clock_start: datetime | None = None
    speed: float = 1.0
    max_late_s: float | None = None
    host: str = "127.0.0.1"
    http_port: int = 0
    spot_ws_port: int = 0
    um_ws_port: int = 0
    cm_ws_port: int = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls: Path | None = None
    spot_weight_limit: int = 6_000
    um_weight_limit: int = 2_400
    cm_weight_limit: int = 2_400
    rest_kline_lag_ms: int = 800
    rest_trade_lag_ms: int = 250
    daily_dump_delay_s: float = 0
    monthly_dump_delay_s: float = 0
    inbound_messages_per_s: int | None = None
    max_streams: int = 1_024
    connects_in_5_minutes: int = 300
    connection_life_s: float = 86_400
    trades_at_bounds: bool = False
    write_buffer_bytes: int = 64 << 20
    replay_files: tuple[Path, ...] = ()
    replay_market: MarketName = "spot"
    replay_speed: float | None = 1.0
    replay_start: Literal["subscription", "immediately"] = "subscription"
    replay_settle_s: float = 0.2
    replay_memory_bytes: int = 512 << 20
    fault_file: Path | None = None
    fault_seed: int | None = None
    fault_rate_per_h: float = 12
    fault_span_h: float = 24
    fault_kinds: tuple[str, ...] = ()
    fault_export: Path | None = None
    record_file: Path | None = None
    record_streams: tuple[str, ...] = ()
    record_from: datetime | None = None
    record_until: datetime | None = None
    record_unit_us: int = 1_000

    def symbols(self, market: MarketName) -> tuple[str, ...]:
        """Return the listed symbols of a market, without the generated ones."""
        listed: dict[MarketName, tuple[str, ...]] = {
            "spot": self.spot_symbols,
            "um": self.um_symbols,
            "cm": self.cm_symbols,
        }
        return listed[market]

    def generated(self, market: MarketName) -> int:
        """Return the number of generated symbols of a market."""
        numbers: dict[MarketName, int] = {"spot": self.generated_spot, "um": self.generated_um}
        return numbers.get(market, 0)

    def __post_init__(self) -> None:
        at_least_one = {
            "spot_weight_limit": self.spot_weight_limit,
            "um_weight_limit": self.um_weight_limit,
            "cm_weight_limit": self.cm_weight_limit,
            "max_streams": self.max_streams,
            "connects_in_5_minutes": self.connects_in_5_minutes,
            "write_buffer_bytes": self.write_buffer_bytes,
            "connection_life_s": self.connection_life_s,
        }
        not_negative = {
            "speed": self.speed,
            "generated_spot": self.generated_spot,
            "generated_um": self.generated_um,
            "rest_kline_lag_ms": self.rest_kline_lag_ms,
            "rest_trade_lag_ms": self.rest_trade_lag_ms,
            "daily_dump_delay_s": self.daily_dump_delay_s,
            "monthly_dump_delay_s": self.monthly_dump_delay_s,
            "replay_settle_s": self.replay_settle_s,
            "replay_memory_bytes": self.replay_memory_bytes,
            "fault_rate_per_h": self.fault_rate_per_h,
            "fault_span_h": self.fault_span_h,
        }
        for name, value in at_least_one.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        for name, value in not_negative.items():
            if value < 0:
                raise ValueError(f"{name} is {value}; it must not be negative")
        for name, port in (
            ("http_port", self.http_port),
            ("spot_ws_port", self.spot_ws_port),
            ("um_ws_port", self.um_ws_port),
            ("cm_ws_port", self.cm_ws_port),
        ):
            if not 0 <= port <= 65_535:
                raise ValueError(f"{name} is {port}; it must be 0 (system chooses) to 65535")
        if self.replay_speed is not None and self.replay_speed <= 0:
            raise ValueError(f"replay_speed is {self.replay_speed}; it must be positive")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together; one of them is missing")
        if self.tls is not None and self.tls_cert is not None:
            raise ValueError("tls excludes tls_cert: choose a generated certificate or your own")
        self._check_faults()
        self._check_recording()

    def _check_faults(self) -> None:
        if self.fault_seed is None and self.fault_kinds:
            raise ValueError(
                f"fault_kinds is {', '.join(self.fault_kinds)}, but without fault_seed no fault is "
                "drawn; set fault_seed as well"
            )

    def _check_recording(self) -> None:
        wanted = (self.record_streams, self.record_from, self.record_until)
        if any(wanted) != (self.record_file is not None) or any(wanted) != all(wanted):
            raise ValueError(
                "a recording needs all of record_file, record_streams, record_from, record_until"
            )
        if self.record_file is not None and (self.fault_file or self.fault_seed is not None):
            raise ValueError(
                "record_file excludes fault_file and fault_seed: a recording has no faults; add "
                "faults when you replay it"
            )
        if self.record_unit_us not in ((1, 1_000) if self.replay_market == "spot" else (1_000,)):
            raise ValueError(
                f"record_unit_us is {self.record_unit_us} µs; it must be 1000 (ms), or 1 on spot: "
                "times of the futures are always in ms"
            )
