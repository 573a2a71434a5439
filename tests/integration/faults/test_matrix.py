"""The matrix is complete, each cell is run, and the documentation shows it.

``UPDATE_DOCS=1`` in the environment writes ``docs/fault-matrix.md`` again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from simulator.faults.kinds import KINDS
from tests.integration.faults import (
    test_backfill_dumps,
    test_imports,
    test_jobs_market,
    test_jobs_rest,
)
from tests.integration.faults.cells import COMPONENTS, Component
from tests.integration.faults.matrix import (
    MATRIX,
    UNTOUCHED,
    UNTOUCHED_KINDS,
    page,
    reason_untouched,
)
from tests.integration.faults.streamer import (
    test_capture,
    test_connections,
    test_frames,
    test_market,
    test_rest,
    test_start,
)

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "fault-matrix.md"


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_fault_has_a_cell_or_a_reason(component: Component) -> None:
    wrong = [
        kind
        for kind in KINDS
        if (kind in MATRIX[component]) == (reason_untouched(component, kind) is not None)
    ]
    assert wrong == []


def test_matrix_has_only_existing_faults() -> None:
    assert {kind for cells in MATRIX.values() for kind in cells} <= KINDS.keys()
    assert {kind for _, kind in UNTOUCHED_KINDS} <= KINDS.keys()
    groups = {kind.group for kind in KINDS.values()}
    assert {group for _, group in UNTOUCHED} <= groups
    both = {(c, k) for c, k in UNTOUCHED_KINDS if (c, KINDS[k].group) in UNTOUCHED}
    assert both == set()


def kinds_of(*faults: dict[str, object]) -> set[str]:
    return {str(fault["kind"]) for fault in faults}


def test_each_cell_is_run() -> None:
    connections = [fault for pair in test_connections.PAIRS for fault in pair]
    streamer = kinds_of(
        *connections,
        *test_connections.REFUSALS,
        *test_frames.FAULTS.values(),
        *test_frames.WRONG_KLINES.values(),
        *test_market.FAULTS,
        *test_rest.FAULTS.values(),
        *test_capture.FAULTS,
    )
    rest = kinds_of(*test_jobs_rest.PASSING)
    market = kinds_of(*test_jobs_market.FAULTS.values())
    dumps = kinds_of(*(case.fault for case in test_backfill_dumps.CASES))
    run: dict[Component, set[str]] = {
        "streamer": streamer,
        "start": kinds_of(*test_start.FAULTS, *test_start.CHANGES, test_start.BEHIND),
        "backfill": rest | market | dumps | {"reissued", "monthly_differs", "listing_error"},
        "repair_gaps": rest | market,
        "sync_instruments": market | kinds_of(*test_jobs_rest.INSTRUMENTS),
        "import": kinds_of(*(case.fault for case in test_imports.CASES)),
    }
    assert run == {component: set(cells) for component, cells in MATRIX.items()}


def test_documentation_shows_the_matrix() -> None:
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "run this test with UPDATE_DOCS=1 and look at the difference"


def test_each_event_of_the_matrix_is_logged_somewhere() -> None:
    sources = [
        path.read_text() for room in ("streamer", "include") for path in (ROOT / room).rglob("*.py")
    ]
    logged = set(re.findall(r'log\.\w+[(,]\s*"([a-z_]+)"', "\n".join(sources)))
    events = {
        event for cells in MATRIX.values() for cell in cells.values() for event in cell.events
    }
    assert events <= logged
