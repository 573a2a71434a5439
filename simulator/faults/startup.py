"""The plan that an exchange starts with: from a file, random, or both."""

from collections.abc import Mapping, Sequence

from simulator.clock import SECOND_US, SimulatedClock
from simulator.config import SimulatorConfig
from simulator.dumps.faults import DumpFaults
from simulator.faults.chance import chosen_kinds, draw_plan
from simulator.faults.connections import ConnectionFaults
from simulator.faults.engine import FaultActor, FaultEngine
from simulator.faults.frames import FrameFaults
from simulator.faults.kinds import FaultGroup
from simulator.faults.market import MarketFaults, Reschedule
from simulator.faults.plan import Fault, PlanError, load_plan, write_plan
from simulator.faults.rules import RuleFaults, dump_rules, rest_rules
from simulator.faults.series import SeriesFaults
from simulator.market.instruments import MarketName
from simulator.market.market import SimulatedMarket
from simulator.rest.faults import RestFaults
from simulator.streams.connections import StreamServer


def planned_faults(
    config: SimulatorConfig, symbols: Mapping[MarketName, Sequence[str]]
) -> tuple[Fault, ...]:
    """Return the faults that the settings ask for.

    Raises:
        PlanError: the file cannot be read, or an entry is wrong.
    """
    faults = () if config.fault_file is None else load_plan(config.fault_file)
    if config.fault_seed is None:
        return faults
    drawn = draw_plan(
        config.fault_seed,
        rate_per_h=config.fault_rate_per_h,
        span_us=round(config.fault_span_h * 3_600 * SECOND_US),
        symbols=symbols,
        kinds=chosen_kinds(config.fault_kinds),
    )
    return faults + drawn


def start_engine(
    clock: SimulatedClock,
    config: SimulatorConfig,
    *,
    stream_servers: Mapping[MarketName, StreamServer],
    markets: Mapping[MarketName, SimulatedMarket],
    reschedule: Mapping[MarketName, Reschedule],
    frames: FrameFaults,
    rest_faults: RestFaults,
    dump_faults: DumpFaults,
) -> FaultEngine:
    """Return an exchange's engine with the planned faults; offsets count from now.

    Args:
        markets: the simulated markets; empty in a replay, which has no faults of frames, market and
            dumps.
        reschedule: see `MarketFaults`.

    Raises:
        PlanError: the plan is wrong or cannot be executed; names the file.
    """
    actors: dict[FaultGroup, FaultActor] = {
        "connection": ConnectionFaults(stream_servers, clock),
        "rest": RuleFaults(rest_faults, rest_rules),
    }
    if markets:
        actors["frame"] = frames
        actors["market"] = MarketFaults(markets, clock, seed=config.seed, reschedule=reschedule)
        actors["series"] = SeriesFaults(
            markets,
            clock,
            reschedule=reschedule,
            rest_faults=rest_faults,
            dump_faults=dump_faults,
        )
        actors["dump"] = RuleFaults(
            dump_faults, dump_rules, begins_early=lambda fault: fault.kind.name == "reissued"
        )
    engine = FaultEngine(clock, actors)
    # A random fault of a dated contract could come after its delivery.
    symbols = {
        name: [one.symbol for one in markets[name].instruments if not one.is_dated]
        if name in markets
        else []
        for name in stream_servers
    }
    _take_up(engine, config, symbols)
    return engine


def _take_up(
    engine: FaultEngine, config: SimulatorConfig, symbols: Mapping[MarketName, Sequence[str]]
) -> None:
    faults = planned_faults(config, symbols)
    if config.fault_export is not None:
        try:
            config.fault_export.write_text(write_plan(faults))
        except OSError as error:
            raise PlanError(
                f"cannot write the fault plan to {config.fault_export}: {error.strerror}; name a "
                "file in a folder that exists"
            ) from error
    if faults:
        try:
            engine.add(faults)
        except PlanError as error:
            source = "the random plan" if config.fault_file is None else str(config.fault_file)
            raise PlanError(f"{source}: {error}") from error
