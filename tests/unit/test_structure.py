"""The shape of the code: what has a test, what no file may do, what the streamer may need."""

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
ROOMS = ("include", "streamer", "simulator", "deploy", "dags")
MOST_LINES = 400

TRIVIAL_LINES = 30
"""A module of fewer lines that do something is tested through those that use it."""

BY_A_WHOLE_STREAMER = "tests/integration/streamer/test_streamer.py runs it on real sockets"
BY_A_WHOLE_SIMULATOR = "tests/integration/simulator/ asks a running one by HTTP and WebSocket"
FAULTS_ON_SOCKETS = "tests/integration/simulator/faults/ sees their effects as a client"
EVERY_STREAM = "stream by stream in tests/unit/simulator/streams/test_catalogue.py"
THE_MARKETS_INSIDE = "against a plain fold: tests/unit/simulator/market/test_market.py"
BY_A_BACKFILL = "tests/integration/jobs/ backfills and repairs with it, also where that goes wrong"
BY_TRADE_DUMPS = "files are planned, fetched and kept in tests/integration/jobs/test_trade_dumps.py"

TESTED_ELSEWHERE = {
    "include/binance/archives.py": BY_A_BACKFILL,
    "include/binance/columns.py": BY_A_BACKFILL,
    "include/binance/dumps.py": BY_A_BACKFILL,
    "include/binance/kline_files.py": BY_A_BACKFILL,
    "include/binance/klines.py": "pages of them: tests/unit/binance/test_rest.py",
    "include/cli/archive.py": "calls the jobs of tests/integration/jobs/test_archive.py",
    "include/cli/backup.py": "calls the jobs of tests/integration/jobs/test_backup.py",
    "include/store/restoring.py": "restores in tests/integration/jobs/test_backup.py",
    "include/cli/backfill.py": "typed as a person would in tests/integration/jobs/test_commands.py",
    "include/cli/import_files.py": "typed as a person would, in the same file",
    "include/cli/demo.py": "run as a whole by `make demo ONCE=1`, whose exit code is its verdict",
    "streamer/capture/resumption.py": "beside a table: tests/integration/streamer/capture/",
    "streamer/line.py": "on sockets: tests/unit/streamer/test_connection.py",
    "streamer/observed.py": "read by tests/unit/streamer/test_metrics.py and test_health.py",
    "streamer/minutes.py": "what the aggregator knows: tests/unit/streamer/test_aggregation.py",
    "include/cli/compare.py": "typed as a person would in tests/integration/jobs/",
    "include/cli/trade_dumps.py": "typed as a person would in tests/integration/jobs/",
    "include/jobs/dump_files.py": BY_TRADE_DUMPS,
    "include/jobs/dump_loading.py": BY_A_BACKFILL,
    "include/jobs/file_edges.py": BY_TRADE_DUMPS,
    "include/jobs/trade_planning.py": BY_TRADE_DUMPS,
    "include/store/raw_frames.py": BY_TRADE_DUMPS,
    "include/jobs/exchange.py": BY_A_BACKFILL,
    "include/jobs/instruments.py": BY_A_BACKFILL,
    "include/jobs/inbox_folder.py": "with what is loaded: tests/integration/jobs/test_inbox.py",
    "include/jobs/minutes.py": BY_A_BACKFILL,
    "include/jobs/pieces.py": BY_A_BACKFILL,
    "include/jobs/planning.py": BY_A_BACKFILL,
    "include/jobs/repair.py": BY_A_BACKFILL,
    "include/quality/expectation.py": "every check runs through it: tests/integration/quality/",
    "simulator/broken_answers.py": "in tests/integration/simulator/rest/test_faults.py",
    "simulator/cli.py": "tests/integration/simulator/test_process.py",
    "simulator/control.py": BY_A_WHOLE_SIMULATOR,
    "simulator/faults/connections.py": FAULTS_ON_SOCKETS,
    "simulator/faults/engine.py": FAULTS_ON_SOCKETS,
    "simulator/faults/kinds.py": "a table, read by tests/unit/simulator/faults/test_plan.py",
    "simulator/faults/market.py": FAULTS_ON_SOCKETS,
    "simulator/faults/routes.py": FAULTS_ON_SOCKETS,
    "simulator/faults/startup.py": "tests/integration/simulator/faults/test_startup.py",
    "simulator/faults/switchboards.py": FAULTS_ON_SOCKETS,
    "simulator/market/pauses.py": "pages over halts: tests/unit/simulator/market/test_sessions.py",
    "simulator/streams/book_feeds.py": EVERY_STREAM,
    "simulator/streams/derivative_feeds.py": EVERY_STREAM,
    "simulator/streams/feeds.py": BY_A_WHOLE_SIMULATOR,
    "simulator/streams/ticker_feeds.py": EVERY_STREAM,
    "simulator/wire/frames.py": BY_A_WHOLE_SIMULATOR,
    "simulator/listeners.py": "its cuts: tests/integration/simulator/rest/test_faults.py",
    "simulator/market/history.py": THE_MARKETS_INSIDE,
    "simulator/market/klines.py": THE_MARKETS_INSIDE,
    "simulator/rest/books.py": "with the tickers: tests/integration/simulator/rest/test_tickers.py",
    "simulator/rest/endpoints.py": BY_A_WHOLE_SIMULATOR,
    "simulator/rest/parameters.py": BY_A_WHOLE_SIMULATOR,
    "simulator/server.py": BY_A_WHOLE_SIMULATOR,
    "simulator/market/tape.py": THE_MARKETS_INSIDE,
    "simulator/replay/venue.py": "asked by tests/integration/simulator/replay/test_player.py",
    "simulator/rest/venue.py": BY_A_WHOLE_SIMULATOR,
    "simulator/streams/ws.py": BY_A_WHOLE_SIMULATOR,
    "streamer/app.py": BY_A_WHOLE_STREAMER,
}
"""Modules without a test file of their name, and why."""

LONGER = {
    "include/store/migrations/sql/0001/60_merge.sql": "one SQL function, whose steps share state",
}
"""Files over the limit, and why."""

SKIPPED_FOLDERS = {"__pycache__", "target", "logs", "dbt_packages", "node_modules"}


def tracked(*suffixes: str) -> list[Path]:
    """Files of the project with these suffixes; hidden folders and what tools make left out."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS
        ]
        found += [
            path
            for name in files
            if (path := Path(folder) / name).suffix in suffixes or not suffixes
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


def lines_of_code(path: Path) -> int:
    """Lines that are neither empty nor a comment."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return sum(1 for line in lines if line and not line.startswith("#"))


def has_test_of_its_name(module: Path) -> bool:
    """Whether tests/**/<room>/test_<module>.py exists, in any of the kinds of tests."""
    room = module.relative_to(ROOT).parts[-2]
    folders = {"local": "deploy"}
    wanted = f"{folders.get(room, room)}/test_{module.stem}.py"
    return any((ROOT / "tests").glob(f"*/**/{wanted}"))


def needs_a_test(module: Path) -> bool:
    parts = module.relative_to(ROOT).parts
    return (
        parts[0] in {"include", "streamer", "simulator"}
        and "migrations" not in parts
        and not module.stem.startswith("__")
        and lines_of_code(module) > TRIVIAL_LINES
    )


def test_every_module_has_a_test_file_of_its_name_or_a_reason() -> None:
    """``tests/*/<room>/test_<module>.py``, or a line in ``TESTED_ELSEWHERE``."""
    without = {named(path) for path in modules() if needs_a_test(path)} - {
        named(path) for path in modules() if has_test_of_its_name(path)
    }
    assert sorted(without - TESTED_ELSEWHERE.keys()) == [], "these need a test file or a reason"


def test_reasons_are_about_files_that_exist() -> None:
    assert [name for name in [*TESTED_ELSEWHERE, *LONGER] if not (ROOT / name).exists()] == []


# --- what no file does


def test_every_file_fits_in_the_head_or_has_a_reason() -> None:
    longer = {
        named(path)
        for path in tracked(".py", ".sql")
        if len(path.read_text().splitlines()) > MOST_LINES
    }
    assert sorted(longer - LONGER.keys()) == []


def test_no_module_is_a_drawer_for_everything() -> None:
    drawers = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"}
    assert [named(path) for path in tracked(".py") if path.stem in drawers] == []


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
    """What a sum or a formatted string is made of."""
    if isinstance(node, ast.BinOp):
        return [*parts_of(node.left), *parts_of(node.right)]
    if isinstance(node, ast.JoinedStr):
        return [one.value if isinstance(one, ast.FormattedValue) else one for one in node.values]
    return [node]


def test_statements_are_found_however_they_are_assembled() -> None:
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


def swallowing(tree: ast.Module) -> Iterator[int]:
    """Lines on which any error is caught and the program goes on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and catches_everything(node):
            if not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            names = {ast.unparse(argument) for argument in node.args}
            if names & {"Exception", "BaseException"}:
                yield node.lineno


def test_swallowed_errors_are_found() -> None:
    bad = ["except:\n  pass", "except Exception:\n  pass", "except (OSError, Exception):\n  x = 1"]
    good = ["except OSError:\n  pass", "except BaseException:\n  close()\n  raise"]
    assert all(list(swallowing(ast.parse(f"try:\n  f()\n{handler}"))) for handler in bad)
    assert not any(list(swallowing(ast.parse(f"try:\n  f()\n{handler}"))) for handler in good)
    assert list(swallowing(ast.parse("with contextlib.suppress(Exception):\n  f()")))


def test_no_error_is_swallowed_whatever_it_is() -> None:
    assert found_in(tracked(".py"), swallowing) == []


# Put together here, so that this file is not its own finding.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.}*])/(?:work|home|Users|root)/\w",  # somebody's machine
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

ENTRY_POINTS = ("include.cli.__main__", "streamer.app")
"""`python -m include.cli stream`: the command line as it starts, and what that command imports."""


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
        lazy = not named(path).startswith("include/cli/")
        for name in imports_of(path, lazy=lazy):
            top = name.partition(".")[0]
            if top in ROOMS:
                pending.append(name)
            elif top not in sys.stdlib_module_names:
                foreign.setdefault(top, named(path))
    assert "streamer.writer" in seen
    assert "include.store.live" in seen
    return foreign


def test_the_streamer_imports_only_what_its_own_lock_has() -> None:
    lock = locked(ROOT / "streamer" / "requirements.txt")
    distributions = packages_distributions()
    missing = {
        name: file
        for name, file in reachable_imports().items()
        if not {re.sub(r"[-_.]+", "-", one).lower() for one in distributions[name]} & lock.keys()
    }
    assert missing == {}


def test_the_streamers_lock_has_the_versions_of_the_whole_project() -> None:
    whole = locked(ROOT / "requirements.txt")
    own = locked(ROOT / "streamer" / "requirements.txt")
    assert own
    assert {name: whole.get(name) for name in own} == own
