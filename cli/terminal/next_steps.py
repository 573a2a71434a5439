"""What to do next, as commands to copy: the last lines of ``candelabra status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.jobs.status import DatabaseStatus, Finding

MAX_SYMBOLS = 5


def next_steps(found: DatabaseStatus, links: Mapping[str, str]) -> list[str]:
    """Return suggestions, most urgent first.

    Args:
        links: of the running stack; empty if none runs.
    """
    advice = [_advice(finding, found, links) for finding in found.findings]
    steps = list(dict.fromkeys(line for line in advice if line))
    health = found.health
    if health is None:
        return steps
    if health.quality is None and health.symbols and not found.expected:
        steps.append("check the stored rows: candelabra check")
    if health.symbols and not health.files and not found.expected and "exchange" not in links:
        # The demo, which simulates the exchange, loads its history itself.
        symbol = health.symbols[0].symbol
        steps.append(
            f"load history: candelabra backfill --symbols {symbol} --from {found.now:%Y}-01-01"
        )
    if "chart" in links:
        steps.append(f"see the chart: {links['chart']}")
    if health.symbols:
        steps.append(
            'query: candelabra psql -c "SELECT * FROM market.candles_1m_live '
            'ORDER BY open_time DESC LIMIT 5"'
        )
    return steps


def _advice(finding: Finding, found: DatabaseStatus, links: Mapping[str, str]) -> str:
    symbols = ",".join(finding.symbols[:MAX_SYMBOLS])
    log = f"{links['logs']}/streamer.log" if "logs" in links else "the streamer's log"
    load = f"candelabra backfill --symbols {symbols} --from {found.since:%Y-%m-%d}"
    return {
        "no_streamer": "stream: candelabra stream --symbols BTCUSDT,ETHUSDT",
        "no_candles": f"load the history: {load}",
        "behind": f"read the last lines of {log}",
        "missing": f"load the missing minutes: {load}",
        "not_confirmed": f"let the exchange confirm the minutes: {load}",
        "ids_break": f"load the minutes again: {load}",
        "gaps": f"repair the gaps: DAG repair_gaps, or {load}",
        "quality": f"see the rows: {links.get('quality') or 'candelabra check'}",
    }.get(finding.code, "")
