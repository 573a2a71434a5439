"""docker-compose.yml: least privilege, secrets, logins, health checks, and programs that exist."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from cli.app import app
from deploy.docker import airflow as airflow_container
from deploy.docker import health
from deploy.local.airflow import COMMANDS
from include.config import Settings
from include.store.migrate import ROLES
from simulator.cli import parse_config
from tests.unit.deploy.container_files import (
    COMPOSE,
    LONG_RUNNING,
    MAKE_ENV,
    NATS_CONF,
    ONE_SHOTS,
    OWN_POSTGRES,
    ROOT,
    SIMULATOR_ENV,
    MissingVariableError,
    image_environment,
    interpolate,
    load_compose,
    made_env,
    read_dockerfile,
    read_env,
    services,
    stack,
    target_of,
    variables_of,
)

THIRD_PARTY = {"postgres", "nats"}
"""Services whose images are not built here."""


def cli_commands() -> set[str]:
    return {
        command.name or (command.callback.__name__ if command.callback else "")
        for command in app.registered_commands
    }


def database_url_variables() -> list[str]:
    return [name for name in variables_of(COMPOSE.read_text()) if name.endswith("DATABASE_URL")]


# --- privileges


@pytest.mark.parametrize("name", services())
def test_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ("cap_add" in service) == (name == "postgres")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_long_running_services_are_watched_restarted_and_bounded() -> None:
    assert services().keys() == ONE_SHOTS | LONG_RUNNING
    for name in LONG_RUNNING:
        service = services()[name]
        assert service["restart"] == "unless-stopped"
        assert service.keys() >= {"healthcheck", "stop_grace_period", "deploy"}
        assert name == "postgres" or service["init"] is True
    assert {services()[name]["restart"] for name in ONE_SHOTS} == {"no"}


def test_folders_that_containers_write_are_volumes_or_memory() -> None:
    """Root file systems are read-only, so every written folder needs a mount."""
    home = image_environment(read_dockerfile()[1], "platform")["CANDELABRA_HOME"]
    named = set()
    for name, service in services().items():
        volumes = [one.split(":") for one in service.get("volumes", [])]
        mounts = [target for _, target, *_ in volumes]
        mounts += [one.split(":")[0] for one in service.get("tmpfs", [])]
        for source, _, *mode in volumes:
            if source.startswith("."):
                assert (ROOT / source).is_dir()
                assert mode == ["ro"]
            else:
                named.add(source)
        assert "/tmp" in mounts or name == "migrate"  # noqa: S108
        assert home in mounts or not name.startswith(("cli", "airflow"))
        if name.startswith("airflow"):
            environment = service["environment"]
            assert environment["AIRFLOW_HOME"] in mounts
            logs = [value for key, value in environment.items() if key.startswith("AIRFLOW__LOG")]
            assert len(logs) == 2
            assert all(any(path.startswith(one) for one in mounts) for path in logs)
    assert named == stack()["volumes"].keys()
    # PostgreSQL 18 moved its data folder; the old mount /var/lib/postgresql/data would stay empty.
    assert "postgres:/var/lib/postgresql" in services()["postgres"]["volumes"]


# --- secrets and logins


def test_every_secret_is_required_and_generated() -> None:
    kinds = variables_of(COMPOSE.read_text())
    assert made_env().keys() == {name for name, kind in kinds.items() if ":?" in kind}
    secret = {name for name in kinds if re.search(r"PASSWORD|SECRET|_KEY$", name)}
    assert all(kinds[name] == {":?"} for name in secret)
    for name in made_env():
        with pytest.raises(MissingVariableError, match=f"{name}: sh deploy/docker/make-env.sh"):
            load_compose({key: value for key, value in made_env().items() if key != name})
    for file in (COMPOSE, SIMULATOR_ENV, OWN_POSTGRES, NATS_CONF):
        assert not re.search(
            r"(?i)(password|secret|_key)['\"]?\s*[:=]\s*['\"]?[\w]", file.read_text()
        )


def test_generated_secrets_are_unique_and_valid() -> None:
    from cryptography.fernet import Fernet

    first = {name: value for name, value in made_env().items() if name != "SYMBOLS"}
    assert len(set(first.values())) == len(first)
    made_env.cache_clear()
    assert not set(first.values()) & {v for n, v in made_env().items() if n != "SYMBOLS"}
    stack.cache_clear()
    for name, value in made_env().items():
        if name.endswith("PASSWORD"):
            assert re.fullmatch(r"[0-9a-f]{64}", value)  # needs no quoting in a URL
    Fernet(made_env()["AIRFLOW_FERNET_KEY"])
    # RFC 7518, 3.2: a key is at least as long as the hash, here SHA-512.
    assert len(made_env()["AIRFLOW_JWT_SECRET"]) >= 64


def test_login_of_nats_is_generated_with_its_address(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    subprocess.run(["sh", MAKE_ENV, file], check=True, capture_output=True, timeout=60)
    password = read_env(file)["NATS_PASSWORD"]
    lines = file.read_text().splitlines()
    assert f"#NATS_URL=nats://candelabra:{password}@nats:4222" in lines
    assert "#COMPOSE_PROFILES=nats" in lines


def test_make_env_does_not_overwrite_a_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SYMBOLS=MINE\n")
    done = subprocess.run(
        ["sh", MAKE_ENV, file], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"{file} exists" in done.stderr
    assert file.read_text() == "SYMBOLS=MINE\n"


def test_each_service_gets_only_the_logins_of_its_own_roles() -> None:
    logins = {
        name: {
            variable: urlsplit(value).username
            for variable, value in service.get("environment", {}).items()
            if variable.endswith("DATABASE_URL")
        }
        for name, service in services().items()
    }
    reader = {"READER_DATABASE_URL": "candelabra_reader"}
    serving = {
        "SERVING_DATABASE_URL": "candelabra_serving",
        "ACCOUNTS_DATABASE_URL": "candelabra_accounts",
    }
    streamer = {"STREAMER_DATABASE_URL": "candelabra_streamer", **serving}
    jobs = {
        "JOBS_DATABASE_URL": "candelabra_jobs",
        "DBT_DATABASE_URL": "candelabra_dbt",
        **reader,
    }
    airflow = {"AIRFLOW_DATABASE_URL": "airflow", **jobs}
    assert logins == {
        "postgres": {},
        "nats": {},
        "simulator": {},
        "migrate": {"DATABASE_URL": "candelabra", **streamer, **jobs},
        "streamer": streamer,
        "server": serving,
        "cli": jobs,
        **{f"airflow-{name}": airflow for name in ("init", *COMMANDS)},
    }
    assert set(logins["migrate"].values()) == {"candelabra", *ROLES}
    assert "POSTGRES_PASSWORD" not in str({n: s for n, s in services().items() if n != "postgres"})


# --- settings

SET_BY_COMPOSE = {"candelabra_home", "log_format", "streamer_http"} | {
    f"{server}_{part}" for server in ("streamer_http", "api", "grpc") for part in ("host", "port")
}
"""Settings with a fixed value inside a container, besides the database URLs."""
SERVERS = ("STREAMER_HTTP", "API", "GRPC")


@pytest.mark.parametrize("name", ["streamer", "airflow-scheduler", "cli"])
def test_every_setting_can_be_passed_to_a_container(name: str) -> None:
    fields = {
        one.upper()
        for one in Settings.model_fields
        if one not in SET_BY_COMPOSE and not one.endswith("database_url")
    }
    filled = load_compose({**made_env(), **dict.fromkeys(fields, "given")})
    environment = filled["services"][name]["environment"]
    assert {one for one in fields if environment.get(one) != "given"} == set()


@functools.cache
def airflow_settings() -> frozenset[str]:
    """Return AIRFLOW__SECTION__KEY for every setting in Airflow's reference."""
    found = importlib.util.find_spec("airflow")
    assert found is not None
    assert found.origin is not None
    reference = Path(found.origin).parent / "config_templates" / "config.yml"
    return frozenset(
        f"AIRFLOW__{section.upper()}__{key.upper()}"
        for section, about in yaml.safe_load(reference.read_text()).items()
        for key in about["options"]
    )


def test_every_variable_of_a_container_has_a_reader() -> None:
    ours = {name.upper() for name in Settings.model_fields}
    ours |= {*airflow_container.SECRETS.values(), *airflow_container.ADDRESSES, "AIRFLOW_HOME"}
    init = (ROOT / "deploy" / "docker" / "postgres" / "10-databases.sh").read_text()
    postgres = {"POSTGRES_PASSWORD", *re.findall(r"\\getenv \w+ ([A-Z_]+)", init)}
    others = {"postgres": postgres, "nats": set(re.findall(r"\$(\w+)", NATS_CONF.read_text()))}
    for name, service in services().items():
        known = others.get(name, ours | {"NO_PROXY", "no_proxy"})
        given = service.get("environment", {}).keys()
        assert sorted(given - known - airflow_settings()) == [], name


def test_streamer_listens_on_its_published_ports() -> None:
    streamer = services()["streamer"]
    given = streamer["environment"]
    names = [f"{server}_{part}" for server in SERVERS for part in ("HOST", "PORT")]
    settings = Settings(**{name.lower(): given[name] for name in names})
    inside = [int(port.rpartition(":")[2]) for port in streamer["ports"]]
    assert inside == [settings.streamer_http_port, settings.api_port, settings.grpc_port]
    assert {settings.streamer_http_host, settings.api_host, settings.grpc_host} == {"0.0.0.0"}


# --- programs and health


def test_every_service_runs_a_program_that_exists() -> None:
    _, stages = read_dockerfile()
    components = []
    for name, service in services().items():
        if name in THIRD_PARTY:
            continue
        entry = service.get("entrypoint") or stages[target_of(service)].form("ENTRYPOINT")
        program, command = " ".join(entry), service["command"]
        if program == "python -m cli":
            assert command[0] in cli_commands() | {"--help"}, name
        elif program == "python -m deploy.docker.airflow":
            components.append(command[0])
        else:
            assert program == "python -m simulator", name
            parse_config(command)
    assert sorted(components) == sorted([*COMMANDS, "init"])


def test_every_health_check_exists() -> None:
    parts = set()
    for name in LONG_RUNNING - THIRD_PARTY:
        runner, *program = services()[name]["healthcheck"]["test"]
        assert [runner, *program[:3]] == ["CMD", "python", "-m", "deploy.docker.health"]
        check, *arguments = program[3:]
        assert len(arguments) == health.CHECKS[check][1], name
        if check == "airflow":
            parts.add(arguments[0])
    assert parts == set(health.AIRFLOW_COMPONENTS)
    said = read_dockerfile()[1]["streamer"].of("HEALTHCHECK")[0]
    assert ["CMD", *yaml.safe_load(said.partition(" CMD ")[2])] == services()["streamer"][
        "healthcheck"
    ]["test"]


def test_each_of_our_images_is_built_once_and_never_pulled() -> None:
    ours = [one for one in services().values() if one["image"].startswith("candelabra")]
    builders = [one["image"] for one in ours if "build" in one]
    assert sorted(builders) == sorted({one["image"] for one in ours})
    assert all(one.get("pull_policy") == "never" for one in ours if "build" not in one)


def test_init_script_of_postgres_reads_a_file_that_is_mounted() -> None:
    (script,) = (ROOT / "deploy" / "docker" / "postgres").iterdir()
    used = re.search(r'--file "\$\{ADMINISTRATOR_SQL:-(\S+)\}"', script.read_text())
    assert used is not None
    folder, name = used[1].rsplit("/", 1)
    mounts = [one.split(":") for one in load_compose(made_env())["services"]["postgres"]["volumes"]]
    (source,) = [source for source, target, *_ in mounts if target == folder]
    assert (ROOT / source / name).is_file()


def test_services_start_after_what_they_need() -> None:
    def before(name: str) -> set[str]:
        direct = services()[name].get("depends_on", {}).keys()
        return {*direct, *(two for one in direct for two in before(one))}

    for name, service in services().items():
        assert name not in before(name)
        for needed, about in service.get("depends_on", {}).items():
            ends = about["condition"] == "service_completed_successfully"
            assert needed in (ONE_SHOTS if ends else LONG_RUNNING)
            assert "profiles" not in services()[needed]  # it might not run
    airflow = {"postgres", "migrate", "airflow-init"}
    # Tasks report their end to the API server, so the scheduler stops first.
    also = {"scheduler": {"airflow-api-server"}}
    for process in COMMANDS:
        assert before(f"airflow-{process}") == airflow | also.get(process, set())
    assert before("streamer") == before("cli") == before("server") == {"postgres", "migrate"}


# --- the simulator and a PostgreSQL of the user's


def test_simulated_stack_uses_the_simulators_addresses_and_symbols() -> None:
    simulator, env = services()["simulator"], read_env(SIMULATOR_ENV)
    config, _ = parse_config(simulator["command"])
    assert {int(port.rpartition(":")[2]) for port in simulator["ports"]} == {
        config.http_port,
        config.spot_ws_port,
        config.um_ws_port,
        config.cm_ws_port,
    }
    assert urlsplit(simulator["healthcheck"]["test"][-1]).port == config.http_port
    http, spot, um, cm = (
        f"{scheme}://simulator:{port}"
        for scheme, port in (
            ("http", config.http_port),
            ("ws", config.spot_ws_port),
            ("ws", config.um_ws_port),
            ("ws", config.cm_ws_port),
        )
    )
    urls = {name for name in map(str.upper, Settings.model_fields) if name.startswith("BINANCE_")}
    assert {name: env[name] for name in urls if name.endswith("_URL")} == {
        "BINANCE_WS_URL": spot,
        "BINANCE_UM_WS_URL": um,
        "BINANCE_CM_WS_URL": cm,
        **dict.fromkeys(
            (
                "BINANCE_REST_URL",
                "BINANCE_UM_REST_URL",
                "BINANCE_CM_REST_URL",
                "BINANCE_DUMP_URL",
                "BINANCE_DUMP_LIST_URL",
            ),
            http,
        ),
    }
    listed = {
        *config.spot_symbols,
        *(f"{name}.P" for name in config.um_symbols),
        *config.cm_symbols,
    }
    assert set(env["SYMBOLS"].split(",")) <= listed


def test_simulated_stack_shares_no_port_project_or_database_with_the_real_one() -> None:
    env = read_env(SIMULATOR_ENV)
    assert env["COMPOSE_PROFILES"] in services()["simulator"]["profiles"]
    assert env["COMPOSE_PROJECT_NAME"] != stack()["name"]
    own = dict.fromkeys(database_url_variables(), "postgresql://mine@db.example:5432/x")
    simulated = load_compose({**made_env(), **own, **env})
    assert "db.example" not in str(simulated)
    assert env["COMPOSE_FILE"] == COMPOSE.name

    def ports(of: Mapping[str, Mapping[str, list[str]]]) -> set[str]:
        names = ("postgres", "airflow-api-server", "streamer")
        return {port.split(":")[1] for name in names for port in of[name]["ports"]}

    assert not ports(services()) & ports(simulated["services"])


def test_own_postgres_replaces_the_container() -> None:
    override = yaml.safe_load(OWN_POSTGRES.read_text())
    assert override == {"services": {"postgres": {"profiles": ["unused"]}}}
    own = {
        name: f"postgresql://{name.lower()}@db.example:5432/x" for name in database_url_variables()
    }
    for service in load_compose({**made_env(), **own})["services"].values():
        about = service.get("depends_on", {}).get("postgres", {"required": False})
        assert about["required"] is False
        for name, value in service.get("environment", {}).items():
            assert value == own.get(name, value)


# --- Compose and the documentation


def test_interpolation_follows_compose() -> None:
    given = {"A": "1", "EMPTY": ""}
    assert interpolate("x ${A:-no} ${B:-two} ${EMPTY:-three}", given) == "x 1 two three"
    assert interpolate("${B:-u:${A:?needed}@h}/d", given) == "u:1@h/d"
    assert interpolate("${A:-u:${C:?needed}@h}", given) == "1"
    with pytest.raises(MissingVariableError, match="C: needed"):
        interpolate("${B:-${C:?needed}}", given)
    with pytest.raises(ValueError, match="neither"):
        interpolate("${A}", given)


def test_compose_accepts_the_files_where_it_is_installed(tmp_path: Path) -> None:
    program = shutil.which("docker-compose")
    command = [program] if program else ["docker", "compose"]
    try:
        subprocess.run([*command, "version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("neither docker-compose nor the Compose plugin is installed")
    env = tmp_path / ".env"
    env.write_text("".join(f"{name}={value}\n" for name, value in made_env().items()))
    base = [*command, "--project-directory", ROOT, "-f", COMPOSE, "--env-file", env]
    plain = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}

    def config(*more: str | Path) -> str:
        done = subprocess.run(
            [*base, *more], env=plain, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    theirs = yaml.safe_load(config("--profile", "*", "config"))
    assert theirs["services"].keys() == services().keys()
    for name, service in services().items():
        assert theirs["services"][name].get("environment", {}) == service.get("environment", {})
    simulated = yaml.safe_load(config("--env-file", SIMULATOR_ENV, "config"))
    assert "simulator" in simulated["services"]
    assert "postgres" not in config("-f", OWN_POSTGRES, "config", "--services").split()


def test_deployment_page_names_every_variable_service_and_volume() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    names = variables_of(COMPOSE.read_text()).keys() - {
        one.upper() for one in Settings.model_fields
    }
    assert [
        name for name in (*names, *services(), *stack()["volumes"]) if f"`{name}`" not in page
    ] == []


def test_commands_of_the_deployment_page_exist() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text().replace("\\\n", " ")
    words = [line.split("#")[0].split() for line in re.findall(r"docker compose [^`\n]+", page)]
    after = {"exec": {"-T"}, "run": {"--rm"}, "logs": {"-f"}}
    called = 0
    for line in words:
        for verb in after.keys() & set(line):
            rest = [word for word in line[line.index(verb) + 1 :] if word not in after[verb]]
            if "-v" in rest:
                rest = rest[rest.index("-v") + 2 :]
            assert rest[0] in services(), line
            if rest[0] == "cli" and rest[1] != "…":
                assert rest[1] in cli_commands(), line
            called += 1
        files = [line[i + 1] for i, word in enumerate(line) if word in {"--env-file", "-f"}]
        assert all((ROOT / file).exists() or file in {".env", "streamer"} for file in files), line
    assert called >= 8


def test_example_of_two_streamers_extends_the_service_and_shares_no_symbol() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    (example,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S))
    second = example["services"]["streamer-2"]
    assert second["extends"] == {"file": COMPOSE.name, "service": "streamer"}
    shares = [set(one["environment"]["SYMBOLS"].split(",")) for one in example["services"].values()]
    assert set.intersection(*shares) == set()
