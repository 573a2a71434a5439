"""History of klines, or of trades as their check: plan, pieces, sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import structlog

from include.config import Settings
from include.domain.sourcing import FillMode
from include.errors import PermanentError
from include.jobs.klines.backfill import load_piece
from include.jobs.klines.pieces import DumpPiece, LoadCounts, Moment, RestPiece, summarise
from include.jobs.klines.planning import plan_backfill
from include.jobs.trades.dumps import load_trade_dump
from include.jobs.trades.folds import told
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
) -> Sequence[DumpPiece | RestPiece | TradeDumpPiece]:
    """Plan the pieces of a time range; pieces of klines are logged, each with its reason.

    Args:
        kind: ``klines``; or ``agg_trades`` or ``trades``, whose files are aggregated into candles.
        keep_raw: store the trades too.
        mode: klines only; see ``plan_backfill``.
        start: None is the start of the symbol's history, for klines only.

    Raises:
        PermanentError: the request makes no sense; see ``plan_backfill`` too.
        TransientError, RateLimitedError: the exchange or the database is away.
    """
    if kind == KLINES:
        if keep_raw:
            raise PermanentError("keep_raw keeps rows of trades: kind should be one of theirs")
        return plan_backfill(
            settings=settings,
            symbols=symbols,
            market=market,
            mode=mode,
            start=start,
            end=end,
            tell_pieces=True,
        ).pieces
    if start is None:
        raise PermanentError(f"from is empty: say from which day on {kind} are to be loaded")
    if mode != FillMode.ALL:
        raise PermanentError(f"mode {mode!r} is for klines; of {kind} all that is missing comes")
    return plan_trade_dumps(
        settings=settings,
        symbols=symbols,
        market=market,
        kind=kind,
        start=start,
        end=end,
        keep_raw=keep_raw,
    ).pieces


def load_history_piece(
    *, settings: Settings, piece: DumpPiece | RestPiece | TradeDumpPiece
) -> LoadCounts | TradeDumpCounts:
    """Load a piece of any kind.

    Raises:
        PermanentError: a file of trades cannot be used and nothing stands in for it, or a setting
            is wrong.
        TransientError, RateLimitedError: the exchange or the database are away.
    """
    if not isinstance(piece, TradeDumpPiece):
        return load_piece(settings=settings, piece=piece)
    counts = load_trade_dump(settings=settings, piece=piece)
    if counts.unusable:
        raise PermanentError(f"{piece.path} cannot be used; ops.dump_files says why")
    return counts


def summarise_history(
    *, counts: Sequence[LoadCounts] | Sequence[TradeDumpCounts]
) -> LoadCounts | TradeDumpCounts:
    """Add up the results of pieces of one kind, and log the sum."""
    if not any(isinstance(one, TradeDumpCounts) for one in counts):
        return summarise(counts=cast("Sequence[LoadCounts]", counts))
    total = sum(cast("Sequence[TradeDumpCounts]", counts), TradeDumpCounts())
    log.info("loads_summed", **told(total))
    return total
