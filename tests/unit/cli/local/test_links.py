"""Links of a running stack: what serves, in whole lines, kept secret from others."""

from __future__ import annotations

import io
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from cli.local.links import LINKS_FILE, link_lines, links_of, read_links, show_links, write_links


def stack(tmp_path: Path, **fields: Any) -> Any:
    known: dict[str, Any] = {
        "home": tmp_path,
        "logs": tmp_path / "logs",
        "airflow": None,
        "streamer_serves": lambda: {
            "API": "http://127.0.0.1:8300",
            "GRPC": "127.0.0.1:50051",
            "STREAMER_HTTP": "http://127.0.0.1:40123",
        },
        "environment_url": lambda _role: "postgresql://reader:secret@127.0.0.1:5/candelabra",
    }
    return SimpleNamespace(**(known | fields))


def test_chart_comes_first_and_the_database_without_its_password(tmp_path: Path) -> None:
    links = links_of(stack(tmp_path), symbol="ETHUSDT")
    assert list(links) == ["chart", "REST", "gRPC", "metrics", "database", "logs"]
    assert links["chart"] == "http://127.0.0.1:8300/"
    assert "symbol=ETHUSDT" in links["REST"]
    assert links["metrics"] == "http://127.0.0.1:40123/metrics"  # 9464 may have been taken
    assert "secret" not in str(links)


def test_airflow_and_pages_are_added_when_they_exist(tmp_path: Path) -> None:
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality" / "index.html").touch()
    airflow = SimpleNamespace(url="http://127.0.0.1:9", username="admin", password="pw")
    links = links_of(stack(tmp_path, airflow=airflow), symbol="BTCUSDT", oracle_url="http://x")
    assert links["Airflow"] == "http://127.0.0.1:9  login admin / pw"
    assert links["exchange"].startswith("http://x")
    assert links["quality"].startswith("file://")
    assert "marts" not in links


def test_written_links_are_read_again_and_are_their_owners_alone(tmp_path: Path) -> None:
    assert read_links(tmp_path) == {}
    write_links(tmp_path, {"chart": "http://c/"})
    assert read_links(tmp_path) == {"chart": "http://c/"}
    assert stat.S_IMODE((tmp_path / LINKS_FILE).stat().st_mode) == 0o600
    assert link_lines(read_links(tmp_path)) == ["chart      http://c/"]


def test_long_link_is_not_broken_in_a_narrow_terminal() -> None:
    out = io.StringIO()
    url = "http://127.0.0.1:8300/api/v1/candles?symbol=BTCUSDT&timeframe=5m&limit=3" * 2
    show_links({"REST": url}, Console(file=out, width=60), title="Candelabra runs")
    assert url in out.getvalue()
