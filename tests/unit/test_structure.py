"""The structure of the code: tests, forbidden constructs, the streamer's dependencies."""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("include", "streamer", "serving", "cli", "simulator", "deploy", "dags")

MIN_STATEMENTS = 12
"""A module with fewer statements in its functions is tested through the modules that use it."""

MAX_EXCEPTIONS = 5
EXCEPTIONS = {
    "include/jobs/mart_audits.py": "tests/integration/dbt/bars/test_mart_audits.py runs it",
    "include/store/candles/mart_audits.py": "tests/integration/dbt/bars/test_mart_audits.py, too",
    "include/store/storage/restoring.py": "tests/integration/jobs/storage/test_backup.py restores",
}
"""Modules without a test file of their name, and what tests them."""

SKIPPED_FOLDERS = {"__pycache__", "target", "logs", "dbt_packages", "node_modules", "generated"}


def tracked(*suffixes: str) -> list[Path]:
    """Files of the project with these suffixes; without hidden folders and generated files."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS
        ]
        found += [
            path
            for name in files
            if (
                name != ".git"  # a worktree's pointer to its repository
                and (path := Path(folder) / name).suffix in suffixes
            )
            or not suffixes
        ]
    return sorted(found)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules() -> list[Path]:
    return [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in ROOMS]


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=named(path))


def found_in(paths: Iterable[Path], search: Callable[[ast.Module], Iterator[int]]) -> list[str]:
    """Places, as file:line, that a search finds."""
    return [f"{named(path)}:{line}" for path in paths for line in search(tree_of(path))]


# --- tests mirror the code


def statements(module: Path) -> int:
    """Number of statements inside functions, without docstrings."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {
        node
        for function in ast.walk(tree_of(module))
        if isinstance(function, functions)
        for node in ast.walk(function)
        if isinstance(node, ast.stmt) and node is not function
    }
    return sum(
        not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in inside
    )


def has_test(module: Path) -> bool:
    """Whether tests/unit or tests/integration has a file of the module's name, or of its room's."""
    rooms = [part for part in module.relative_to(ROOT).parts[:-1] if part != "include"]
    names = [module.stem, module.parent.name]
    return any(
        (ROOT / "tests").joinpath(kind, *folder, f"test_{name}.py").exists()
        for kind in ("unit", "integration")
        for folder in (rooms, ["include", *rooms])
        for name in names
    )


def needs_a_test(module: Path) -> bool:
    parts = module.relative_to(ROOT).parts
    return (
        parts[0] in {"include", "streamer", "serving", "cli", "simulator"}
        and "migrations" not in parts
        and not module.stem.startswith("__")
        and statements(module) >= MIN_STATEMENTS
    )


def test_each_module_or_its_folder_has_a_test_file() -> None:
    """``tests/*/<room>/test_<module>.py`` or ``test_<room>.py``, or a line in ``EXCEPTIONS``."""
    without = {named(path) for path in modules() if needs_a_test(path) and not has_test(path)}
    assert sorted(without - EXCEPTIONS.keys()) == [], "these need a test file or a reason"
    assert sorted(EXCEPTIONS.keys() - without) == [], "these need no exception"
    assert len(EXCEPTIONS) <= MAX_EXCEPTIONS


MAX_MODULES = 12


def test_no_folder_shows_more_than_a_dozen_modules() -> None:
    shown: dict[str, int] = {}
    for path in tracked(".py"):
        if not path.stem.startswith("__") and path.stem != "conftest":
            folder = named(path.parent)
            shown[folder] = shown.get(folder, 0) + 1
    assert {folder: count for folder, count in shown.items() if count > MAX_MODULES} == {}


# --- what no file does


def test_no_module_has_a_catch_all_name() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"}
    assert [named(path) for path in tracked(".py") if path.stem in drawers] == []


TRANSLATED_BY_THEIR_CALLERS = {
    "include/store/candles/merging.py",
    "include/store/series/merging.py",
    "include/store/trades/frames.py",
}
"""Files in which a transaction is begun for a caller that has begun to translate errors."""


def untranslated_transactions(tree: ast.Module) -> Iterator[int]:
    """Lines that begin a transaction outside ``with translated(…)``: BEGIN may fail as well."""

    def walk(node: ast.AST, *, inside: bool) -> Iterator[int]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = False
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith(".transaction") and called != "self.transaction" and not inside:
                yield node.lineno
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                yield from walk(item.context_expr, inside=inside)
                inside = inside or "translated(" in ast.unparse(item.context_expr)
            children: Iterable[ast.AST] = node.body
        else:
            children = ast.iter_child_nodes(node)
        for child in children:
            yield from walk(child, inside=inside)

    return walk(tree, inside=False)


def test_failed_transaction_start_raises_our_error() -> None:
    """A driver's own error would escape the code that waits for PostgreSQL, and end the process."""
    of_ours = [
        path
        for path in modules()
        if path.relative_to(ROOT).parts[0] in ("include", "streamer", "serving", "cli")
    ]
    found = found_in(of_ours, untranslated_transactions)
    assert [
        place for place in found if place.split(":")[0] not in TRANSLATED_BY_THEIR_CALLERS
    ] == []


SQL = re.compile(
    r"\b(SELECT|INSERT INTO|DELETE FROM|UPDATE \S+ SET|TRUNCATE|COPY \S+ (FROM|TO)"
    r"|(CREATE|ALTER|DROP) (TABLE|VIEW|SCHEMA|ROLE|INDEX|DATABASE|FUNCTION)|GRANT|REVOKE)\b"
)


def assembled_sql(tree: ast.Module) -> Iterator[int]:
    """Lines on which a statement is put together from strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            fixed = [part.value for part in node.values if isinstance(part, ast.Constant)]
            filled = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            if SQL.search(" ".join(map(str, fixed))) and not all(map(is_constant, filled)):
                yield node.lineno
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"execute", "executemany", "copy"}
            and node.args
            and isinstance(node.args[0], ast.BinOp | ast.JoinedStr)
            and not all(map(is_constant, parts_of(node.args[0])))
        ):
            yield node.lineno


def is_constant(node: ast.AST) -> bool:
    """Whether it is a literal or a module's constant: no input can reach it."""
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())


def parts_of(node: ast.AST) -> list[ast.AST]:
    """Parts of a sum or a formatted string."""
    if isinstance(node, ast.BinOp):
        return [*parts_of(node.left), *parts_of(node.right)]
    if isinstance(node, ast.JoinedStr):
        return [one.value if isinstance(one, ast.FormattedValue) else one for one in node.values]
    return [node]


def test_assembled_statements_are_found() -> None:
    bad = ['f"SELECT {x}"', 'c.execute(f"{x}")', 'c.execute("SELECT 1" + x)', 'f"DROP TABLE {t}"']
    bad += ['c.execute("SELECT %s" % x)', "c.execute(_READ + order)"]
    good = ['"SELECT 1"', 'c.execute("SELECT %s", (x,))', 'f"selected {x}"', 'f"SELECT {_COLUMNS}"']
    good += ["c.execute(_READ + _ORDER)"]
    assert all(list(assembled_sql(ast.parse(line))) for line in bad)
    assert not any(list(assembled_sql(ast.parse(line))) for line in good)


def test_sql_is_never_assembled_from_strings() -> None:
    """Names go in by ``psycopg.sql``, values as parameters."""
    assert found_in(modules(), assembled_sql) == []


def catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return caught is None or any(
        isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"} for kind in kinds
    )


def called(node: ast.Call) -> str:
    """The last part of the called name; empty if it has none."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def swallowing(tree: ast.Module) -> Iterator[int]:
    """Lines on which any error is caught and the program goes on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and catches_everything(node):
            if not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                yield node.lineno
        elif isinstance(node, ast.Call) and called(node).endswith("suppress"):
            names = {ast.unparse(argument) for argument in node.args}
            if names & {"Exception", "BaseException"}:
                yield node.lineno
        elif isinstance(node, ast.keyword) and node.arg == "retry_on":
            names = {one.id for one in ast.walk(node.value) if isinstance(one, ast.Name)}
            if names & {"Exception", "BaseException"}:
                yield node.lineno


def test_swallowed_errors_are_found() -> None:
    bad = ["except:\n  pass", "except Exception:\n  pass", "except (OSError, Exception):\n  x = 1"]
    good = ["except OSError:\n  pass", "except BaseException:\n  close()\n  raise"]
    assert all(list(swallowing(ast.parse(f"try:\n  f()\n{handler}"))) for handler in bad)
    assert not any(list(swallowing(ast.parse(f"try:\n  f()\n{handler}"))) for handler in good)
    assert list(swallowing(ast.parse("with contextlib.suppress(Exception):\n  f()")))
    assert list(swallowing(ast.parse("RetryLoop(BACKOFF, retry_on=(OSError, Exception))")))


RETRIED = {
    "serving/sources/nats/publisher.py": "publishing must not end ingestion: every error is logged "
    "with its traceback, counted, and retried with backoff",
}
"""Modules that catch every error, and why."""


def test_no_error_is_swallowed() -> None:
    found = [one.rpartition(":")[0] for one in found_in(tracked(".py"), swallowing)]
    assert found == list(RETRIED)  # one handler each


# Put together here, so that this file is not its own finding.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.}*])/(?:work|home|Users|root)/\w",  # a personal machine
            "pypi" + r"\.org",
            "python" + "hosted",
            "--(?:extra-)?" + "index-url",
        ]
    )
)


def test_no_file_names_a_machine_or_a_registry() -> None:
    texts = (".py", ".sql", ".yml", ".md", ".txt", ".in", ".toml", ".sh", ".json", ".svg", "")
    found = [
        f"{named(path)}:{number}"
        for path in tracked(*texts)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


# --- what the streamer needs

ENTRY_POINTS = ("cli.__main__", "streamer.app")
"""`python -m cli stream`: the command line as it starts, and what that command imports."""


def locked(lock: Path) -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==(\S+)", lock.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.exists()), None)


def imports_of(path: Path, *, lazy: bool) -> Iterator[str]:
    """Modules that a file imports; those inside of functions only if ``lazy``."""
    pending: list[ast.AST] = [tree_of(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def reachable_imports() -> dict[str, str]:
    """Names of foreign packages that the streamer imports, each with a file that does."""
    foreign: dict[str, str] = {}
    pending, seen = list(ENTRY_POINTS), set()
    while pending:
        module = pending.pop()
        path = path_of(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        # Functions of the command line are the other commands' business.
        lazy = not named(path).startswith("cli/")
        for name in imports_of(path, lazy=lazy):
            top = name.partition(".")[0]
            if top in ROOMS:
                pending.append(name)
            elif top not in sys.stdlib_module_names:
                foreign.setdefault(top, named(path))
    assert "streamer.storage.writer" in seen
    assert "include.store.candles.live" in seen
    return foreign


def test_streamer_imports_only_packages_of_its_lock() -> None:
    lock = locked(ROOT / "streamer" / "requirements.txt")
    distributions = packages_distributions()
    missing = {
        name: file
        for name, file in reachable_imports().items()
        if not {re.sub(r"[-_.]+", "-", one).lower() for one in distributions[name]} & lock.keys()
    }
    assert missing == {}


def test_streamer_lock_has_the_versions_of_the_project() -> None:
    whole = locked(ROOT / "requirements.txt")
    own = locked(ROOT / "streamer" / "requirements.txt")
    assert own
    assert {name: whole.get(name) for name in own} == own
