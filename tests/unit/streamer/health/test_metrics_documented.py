"""The operations page documents each metric as it is declared."""

from __future__ import annotations

import re
from pathlib import Path

from streamer.health.metrics import METRICS

ROOT = Path(__file__).parents[4]


def test_operations_page_has_a_row_for_each_metric() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `candelabra_") and "` | error |" not in line
    ]
    found = {
        row[0].strip("`"): (row[1], tuple(re.findall(r"`(\w+)`", row[2])), row[3])
        for row in rows
        if row[1] in {"counter", "gauge", "histogram"}
    }
    assert found == {name: (one.kind, one.labels, one.meaning) for name, one in METRICS.items()}
    assert all(row[4] for row in rows if row[0].strip("`") in METRICS)
