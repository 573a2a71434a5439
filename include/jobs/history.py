"""Load the history of klines, or of trades to check them: plan, load pieces, sum up."""

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
) -> Sequence[DumpPiece | RestPiece | TradeDumpPiece]:
    """Plan the pieces of a time range; pieces of klines are logged with their reasons.

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
        return plan_backfill(
            settings=settings,
            symbols=symbols,
            market=market,
            mode=mode,
            start=start,
            end=end,
            log_pieces=True,
        ).pieces
    if start is None:
        raise PermanentError(f"from is empty: set the first day of {kind} to load")
    if mode != FillMode.ALL:
        raise PermanentError(f"mode {mode!r} applies to klines only; all missing {kind} are loaded")
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
        PermanentError: a file of trades is unusable and has no replacement, or a setting is wrong.
        TransientError, RateLimitedError: the exchange or the database is away.
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
    log.info("loads_summed", **positive_counts(total))
    return total
