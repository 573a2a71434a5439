"""Time spans in which rules failed: the next run checks every minute of them again.

The stored failing rows are only the first of many; the spans cover all. They are stored with the
results (``open`` in ``observed``), in whole seconds of Unix time, merged by symbol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import LiteralString

Spans = Mapping[str, tuple[tuple[int, int], ...]]
"""Half-open ranges by symbol, ascending."""

MAX_SPANS = 200
"""More spans of one symbol and rule are replaced by one span that covers them all."""

# A run that began before the newest one ended may have found faults that the newest one did not
# check, whatever its scope and symbols.
OPEN: LiteralString = """
CREATE TEMPORARY TABLE quality_open AS
SELECT
    results.suite,
    faults.symbol COLLATE "C" AS symbol,
    tstzrange(
        to_timestamp((spans.span ->> 0)::bigint), to_timestamp((spans.span ->> 1)::bigint)
    ) AS span
FROM ops.quality_runs AS runs
INNER JOIN ops.quality_results AS results ON results.run_id = runs.run_id
CROSS JOIN LATERAL jsonb_each(results.observed -> 'open') AS faults (symbol, spans)
CROSS JOIN LATERAL jsonb_array_elements(faults.spans) AS spans (span)
WHERE runs.run_at >= {open_since} AND NOT results.success
"""

BROKEN_LEDGERS: LiteralString = """
SELECT EXISTS (
    SELECT FROM ops.quality_runs AS runs
    INNER JOIN ops.quality_results AS results ON results.run_id = runs.run_id
    WHERE
        runs.run_at >= {open_since}
        AND NOT results.success
        AND results.severity = 'error'
        AND results.suite IN ('dump_files', 'gaps', 'coverage', 'verdicts')
)
"""


def united(
    *parts: Mapping[str, Iterable[tuple[int, int]]],
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the spans of all parts, with adjacent ones merged."""
    by_symbol: dict[str, list[tuple[int, int]]] = {}
    for part in parts:
        for symbol, spans in part.items():
            by_symbol.setdefault(symbol, []).extend(spans)
    return {symbol: _merged(sorted(spans)) for symbol, spans in by_symbol.items()}


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for begin, end in spans:
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    if len(merged) > MAX_SPANS:
        return ((merged[0][0], merged[-1][1]),)
    return tuple(merged)
