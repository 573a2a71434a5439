"""Load the history of klines, or of trades to check them: plan, load pieces, sum up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import structlog

from include.config import Settings
from include.domain.instruments import market_of
from include.domain.sourcing import FillMode
from include.errors import PermanentError, RateLimitedError, TransientError
from include.jobs.groups import (
    KLINE_PIECES_A_TASK,
    TRADE_FILES_A_TASK,
    HistoryGroup,
    HistorySpan,
    label_of_group,
    split,
)
from include.jobs.klines.backfill import load_all, raise_if_failed
from include.jobs.klines.dump_loading import window_of
from include.jobs.klines.pieces import (
    BackfillPlan,
    DumpPiece,
    LoadCounts,
    Moment,
    RestPiece,
    summarise,
)
from include.jobs.klines.planning import plan_backfill
from include.jobs.trades.dumps import load_trade_dump
from include.jobs.trades.file_candles import positive_counts
from include.jobs.trades.pieces import TradeDumpCounts, TradeDumpPiece
from include.jobs.trades.planning import plan_trade_dumps

log = structlog.get_logger(__name__)

KLINES = "klines"


def plan_history(
    *,
    settings: Settings,
    symbols: str | Sequence[str],
    market: str,
    kind: str,
    keep_raw: bool,
    mode: str,
    start: Moment | None,
    end: Moment,
) -> list[HistoryGroup]:
    """Plan a time range in groups, at most ``MAX_TASKS``; pieces are logged with their reasons.

    Args:
        kind: ``klines``; or ``agg_trades`` or ``trades``, whose files are aggregated into candles.
        keep_raw: store the trades too.
        mode: klines only; see ``plan_backfill``.
        start: None is the start of the symbol's history; klines only.

    Raises:
        PermanentError: invalid arguments, or as ``plan_backfill``.
        TransientError, RateLimitedError: the exchange or the database is away.
    """
    if kind == KLINES:
        if keep_raw:
            raise PermanentError("keep_raw stores rows of trades: set kind to agg_trades or trades")
        plan = plan_backfill(
            settings=settings,
            symbols=symbols,
            market=market,
            mode=mode,
            start=start,
            end=end,
            log_pieces=True,
        )
        return group_history(plan.pieces, kind=kind)
    if start is None:
        raise PermanentError(f"from is empty: set the first day of {kind} to load")
    if mode != FillMode.ALL:
        raise PermanentError(f"mode {mode!r} applies to klines only; all missing {kind} are loaded")
    trades = plan_trade_dumps(
        settings=settings,
        symbols=symbols,
        market=market,
        kind=kind,
        start=start,
        end=end,
        keep_raw=keep_raw,
    )
    return group_history(trades.pieces, kind=kind, keep_raw=keep_raw)


def load_history_group(*, settings: Settings, group: HistoryGroup) -> LoadCounts | TradeDumpCounts:
    """Load what is still missing in the ranges of a group.

    Raises:
        PermanentError: files of trades are unusable and have no replacement, or a setting is wrong.
        TransientError, RateLimitedError: the exchange or the database is away; pieces that were
            loaded stay.
    """
    if group.kind != KLINES:
        return _load_trades(settings, group)
    plan = BackfillPlan()
    for span in group.spans:
        plan += plan_backfill(
            settings=settings,
            symbols=span.symbol,
            market=market_of(span.symbol),
            start=span.start_us,
            end=span.end_us,
        )
    return load_all(settings=settings, plan=plan)


def _load_trades(settings: Settings, group: HistoryGroup) -> TradeDumpCounts:
    counts, unusable, failed, pieces = TradeDumpCounts(), [], [], 0
    for span in group.spans:
        plan = plan_trade_dumps(
            settings=settings,
            symbols=span.symbol,
            market=market_of(span.symbol),
            kind=group.kind,
            start=span.start_us,
            end=span.end_us,
            keep_raw=group.keep_raw,
        )
        for piece in plan.pieces:
            pieces += 1
            try:
                loaded = load_trade_dump(settings=settings, piece=piece)
            except RateLimitedError:
                raise
            except TransientError as error:
                failed.append(f"{piece.label}: {error}")
                continue
            counts += loaded
            if loaded.unusable:
                unusable.append(piece.path)
    raise_if_failed(failed, pieces=pieces)
    if unusable:
        raise PermanentError(f"{', '.join(unusable)} cannot be used; ops.dump_files says why")
    return counts


def summarise_history(
    *, counts: Sequence[LoadCounts] | Sequence[TradeDumpCounts]
) -> LoadCounts | TradeDumpCounts:
    """Add up the results of pieces of one kind, and log the sum."""
    if not any(isinstance(one, TradeDumpCounts) for one in counts):
        return summarise(counts=cast("Sequence[LoadCounts]", counts))
    total = sum(cast("Sequence[TradeDumpCounts]", counts), TradeDumpCounts())
    log.info("loads_summed", **positive_counts(total))
    return total


def group_history(
    pieces: Sequence[DumpPiece | RestPiece | TradeDumpPiece], *, kind: str, keep_raw: bool = False
) -> list[HistoryGroup]:
    """Group the pieces of a plan by symbol and time."""
    usual = KLINE_PIECES_A_TASK if kind == KLINES else TRADE_FILES_A_TASK
    placed = sorted(((_span_of(piece), piece.label) for piece in pieces), key=lambda one: one[0])
    return [
        HistoryGroup(
            label_of_group([label for _, label in run]),
            tuple(HistorySpan(*span) for span in _joined([span for span, _ in run])),
            kind,
            keep_raw,
        )
        for run in split(placed, usual=usual)
    ]


def _span_of(piece: DumpPiece | RestPiece | TradeDumpPiece) -> tuple[str, int, int]:
    if isinstance(piece, TradeDumpPiece):
        return (piece.symbol, *window_of(piece.path))
    return (piece.symbol, piece.start_us, piece.end_us)


def _joined(spans: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Join spans of each symbol into one."""
    ends: dict[str, tuple[int, int]] = {}
    for symbol, start_us, end_us in spans:
        first_us, last_us = ends.get(symbol, (start_us, end_us))
        ends[symbol] = (min(first_us, start_us), max(last_us, end_us))
    return [(symbol, *span) for symbol, span in ends.items()]
