"""The documentation matches the code: settings, commands, DAGs, events, links.

After a change of a command's options, ``UPDATE_DOCS=1`` in the environment makes this file write
the help texts of ``docs/cli.md`` again.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cli.app import app
from include.config import _LIVE_HOSTS, Settings

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))


def names_of(program: typer.Typer, before: str = "") -> list[str]:
    """Commands as they are typed, those of groups as well: ``user``, ``user add``."""
    names = [
        before + (command.name or (command.callback.__name__ if command.callback else ""))
        for command in program.registered_commands
    ]
    for group in program.registered_groups:
        assert group.typer_instance is not None
        name = before + str(group.typer_instance.info.name)
        names += [name, *names_of(group.typer_instance, f"{name} ")]
    return names


COMMANDS = names_of(app)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


# --- settings


def shown_default(name: str) -> str:
    """The default as a user would write it into the environment."""
    default = Settings.model_fields[name].default
    if name in _LIVE_HOSTS:
        return _LIVE_HOSTS[name]
    if default is None or default == ():
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_explained_with_its_default(name: str) -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (DOCS / "configuration.md").read_text().splitlines()
        if line.startswith(f"| `{name.upper()}` |")
    ]
    assert len(rows) == 1, f"{name.upper()} should have one row in docs/configuration.md"
    _, default, meaning, *_ = rows[0]
    wanted = shown_default(name)
    assert default == (f"`{wanted}`" if wanted else "*empty*")
    assert meaning


def test_configuration_page_names_only_existing_settings() -> None:
    text = (DOCS / "configuration.md").read_text()
    shown = set(re.findall(r"^\| `([A-Z_0-9]+)` \|", text, flags=re.MULTILINE))
    assert shown == {name.upper() for name in Settings.model_fields}


def test_example_environment_has_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    found = [
        match.groups() for line in lines if (match := re.fullmatch(r"# ([A-Z_0-9]+)=(.*)", line))
    ]
    # Its order is for readers; that of the fields follows the classes.
    assert sorted(found) == sorted(
        (name.upper(), shown_default(name)) for name in Settings.model_fields
    )


def test_example_environment_sets_nothing() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


# --- the command line

PRINT_HELP = """
import json, os, sys
from typer.testing import CliRunner
from cli.app import app
print(json.dumps({
    name: CliRunner().invoke(app, [*name.split(), "--help"], prog_name="candelabra").output
    for name in json.loads(sys.argv[1])
}))
"""


@functools.cache
def help_texts() -> dict[str, str]:
    """The help of the program ("") and of each command, plain and 100 columns wide."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HELP, json.dumps(["", *COMMANDS])],
        cwd=ROOT,
        env=os.environ | {"TYPER_USE_RICH": "0", "COLUMNS": "100", "TERMINAL_WIDTH": "100"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    texts = {name: text.strip() for name, text in json.loads(done.stdout).items()}
    assert all(texts.values()), f"no help of {[name for name, text in texts.items() if not text]}"
    return texts


def documented_help() -> dict[str, str]:
    text = (DOCS / "cli.md").read_text()
    blocks = re.findall(r"^## (.+)\n(?:.*\n)*?```text\n((?:.*\n)*?)```$", text, flags=re.MULTILINE)
    return {title.removeprefix("candelabra").strip(): block.strip() for title, block in blocks}


def write_help() -> None:
    """Put today's help texts into the page, below the heading of each command."""
    text = (DOCS / "cli.md").read_text()
    for name, shown in help_texts().items():
        title = f"## candelabra {name}".strip()
        start = text.find(f"{title}\n")
        if start < 0:
            text = f"{text.rstrip()}\n\n{title}\n\n```text\n{shown}\n```\n"
            continue
        block = text.index("```text\n", start) + len("```text\n")
        text = text[:block] + shown + "\n" + text[text.index("```\n", block) :]
    (DOCS / "cli.md").write_text(text)


def test_every_command_is_documented_with_its_real_help() -> None:
    if os.environ.get("UPDATE_DOCS"):
        write_help()
    # Where lines break is the terminal's business, and differs between versions of Python.
    documented = {name: text.split() for name, text in documented_help().items()}
    real = {name: text.split() for name, text in help_texts().items()}
    assert documented == real, "run this test with UPDATE_DOCS=1 and look at the difference"


# --- DAGs, events, decisions


@pytest.mark.parametrize(
    "dag_id",
    sorted(path.stem for path in (ROOT / "dags").glob("*.py") if path.stem != "__init__"),
)
def test_every_dag_has_a_section(dag_id: str) -> None:
    text = (DOCS / "airflow.md").read_text()
    assert f"\n## {dag_id}\n" in text
    assert f"| `{dag_id}` |" in text


def warnings_and_errors() -> set[tuple[str, str]]:
    """Event and level of each warning and error that the live process and local services log."""
    found = set()
    for folder in ("include", "streamer", "serving", "cli", "deploy"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case (
                        ast.Call(
                            func=ast.Attribute(
                                value=ast.Name(id="log"),
                                attr=("warning" | "error" | "exception") as of,
                            ),
                            args=[ast.Constant(value=str(event)), *_],
                        )
                        | ast.Call(
                            func=ast.Name(id="partial"),
                            args=[
                                ast.Attribute(
                                    value=ast.Name(id="log"),
                                    attr=("warning" | "error" | "exception") as of,
                                ),
                                ast.Constant(value=str(event)),
                            ],
                        )
                    ):
                        found.add((event, "warning" if of == "warning" else "error"))
    return found


def test_operations_page_covers_every_warning_and_error() -> None:
    text = (DOCS / "operations.md").read_text()
    rows = set(
        re.findall(r"^\| `([a-z_]+)` \| (warning|error) \| .+ \| .+ \|$", text, flags=re.MULTILINE)
    )
    assert rows == warnings_and_errors()


@pytest.mark.parametrize("path", DECISIONS, ids=named)
def test_decision_has_the_required_sections(path: Path) -> None:
    text = path.read_text()
    sections = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert sections[:2] == ["What", "Why"]
    assert {"Measured", "Seen"} & set(sections)
    assert sections[-1] == "Cost"
    assert text.startswith(f"# {path.stem[:4]} ")
    assert f"]({path.name})" in (path.parent / "README.md").read_text()


# --- links and commands

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(path.read_text()), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_relative_links_have_targets(path: Path) -> None:
    broken = []
    for target in LINK.findall(without_code(path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_named_make_targets_exist(path: Path) -> None:
    targets = set(
        re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    )
    text = path.read_text()
    code = re.findall(r"```.*?```|`[^`\n]+`", text, flags=re.DOTALL)
    used = {name for part in code for name in re.findall(r"\bmake ([a-z][a-z-]*)", part)}
    assert used <= targets


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_named_commands_exist(path: Path) -> None:
    code = re.findall(r"```.*?```|`[^`\n]+`", path.read_text(), flags=re.DOTALL)
    used = {
        name
        for part in code
        for name in re.findall(r"(?:^|[\s`(\"])candelabra (user \w+|[a-z][a-z-]*)", part)
    }
    assert used <= set(COMMANDS)


TO_BE_MADE = {"dbt_project/models/marts/candles_45m.sql"}
"""Files that a page asks its reader to create."""


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_paths_in_backticks_exist(path: Path) -> None:
    rooms = "include|streamer|simulator|dags|dbt_project|deploy|docs|tests"
    named_paths = re.findall(rf"`((?:{rooms})/[\w./-]*)`", without_code(path.read_text()))
    missing = [one for one in named_paths if not (ROOT / one).exists() and one not in TO_BE_MADE]
    assert missing == []
