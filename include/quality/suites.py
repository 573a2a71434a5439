"""All suites, in the order of the report."""

from __future__ import annotations

from include.quality.candle_checks import CANDLE_CHECKS
from include.quality.check import Check, Suite
from include.quality.freshness_checks import FRESHNESS
from include.quality.halt_checks import HALTS
from include.quality.ledger_checks import LEDGERED_CANDLE_CHECKS, LEDGERS
from include.quality.neighbour_checks import NEIGHBOUR_CHECKS
from include.quality.registry_checks import INSTRUMENTS
from include.quality.trade_checks import TRADES

CANDLES = Suite(
    "candles",
    "market.candles_1m",
    "SELECT * FROM quality_candles",
    (*CANDLE_CHECKS, *NEIGHBOUR_CHECKS, *LEDGERED_CANDLE_CHECKS),
)

SUITES: tuple[Suite, ...] = (CANDLES, HALTS, TRADES, FRESHNESS, INSTRUMENTS, *LEDGERS)

CHECKS: tuple[Check, ...] = tuple(check for suite in SUITES for check in suite.checks)
"""Every rule."""
