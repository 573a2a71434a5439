"""Estimated cost of a plan: requests, weight, bytes and time."""

from __future__ import annotations

from dataclasses import dataclass

from include.binance.rest.weights import (
    BEST_KLINES,
    TIME_WEIGHT,
    WEIGHT_LIMITS,
    klines_weight,
)
from include.domain.instruments import Market, market_of
from include.domain.timeframes import MINUTE_US
from include.jobs.klines.pieces import BackfillPlan, RestPiece

WEIGHT_SHARE = 0.75
"""Default share of the exchange's weight that loads may use."""

REQUESTS_A_FILE = 2
"""The file and its checksum."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of loading; by default the lower of two measurements (docs/history.md).

    Attributes:
        dump_rows_s: rows a second from dump files into the table, all workers together.
        rest_rows_s: rows a second from REST into the table, without a weight limit.
        download_bytes_s: of the connection to the dump site.
    """

    dump_rows_s: float = 145_000.0
    rest_rows_s: float = 44_000.0
    download_bytes_s: float = 5e6


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated cost of a plan.

    Attributes:
        requests: to REST and to the dump site.
        weight: of the REST requests.
        size_bytes: of dump files, as listed.
        seconds: for one process at the speed of ``Rates``, with the whole request weight available.
    """

    requests: int = 0
    weight: int = 0
    size_bytes: int = 0
    seconds: float = 0.0


def estimate(
    plan: BackfillPlan, *, rates: Rates = Rates(), weight_share: float = WEIGHT_SHARE
) -> Estimate:
    """Estimate the cost of loading a plan.

    Parsing and writing overlap with the download, and the two markets' waits for weight overlap
    with each other. The slowest of them determines the time.
    """
    requests = REQUESTS_A_FILE * len(plan.dumps)
    weights = dict.fromkeys(Market, 0)
    rest_minutes = 0
    for piece in plan.rest:
        market = market_of(piece.symbol)
        pages, weight = rest_cost(piece, market)
        requests += pages
        weights[market] += weight
        rest_minutes += _minutes(piece.start_us, piece.end_us)
    dump_minutes = sum(_minutes(one.start_us, one.end_us) for one in plan.dumps)
    size_bytes = sum(one.size_bytes for one in plan.dumps)
    seconds = max(
        dump_minutes / rates.dump_rows_s + rest_minutes / rates.rest_rows_s,
        size_bytes / rates.download_bytes_s,
        *(wait_for_weight_s(weights[one], one, weight_share=weight_share) for one in Market),
    )
    return Estimate(requests, sum(weights.values()), size_bytes, seconds)


def rest_cost(piece: RestPiece, market: Market) -> tuple[int, int]:
    """Return requests and weight of a REST piece: its pages, and one request for the time."""
    full, rest = divmod(_minutes(piece.start_us, piece.end_us), BEST_KLINES[market])
    weight = full * klines_weight(market, BEST_KLINES[market]) + TIME_WEIGHT
    if rest:
        weight += klines_weight(market, rest)
    return full + bool(rest) + 1, weight


def wait_for_weight_s(weight: int, market: Market, *, weight_share: float) -> float:
    """Return seconds until the weight is granted; the first minute's share needs no wait."""
    per_minute = WEIGHT_LIMITS[market] * weight_share
    return 60.0 * max(0.0, weight - per_minute) / per_minute


def _minutes(start_us: int, end_us: int) -> int:
    return (end_us - start_us) // MINUTE_US
