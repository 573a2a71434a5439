"""All suites, in the order of the report."""

from __future__ import annotations

from include.quality.check import Check, Suite
from include.quality.rules.candles import CANDLE_CHECKS
from include.quality.rules.freshness import FRESHNESS, FUTURE
from include.quality.rules.halts import HALTS
from include.quality.rules.instruments import INSTRUMENTS
from include.quality.rules.ledgers import LEDGERED_CANDLE_CHECKS, LEDGERS
from include.quality.rules.neighbours import NEIGHBOUR_CHECKS
from include.quality.rules.trades import TRADES

CANDLES = Suite(
    "candles",
    "market.candles_1m",
    "SELECT * FROM quality_candles",
    (*CANDLE_CHECKS, *NEIGHBOUR_CHECKS, *LEDGERED_CANDLE_CHECKS),
)

SUITES: tuple[Suite, ...] = (CANDLES, HALTS, TRADES, FRESHNESS, FUTURE, INSTRUMENTS, *LEDGERS)

CHECKS: tuple[Check, ...] = tuple(check for suite in SUITES for check in suite.checks)
"""Every rule."""
