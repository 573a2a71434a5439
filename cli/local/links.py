"""Where to look while `demo` or `up` runs: printed there, and by `candelabra status`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from include.store.postgres.pools import redact

if TYPE_CHECKING:
    from rich.console import Console

    from cli.local.stack import LocalStack

LINKS_FILE = "links.json"
EXAMPLE = "/api/v1/candles?symbol={symbol}&timeframe=5m&limit=3"


def links_of(stack: LocalStack, *, symbol: str, oracle_url: str | None = None) -> dict[str, str]:
    """Return what runs so far, by name; the chart first."""
    serves = stack.streamer_serves()
    found = {}
    if "API" in serves:
        found["chart"] = f"{serves['API']}/"
        found["REST"] = serves["API"] + EXAMPLE.format(symbol=symbol)
    if "GRPC" in serves:
        found["gRPC"] = f"{serves['GRPC']}  candelabra.v1.MarketData"
    if "STREAMER_HTTP" in serves:
        found["metrics"] = f"{serves['STREAMER_HTTP']}/metrics"
    airflow = stack.airflow
    if airflow is not None:
        found["Airflow"] = f"{airflow.url}  login {airflow.username} / {airflow.password}"
    reader = redact(stack.environment_url("reader"))
    found["database"] = f"{reader}  (`candelabra psql` opens it)"
    if oracle_url is not None:
        found["exchange"] = f"{oracle_url}  (simulated; docs/simulator.md)"
    for name, page in (("marts", "dbt/docs/index.html"), ("quality", "quality/index.html")):
        if (stack.home / page).exists():
            found[name] = f"{(stack.home / page).as_uri()}  (docs/{name}.md)"
    found["logs"] = str(stack.logs)
    return found


def write_links(home: Path, links: Mapping[str, str]) -> None:
    """Write the links of a running stack, readable by its owner alone: they have a login."""
    half = home / f"{LINKS_FILE}.half"
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(dict(links), out)
    half.replace(home / LINKS_FILE)


def read_links(home: Path) -> dict[str, str]:
    """Return the links of the stack that runs in this folder; empty if none runs."""
    try:
        return dict(json.loads((home / LINKS_FILE).read_text()))
    except (OSError, ValueError):
        return {}


def link_lines(links: Mapping[str, str]) -> list[str]:
    """Return one line a link."""
    return [f"{name:<9}  {where}" for name, where in links.items()]


def show_links(links: Mapping[str, str], console: Console, *, title: str) -> None:
    """Print the links; a long one is not broken, so that it can be clicked."""
    console.print(f"\n[bold]{title}[/]", highlight=False)
    for line in link_lines(links):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    console.print()
