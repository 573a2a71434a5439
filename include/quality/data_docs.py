"""Write Great Expectations' Data Docs as static pages.

There is one site for the newest run of each scope; the history is in ``ops.quality_results``. The
pages load nothing from other addresses: links to CDNs are removed, so that the pages look the same
(plain) with and without the Internet.
"""

from __future__ import annotations

import html
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.resource_identifiers import (
    ExpectationSuiteIdentifier,
    ValidationResultIdentifier,
)

from include.counts import counted
from include.errors import PermanentError
from include.quality.limits import ScopeKind
from include.quality.report import QualityReport

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
    )
    from great_expectations.data_context.data_context.ephemeral_data_context import (
        EphemeralDataContext,
    )

# Tags that load external resources; ordinary links stay.
_FROM_ELSEWHERE = re.compile(
    r"<link\b[^>]*\bhref=[\"']https?://[^>]*>"
    r"|<script\b[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>"
    r"|<img\b[^>]*\bsrc=[\"']https?://[^>]*>",
    re.IGNORECASE,
)

_STYLE = """<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }
table { border-collapse: collapse; margin: .5rem 0; }
.passed { color: #17702e; } .failed { color: #b3261e; }
td, th { border: 1px solid #ccc; padding: .2rem .5rem; vertical-align: top; text-align: left; }
.modal, .cooltip, .nav-link[data-toggle], #ge-cta-footer { display: none; }
</style>"""

_INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Candelabra: quality</title>{style}</head><body>
<h1>Quality of stored rows</h1>
{verdicts}
<p>The newest run of each scope, by Great Expectations. Earlier ones are in SQL:
<code>ops.quality_runs</code>, <code>ops.quality_results</code>, <code>ops.quality_failures</code>.
</p></body></html>
"""
_VERDICT_FILE = "verdict.html"

_SCOPES = {
    ScopeKind.CHANGED: "changes since the previous run",
    ScopeKind.ALL: "everything",
    ScopeKind.WINDOW: "a span of time",
}


def write_data_docs(
    context: EphemeralDataContext,
    folder: Path,
    report: QualityReport,
    validated: dict[str, ExpectationSuiteValidationResult],
) -> Path:
    """Write the site of a run; it replaces the site of the last run with this scope.

    Args:
        folder: of all sites; created if missing.
        validated: results by name of the suite.

    Returns:
        The front page.

    Raises:
        PermanentError: the folder cannot be written.
    """
    name = report.scope.value
    fresh, site = folder / f".{name}.new", folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        _build(context, fresh, report, validated)
        for page in fresh.rglob("*.html"):
            page.write_text(_self_contained(page.read_text()))
        (fresh / _VERDICT_FILE).write_text(_verdict_of(report, datetime.now(UTC)))
        old = folder / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if site.exists():
            site.rename(old)
        fresh.rename(site)
        shutil.rmtree(old, ignore_errors=True)
        index = folder / "index.html"
        index.write_text(_index_of(folder))
    except OSError as error:
        raise PermanentError(
            f"cannot write the pages of quality to {folder}: {error.strerror}; QUALITY_DOCS_FOLDER "
            "should be a folder that the checks may write to"
        ) from error
    return index


def _build(
    context: EphemeralDataContext,
    folder: Path,
    report: QualityReport,
    validated: dict[str, ExpectationSuiteValidationResult],
) -> None:
    run = RunIdentifier(
        run_name=re.sub(r"[^\w.+-]", "_", report.run_id), run_time=datetime.now(UTC)
    )
    for name, result in validated.items():
        key = ValidationResultIdentifier(ExpectationSuiteIdentifier(name), run, name)
        context.validation_results_store.set(key, result)
    context.add_data_docs_site(
        report.scope.value,
        {
            "class_name": "SiteBuilder",
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(folder.absolute()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "show_how_to_buttons": False,  # type: ignore[typeddict-unknown-key]
        },
    )
    context.build_data_docs(site_names=[report.scope.value])


def _self_contained(page: str) -> str:
    """Return the page without anything that a browser would load from another address."""
    return _FROM_ELSEWHERE.sub("", page).replace("</head>", f"{_STYLE}</head>", 1)


def _verdict_of(report: QualityReport, ended_at: datetime) -> str:
    """Return what a reader wants first: verdict, time, and the rules that failed."""
    failed, warned = report.failures, report.warnings
    verdict = (
        f"{len(failed)} of {counted(len(report.results), 'rule')} failed" if failed else "Passed"
    )
    if warned:
        verdict += f", {counted(len(warned), 'warning')}"
    rows = "".join(
        f"<tr><td>{kind}</td><td>{html.escape(one.name)}</td><td>{html.escape(one.rule)}</td>"
        f"<td>{one.failing_count:,}</td>"
        f"<td>{html.escape(str(one.failing_rows[0]) if one.failing_rows else '')}</td></tr>"
        for kind, found in (("error", failed), ("warning", warned))
        for one in found
    )
    header = "<tr><th></th><th>rule</th><th>meaning</th><th>rows</th><th>first row</th></tr>"
    return (
        f'<h2 class="{"failed" if failed else "passed"}">{verdict}</h2>'
        f"<p>{html.escape(_SCOPES[report.scope].capitalize())}, checked at "
        f"{ended_at:%Y-%m-%d %H:%M:%S} UTC: {html.escape(report.checked_period)}. "
        f"{counted(report.candles, 'candle')}, {counted(report.trades, 'trade')}. "
        f'<a href="{report.scope.value}/index.html">Every rule</a></p>'
        + (f"<table>{header}{rows}</table>" if rows else "")
    )


def _index_of(folder: Path) -> str:
    """Return the front page: the verdicts of all scopes, the newest run first."""
    files = [folder / kind.value / _VERDICT_FILE for kind in _SCOPES]
    newest_first = sorted(
        (file for file in files if file.exists()), key=lambda file: -file.stat().st_mtime
    )
    return _INDEX.format(style=_STYLE, verdicts="".join(file.read_text() for file in newest_first))
