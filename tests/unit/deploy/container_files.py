"""Parsers for docker-compose.yml, the Dockerfile and .dockerignore.

They support only what our files use and raise an error for anything else.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
NATS_CONF = ROOT / "deploy" / "docker" / "nats" / "candelabra.conf"
MAKE_ENV = ROOT / "deploy" / "docker" / "make-env.sh"
SIMULATOR_ENV = ROOT / "deploy" / "docker" / "simulator.env"
OWN_POSTGRES = ROOT / "deploy" / "docker" / "own-postgres.yml"

ONE_SHOTS = {"migrate", "airflow-init", "cli"}
LONG_RUNNING = {
    "postgres",
    "streamer",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
    "nats",
    "server",
    "simulator",
}


class MissingVariableError(Exception):
    """A variable of ``${NAME:?message}`` is not set."""


# --- Compose


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${NAME:-default}``, where defaults may be nested, and ``${NAME:?message}``."""
    out, at = "", 0
    while (start := text.find("${", at)) >= 0:
        out += text[at:start]
        end = _closing(text, start + 2)
        out += _value(text[start + 2 : end], variables)
        at = end + 1
    return out + text[at:]


def _closing(text: str, at: int) -> int:
    depth = 1
    while depth:
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
        else:
            depth -= text[at] == "}"
            at += 1
    return at - 1


def _value(expression: str, variables: Mapping[str, str]) -> str:
    match = re.fullmatch(r"([A-Z][A-Z0-9_]*)(:[-?])(.*)", expression, re.DOTALL)
    if match is None:
        raise ValueError(f"${{{expression}}} is neither ${{NAME:-default}} nor ${{NAME:?message}}")
    name, kind, rest = match.groups()
    if given := variables.get(name, ""):
        return given
    if kind == ":?":
        raise MissingVariableError(f"{name}: {rest}")
    return interpolate(rest, variables)


def variables_of(text: str) -> dict[str, set[str]]:
    """Return all variables of a text, each with its operators: ``:-``, ``:?``."""
    found: dict[str, set[str]] = {}
    for name, kind in re.findall(r"\$\{([A-Z][A-Z0-9_]*)(:[-?])?", text):
        found.setdefault(name, set()).add(kind)
    return found


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, variables) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, variables) for part in value]
    return interpolate(value, variables) if isinstance(value, str) else value


def load_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the Compose file with anchors resolved and variables replaced."""
    filled: dict[str, Any] = _filled(yaml.safe_load(COMPOSE.read_text()), variables)
    return filled


def read_env(file: Path) -> dict[str, str]:
    """Return the variables of an env file with plain ``NAME=value`` lines."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


# --- the stack with the variables of make-env.sh


@functools.cache
def made_env() -> dict[str, str]:
    """Run make-env.sh and return the variables it writes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ".env"
        subprocess.run(["sh", MAKE_ENV, file], check=True, capture_output=True, timeout=30)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        return read_env(file)


@functools.cache
def stack() -> dict[str, Any]:
    return load_compose(made_env())


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = stack()["services"]
    return found


def target_of(service: dict[str, Any]) -> str:
    """Return the Dockerfile stage from which the service's image is built."""
    (build,) = (
        one["build"]
        for one in services().values()
        if one["image"] == service["image"] and "build" in one
    )
    target: str = build["target"]
    return target


# --- Dockerfile


@dataclass
class Stage:
    """One stage of a Dockerfile: name, base, and steps as ``(instruction, rest)``."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def form(self, instruction: str) -> list[str] | str | None:
        """Return the last such instruction: a list for exec form, otherwise its text."""
        found = self.of(instruction)
        if not found:
            return None
        return list(json.loads(found[-1])) if found[-1].startswith("[") else found[-1]


def read_dockerfile(file: Path = DOCKERFILE) -> tuple[dict[str, str], dict[str, Stage]]:
    """Return the arguments before the first stage, and the stages by name."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        rest = " ".join(rest.split())
        if name == "FROM":
            match = re.fullmatch(r"(\S+) AS ([a-z-]+)", rest)
            assert match, f"FROM {rest}: a stage has a name"
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], match[1])
            stages[match[2]] = Stage(match[2], base)
        elif not stages:
            assert name == "ARG", f"{name} before the first FROM"
            key, _, default = rest.partition("=")
            arguments[key] = default
        else:
            list(stages.values())[-1].steps.append((name, rest))
    return arguments, stages


def image_environment(stages: Mapping[str, Stage], name: str) -> dict[str, str]:
    """Return the ENV of a stage and its base stages."""
    stage = stages[name]
    values = image_environment(stages, stage.base) if stage.base in stages else {}
    for rest in stage.of("ENV"):
        values |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    return values


# --- the build


def _pattern(line: str) -> re.Pattern[str]:
    """Compile a pattern of ``.dockerignore``; it also matches everything below."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", line.strip("/"))
    said = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(said.get(part, re.escape(part)) for part in parts) + "(?:/.*)?")


def is_ignored(path: str, lines: list[str]) -> bool:
    """Whether the last matching line excludes this path from the build."""
    ignored = False
    for line in lines:
        if _pattern(line.removeprefix("!")).fullmatch(path):
            ignored = not line.startswith("!")
    return ignored


def ignore_lines() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def context_files() -> list[str]:
    """Return the files of the build context."""
    lines = ignore_lines()
    tops = [one for one in ROOT.iterdir() if not is_ignored(one.name, lines)]
    files = [one for top in tops for one in ([top] if top.is_file() else top.rglob("*"))]
    paths = [one.relative_to(ROOT).as_posix() for one in files if one.is_file()]
    return sorted(path for path in paths if not is_ignored(path, lines))


def copies_of(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield source and target of each COPY from the build context."""
    for rest in stage.of("COPY"):
        if not rest.startswith("--from="):
            source, target = rest.split()
            yield source, target


def build(stage: Stage, into: Path) -> list[str]:
    """Run the COPY steps of a stage and return the copied paths."""
    files, done = context_files(), []
    for source, target in copies_of(stage):
        chosen = [path for path in files if path == source or path.startswith(f"{source}/")]
        assert chosen, f"COPY {source}: nothing in the build's context"
        for path in chosen:
            copied = into / f"{target}{path.removeprefix(source)}"
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copied)
            done.append(path)
    return done
