"""The running simulator: sockets, servers and background tasks, as context managers."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Protocol

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from simulator.clock import DAY_US, SimulatedClock, from_us, to_us
from simulator.config import SimulatorConfig
from simulator.control.api import ControlApi
from simulator.control.faults import fault_routes
from simulator.dumps.faults import DumpFaults
from simulator.dumps.routes import dump_routes
from simulator.dumps.site import SimulatedDumpSite, delay_us
from simulator.faults.frames import FrameFaults
from simulator.faults.market import Reschedule
from simulator.faults.startup import start_engine
from simulator.http.certificates import CertificateFiles, generate_certificates, tls_context
from simulator.http.listeners import HttpConnection, HttpServer, listen
from simulator.market.instruments import MARKETS, MarketName, select_instruments
from simulator.market.market import SimulatedMarket
from simulator.replay.player import Replay, ReplayClock
from simulator.replay.recording import scan_recording
from simulator.replay.venue import RecordedVenue
from simulator.rest.api import RestApi
from simulator.rest.faults import RestFaults
from simulator.rest.futures_data import futures_data_routes
from simulator.rest.limits import WeightLimiter
from simulator.rest.venue import MarketVenue, Venue
from simulator.streams.connections import StreamServer
from simulator.streams.hub import FrameHub
from simulator.streams.scheduler import FrameScheduler
from simulator.wire.payloads import US_PER_MS

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 2.0
_DEFAULT_HISTORY_US = 3 * DAY_US
_FUTURE_CONTRACTS_US = 2 * 366 * DAY_US  # dated contracts are prepared for this long


@dataclass(frozen=True, slots=True)
class ExchangeUrls:
    """Addresses of all services. The HTTP URLs are one server.

    Attributes:
        tls_ca_file: with a generated certificate, the file that clients have to trust.
    """

    spot_ws_url: str
    um_ws_url: str
    cm_ws_url: str
    spot_rest_url: str
    um_rest_url: str
    cm_rest_url: str
    dump_url: str
    control_url: str
    tls_ca_file: str | None = None

    def shown(self) -> dict[str, str]:
        """Return what is set, by name."""
        return {name: text for name, text in asdict(self).items() if text is not None}


class FrameSender(Protocol):
    """Sends the frames of a market: a scheduler of the simulated market, or a replay."""

    hub: FrameHub

    async def run(self) -> None:
        """Run until cancelled."""


class Exchange:
    """A local exchange in the running event loop.

    `async with Exchange(config) as exchange:` provides the URLs as `exchange.spot_ws_url`,
    `exchange.spot_rest_url`, the same for `um` and `cm`, `exchange.dump_url` and
    `exchange.control_url`.

    Attributes:
        clock: the exchange's clock.
        replay: the replay, if there is one.
        markets: the simulated markets by name (`spot`, `um`, `cm`); empty in a replay.
        stream_servers: WebSocket servers by market.
        frame_faults: faults of WebSocket frames.
        rest_faults, dump_faults: fault rules of REST and of the dump site.
        site: the dump site; set after start, never in a replay.
        faults: scheduled faults: `faults.add({"kind": "cut", "at": "+5s"})`.
    """

    spot_ws_url: str
    um_ws_url: str
    cm_ws_url: str
    spot_rest_url: str
    um_rest_url: str
    cm_rest_url: str
    dump_url: str
    control_url: str
    site: SimulatedDumpSite

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        start = self.config.clock_start
        self.clock: SimulatedClock = SimulatedClock(
            start_us=None if start is None else to_us(start), speed=self.config.speed
        )
        self.rest_faults = RestFaults()
        self.dump_faults = DumpFaults()
        self.replay: Replay | None = None
        self.markets: dict[MarketName, SimulatedMarket] = {}
        self.stream_servers: dict[MarketName, StreamServer] = {}
        self._venues: dict[MarketName, Venue] = {}
        self._senders: list[FrameSender] = []
        self._sending: list[asyncio.Task[None]] = []
        self._serving: asyncio.Task[None] | None = None
        self._listeners: list[socket.socket] = []
        self._ws_servers: list[asyncio.Server] = []
        self._http: HttpServer | None = None
        self._certificate: CertificateFiles | None = None
        self._log = structlog.get_logger("simulator")
        self.frame_faults = FrameFaults(self.clock, seed=self.config.seed)
        self._reschedule: dict[MarketName, Reschedule] = {}
        if self.config.replay_files:
            self._prepare_replay()
        else:
            self._prepare_markets()
        self.faults = start_engine(
            self.clock,
            self.config,
            stream_servers=self.stream_servers,
            markets=self.markets,
            reschedule=self._reschedule,
            frames=self.frame_faults,
            rest_faults=self.rest_faults,
            dump_faults=self.dump_faults,
        )

    def _prepare_markets(self) -> None:
        config = self.config
        if config.start is not None:
            start_us = to_us(config.start)
        else:
            start_us = (self.clock.now_us() - _DEFAULT_HISTORY_US) // DAY_US * DAY_US
        if start_us >= self.clock.now_us():
            raise ValueError(
                f"start is {from_us(start_us).isoformat()}; it must be before the clock's time, "
                f"which is {from_us(self.clock.now_us()).isoformat(timespec='seconds')}"
            )
        for name in MARKETS:
            instruments = select_instruments(
                name,
                config.symbols(name),
                generated=config.generated(name),
                seed=config.seed,
                period_us=(start_us, self.clock.now_us() + _FUTURE_CONTRACTS_US),
            )
            listed = tuple(
                replace(one, trades_at_bounds=config.trades_at_bounds) for one in instruments
            )
            market = SimulatedMarket(listed, seed=config.seed, start_us=start_us)
            self.markets[name] = market
            self._venues[name] = MarketVenue(
                name,
                market,
                self.clock,
                kline_lag_us=config.rest_kline_lag_ms * US_PER_MS,
                trade_lag_us=config.rest_trade_lag_ms * US_PER_MS,
                faults=self.rest_faults,
            )
            scheduler = FrameScheduler(
                name,
                market,
                self.clock,
                seed=config.seed,
                faults=self.frame_faults,
                max_late_s=config.max_late_s,
            )
            self._senders.append(scheduler)
            self._reschedule[name] = scheduler.reschedule
            self.stream_servers[name] = StreamServer(name, scheduler.hub, self.clock, config)

    def _prepare_replay(self) -> None:
        """Set up the recorded market; the other markets have no symbols."""
        config = self.config
        recording = scan_recording(
            config.replay_files,
            config.replay_market,
            memory_bytes=config.replay_memory_bytes if config.replay_speed is None else 0,
        )
        clock = ReplayClock(recording.first_event_us, speed=config.replay_speed or 1.0)
        self.clock = clock
        self.replay = Replay(
            recording,
            clock,
            speed=config.replay_speed,
            start=config.replay_start,
            settle_s=config.replay_settle_s,
        )
        self._senders.append(self.replay)
        self._venues[config.replay_market] = RecordedVenue(recording, clock)
        self.stream_servers[config.replay_market] = StreamServer(
            config.replay_market, self.replay.hub, clock, config
        )
        empty = SimulatedMarket((), seed=config.seed, start_us=recording.first_event_us)
        for other in MARKETS:
            if other == config.replay_market:
                continue
            idle = FrameScheduler(other, empty, clock, seed=config.seed)
            self._senders.append(idle)
            self._venues[other] = MarketVenue(other, empty, clock, kline_lag_us=0, trade_lag_us=0)
            self.stream_servers[other] = StreamServer(other, idle.hub, clock, config)

    # --- life

    async def __aenter__(self) -> "Exchange":
        async with AsyncExitStack() as on_failure:
            on_failure.push_async_callback(self.stop)
            await self.start()
            on_failure.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def urls(self) -> ExchangeUrls:
        """All URLs; available after start."""
        return ExchangeUrls(
            self.spot_ws_url,
            self.um_ws_url,
            self.cm_ws_url,
            self.spot_rest_url,
            self.um_rest_url,
            self.cm_rest_url,
            self.dump_url,
            self.control_url,
            self.tls_ca_file,
        )

    @property
    def tls_ca_file(self) -> str | None:
        """The authority of a generated certificate; available after start."""
        authority = self._certificate.authority if self._certificate is not None else None
        return None if authority is None else str(authority)

    async def start(self) -> None:
        """Bind the ports and start serving.

        Raises:
            PortTakenError: a port is in use.
            CertificateError: TLS is wanted and its files are not usable.
        """
        config = self.config
        loop = asyncio.get_running_loop()
        if config.tls is not None:
            self._certificate = generate_certificates(config.tls, config.host)
        elif config.tls_cert is not None and config.tls_key is not None:
            self._certificate = CertificateFiles(config.tls_cert, config.tls_key)
        secure = None if self._certificate is None else tls_context(self._certificate)
        suffix = "" if secure is None else "s"
        ports: dict[MarketName, int] = {
            "spot": config.spot_ws_port,
            "um": config.um_ws_port,
            "cm": config.cm_ws_port,
        }
        urls: dict[MarketName, str] = {}
        for name, port in ports.items():
            listener = self._bind(port)
            urls[name] = f"ws{suffix}://{config.host}:{listener.getsockname()[1]}"
            if name in self.stream_servers:
                accept = self.stream_servers[name].accept
                server = await loop.create_server(accept, sock=listener, ssl=secure)
                self._ws_servers.append(server)
        self.spot_ws_url, self.um_ws_url, self.cm_ws_url = urls["spot"], urls["um"], urls["cm"]
        await self._start_http(self._bind(config.http_port))
        self.faults.attach()
        self._sending += [loop.create_task(sender.run()) for sender in self._senders]
        self._sending.append(loop.create_task(self.faults.run()))
        for task in self._sending:
            task.add_done_callback(self._note_failure)
        self._log.info("simulator_started", **self.urls.shown())

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        """Log a sender that ended without being cancelled."""
        if not task.cancelled():
            self._log.error("sender_failed", exc_info=task.exception())

    def _bind(self, port: int) -> socket.socket:
        listener = listen(self.config.host, port)
        self._listeners.append(listener)
        return listener

    async def _start_http(self, listener: socket.socket) -> None:
        files = self._certificate
        url = f"http{'s' if files else ''}://{self.config.host}:{listener.getsockname()[1]}"
        self.spot_rest_url = self.um_rest_url = self.cm_rest_url = url
        self.dump_url = self.control_url = url
        app = Starlette(routes=self._routes())
        self._http = HttpServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws="none",
                http=HttpConnection,
                timeout_graceful_shutdown=1,
                ssl_certfile=files.certificate if files else None,
                ssl_keyfile=files.key if files else None,
            )
        )
        serving = asyncio.get_running_loop().create_task(self._http.serve(sockets=[listener]))
        self._serving = serving
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not self._http.started:
                if serving.done():
                    await serving
                    raise RuntimeError("the HTTP server ended while it started")
                await asyncio.sleep(0.005)

    def _routes(self) -> list[Route]:
        config = self.config
        limits: dict[MarketName, int] = {
            "spot": config.spot_weight_limit,
            "um": config.um_weight_limit,
            "cm": config.cm_weight_limit,
        }
        routes: list[Route] = []
        apis = {
            name: RestApi(
                venue,
                WeightLimiter(limits[name], self.clock),
                self.clock,
                faults=self.rest_faults,
            )
            for name, venue in self._venues.items()
        }
        for api in apis.values():
            routes += api.routes()
        routes += futures_data_routes(apis)
        if self.markets:
            self.site = SimulatedDumpSite(
                self.markets,
                self.clock,
                daily_delay_us=delay_us(config.daily_dump_delay_s),
                monthly_delay_us=delay_us(config.monthly_dump_delay_s),
                faults=self.dump_faults,
            )
            routes += dump_routes(self.site)
        routes += fault_routes(self.faults)
        return routes + ControlApi(self._venues, self.stream_servers, self.replay).routes()

    async def wait(self) -> None:
        """Return only when a part of the simulator fails, with its exception."""
        parts = [*self._sending, *([self._serving] if self._serving is not None else [])]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Close everything within two seconds."""
        for stream_server in self.stream_servers.values():
            for connection in list(stream_server.connections):
                connection.close(1001, "simulator ends")
        for server in self._ws_servers:
            server.close()
        if self._http is not None:
            self._http.should_exit = True
            self._http.force_exit = True
        for task in self._sending:
            task.cancel()
        running = [*self._sending, *([self._serving] if self._serving is not None else [])]
        if running:
            _, late = await asyncio.wait(running, timeout=_STOP_TIMEOUT_S)
            for task in late:
                task.cancel()
        for stream_server in self.stream_servers.values():
            stream_server.cut()
        for listener in self._listeners:
            listener.close()
        self._sending.clear()
        self._serving = None


class ExchangeThread:
    """An `Exchange` in its own thread, for synchronous callers.

    `with ExchangeThread(config) as exchange:` provides the same URLs and attributes.
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.exchange = Exchange(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="simulator", daemon=True
        )

    def __enter__(self) -> "ExchangeThread":
        self._thread.start()
        with ExitStack() as on_failure:
            on_failure.callback(self._end)
            self.run(self.exchange.start())
            on_failure.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self.run(self.exchange.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the simulator's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_TIMEOUT_S)

    def call(self, function: Any, *args: Any) -> Any:
        """Call a function in the simulator's loop, e.g. `call(server.cut)`."""

        async def called() -> Any:
            return function(*args)

        return self.run(called())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.exchange, name)
