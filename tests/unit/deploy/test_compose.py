"""docker-compose.yml: all that it names exists in the project, and containers live by rules."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
import yaml

from cli.app import app
from deploy.docker import health
from deploy.local.airflow import COMMANDS
from include.config import Settings
from simulator.cli import parse_config
from tests.unit.deploy.container_files import (
    COMPOSE,
    LONG_RUNNING,
    ONE_SHOTS,
    OWN_POSTGRES,
    ROOT,
    SIMULATOR_ENV,
    image_environment,
    load_compose,
    made_env,
    read_dockerfile,
    read_env,
    services,
    stack,
    target_of,
    variables_of,
)

# --- what containers run


def commands_of_the_cli() -> set[str]:
    return {
        command.name or (command.callback.__name__ if command.callback else "")
        for command in app.registered_commands
    }


OF_OTHERS = {"postgres", "nats"}
"""Services whose image is not ours."""


def test_every_service_runs_a_program_that_exists() -> None:
    _, stages = read_dockerfile()
    for name, service in services().items():
        if name in OF_OTHERS:
            continue
        entry = service.get("entrypoint") or stages[target_of(service)].form("ENTRYPOINT")
        program, command = " ".join(entry), service["command"]
        if program == "python -m cli":
            assert command[0] in commands_of_the_cli() | {"--help"}, name
        elif program == "python -m deploy.docker.airflow":
            assert command[0] in {*COMMANDS, "init"}, name
        else:
            assert program == "python -m simulator", name
            parse_config(command)


def test_all_of_airflows_processes_are_there_once() -> None:
    entry = ["python", "-m", "deploy.docker.airflow"]
    run = [one["command"][0] for one in services().values() if one.get("entrypoint") == entry]
    assert sorted(run) == sorted([*COMMANDS, "init"])


def test_health_checks_are_checks_that_exist() -> None:
    parts = set()
    for name in LONG_RUNNING - OF_OTHERS:
        runner, *program = services()[name]["healthcheck"]["test"]
        assert [runner, *program[:3]] == ["CMD", "python", "-m", "deploy.docker.health"]
        check, *arguments = program[3:]
        assert len(arguments) == health.CHECKS[check][1], name
        if check == "airflow":
            parts.add(arguments[0])
    assert parts == set(health.AIRFLOW_PARTS)


def test_the_streamers_image_and_service_check_the_same() -> None:
    _, stages = read_dockerfile()
    said = stages["streamer"].of("HEALTHCHECK")[0]
    _, *program = services()["streamer"]["healthcheck"]["test"]
    assert yaml.safe_load(said.partition(" CMD ")[2]) == program


def test_each_image_of_ours_is_built_by_one_service_and_pulled_by_none() -> None:
    ours = [one for one in services().values() if one["image"].startswith("candelabra")]
    builders = [one["image"] for one in ours if "build" in one]
    assert sorted(builders) == sorted({one["image"] for one in ours})
    assert all(one.get("pull_policy") == "never" for one in ours if "build" not in one)


def test_builds_and_mounts_name_what_exists() -> None:
    _, stages = read_dockerfile()
    named = set()
    for service in services().values():
        if build := service.get("build"):
            assert (ROOT / build["dockerfile"]).is_file()
            assert build["target"] in stages
        for volume in service.get("volumes", []):
            source, _, *mode = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).is_dir()
                assert mode == ["ro"]
            else:
                named.add(source)
    assert named == stack()["volumes"].keys()


def test_what_containers_write_lies_in_volumes_or_memory() -> None:
    """Their root is read-only: each folder that is written must be mounted."""
    home = image_environment(read_dockerfile()[1], "platform")["CANDELABRA_HOME"]
    for name, service in services().items():
        mounts = [one.split(":")[1] for one in service.get("volumes", [])]
        mounts += [one.split(":")[0] for one in service.get("tmpfs", [])]
        if name not in {"migrate"}:
            assert "/tmp" in mounts, name  # noqa: S108
        if name == "cli" or name.startswith("airflow"):
            assert home in mounts, name
        if name.startswith("airflow"):
            environment = service["environment"]
            assert environment["AIRFLOW_HOME"] in mounts
            written = [
                value for key, value in environment.items() if key.startswith("AIRFLOW__LOG")
            ]
            assert len(written) == 2
            assert all(any(path.startswith(one) for one in mounts) for path in written)


def test_postgres_18_keeps_its_cluster_in_the_volume() -> None:
    service = services()["postgres"]
    assert re.fullmatch(r"postgres:18(\.\d+)?-bookworm", service["image"])
    # Of 17 and before it was /var/lib/postgresql/data; there, 18 would keep nothing.
    assert "postgres:/var/lib/postgresql" in service["volumes"]
    assert service["command"][0] == "postgres"
    assert not service["environment"].keys() & {"PGDATA", "POSTGRES_USER", "POSTGRES_DB"}


# --- how they live


@pytest.mark.parametrize("name", services())
def test_a_container_has_no_more_rights_than_it_needs(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ("cap_add" in service) == (name == "postgres")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_what_runs_for_long_is_watched_restarted_bounded_and_given_time_to_stop(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    assert service.keys() >= {"healthcheck", "stop_grace_period", "deploy"}
    if name != "postgres":
        assert service["init"] is True


@pytest.mark.parametrize("name", sorted(ONE_SHOTS))
def test_what_runs_once_is_not_restarted(name: str) -> None:
    assert services()[name]["restart"] == "no"
    assert "healthcheck" not in services()[name]


def test_services_wait_for_what_they_need() -> None:
    def before(name: str) -> set[str]:
        direct = services()[name].get("depends_on", {}).keys()
        return {*direct, *(two for one in direct for two in before(one))}

    for name, service in services().items():
        assert name not in before(name)
        for needed, about in service.get("depends_on", {}).items():
            ends = about["condition"] == "service_completed_successfully"
            assert needed in (ONE_SHOTS if ends else LONG_RUNNING)
            # A service of a profile may not be there.
            assert "profiles" not in services()[needed]
    airflow = {"postgres", "migrate", "airflow-init"}
    # The scheduler is stopped before the API server, which its tasks tell how they ended.
    also = {"scheduler": {"airflow-api-server"}}
    for process in COMMANDS:
        assert before(f"airflow-{process}") == airflow | also.get(process, set())
    assert before("streamer") == before("cli") == before("server") == {"postgres", "migrate"}


# --- the simulator, and a PostgreSQL of one's own


def test_the_simulators_addresses_are_those_it_listens_on() -> None:
    simulator = services()["simulator"]
    config, _ = parse_config(simulator["command"])
    ports = {config.http_port, config.spot_ws_port, config.um_ws_port}
    assert {int(port.rpartition(":")[2]) for port in simulator["ports"]} == ports
    assert config.host == "0.0.0.0"
    *_, url = simulator["healthcheck"]["test"]
    assert urlsplit(url).port == config.http_port
    env = read_env(SIMULATOR_ENV)
    urls = {
        name: urlsplit(value)
        for name, value in env.items()
        if re.fullmatch(r"BINANCE_\w+_URL", name)
    }
    assert {(url.hostname, url.scheme) for url in urls.values()} == {
        ("simulator", "http"),
        ("simulator", "ws"),
    }
    assert {name: url.port for name, url in urls.items()} == {
        "BINANCE_WS_URL": config.spot_ws_port,
        "BINANCE_UM_WS_URL": config.um_ws_port,
        "BINANCE_REST_URL": config.http_port,
        "BINANCE_UM_REST_URL": config.http_port,
        "BINANCE_DUMP_URL": config.http_port,
        "BINANCE_DUMP_LIST_URL": config.http_port,
    }
    assert urls.keys() == {
        one.upper() for one in Settings.model_fields if re.fullmatch(r"binance_\w+_url", one)
    }


def test_the_simulated_stack_lists_what_it_streams_and_lies_beside_the_real_one() -> None:
    env = read_env(SIMULATOR_ENV)
    config, _ = parse_config(services()["simulator"]["command"])
    listed = {*config.spot_symbols, *(f"{name}.P" for name in config.um_symbols)}
    assert set(env["SYMBOLS"].split(",")) <= listed
    assert env["COMPOSE_PROFILES"] in services()["simulator"]["profiles"]
    assert env["COMPOSE_PROJECT_NAME"] != stack()["name"]
    known = variables_of(COMPOSE.read_text()).keys()
    assert {name for name in env if not name.startswith("COMPOSE_")} <= known
    simulated = load_compose({**made_env(), **env})["services"]
    own_ports = {
        port.split(":")[1]
        for services_of in (services(), simulated)
        for name in ("postgres", "airflow-api-server", "streamer")
        for port in services_of[name]["ports"]
    }
    assert len(own_ports) == 10


def test_the_streamer_serves_on_the_port_that_is_published() -> None:
    streamer = services()["streamer"]
    given = streamer["environment"]
    names = ("STREAMER_HTTP", "API", "GRPC")
    settings = Settings(
        **{f"{name}_HOST".lower(): given[f"{name}_HOST"] for name in names},
        **{f"{name}_PORT".lower(): given[f"{name}_PORT"] for name in names},
    )
    inside = [int(port.rpartition(":")[2]) for port in streamer["ports"]]
    assert inside == [settings.streamer_http_port, settings.api_port, settings.grpc_port]
    assert {settings.streamer_http_host, settings.api_host, settings.grpc_host} == {"0.0.0.0"}
    assert all(port.startswith("127.0.0.1:") for port in streamer["ports"])


def test_simulated_candles_never_reach_a_postgres_of_ones_own() -> None:
    """.env may name one; the simulator's file comes after it and wins."""
    variables = [one for one in variables_of(COMPOSE.read_text()) if one.endswith("DATABASE_URL")]
    own = {name: "postgresql://mine@db.example:5432/x" for name in variables}
    simulated = {**made_env(), **own, **read_env(SIMULATOR_ENV)}
    assert "db.example" not in str(load_compose(simulated))
    assert simulated["COMPOSE_FILE"] == COMPOSE.name


def test_a_postgres_of_ones_own_replaces_the_container() -> None:
    override = yaml.safe_load(OWN_POSTGRES.read_text())
    assert override == {"services": {"postgres": {"profiles": ["unused"]}}}
    for service in services().values():
        about = service.get("depends_on", {}).get("postgres", {"required": False})
        assert about["required"] is False
    variables = [
        name for name in variables_of(COMPOSE.read_text()) if name.endswith("DATABASE_URL")
    ]
    own = {name: f"postgresql://{name.lower()}@db.example:5432/x" for name in variables}
    for service in load_compose({**made_env(), **own})["services"].values():
        for name, value in service.get("environment", {}).items():
            if name.endswith("DATABASE_URL"):
                assert value == own[name]


# --- the documentation


def test_the_deployment_page_explains_every_variable_service_and_volume() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    settings = {name.upper() for name in Settings.model_fields}
    names = variables_of(COMPOSE.read_text()).keys() - settings
    missing = [
        name for name in (*names, *services(), *stack()["volumes"]) if f"`{name}`" not in page
    ]
    assert missing == []


def test_the_commands_of_the_deployment_page_name_what_exists() -> None:
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
                assert rest[1] in commands_of_the_cli(), line
            called += 1
        files = [line[i + 1] for i, word in enumerate(line) if word in {"--env-file", "-f"}]
        assert all((ROOT / file).exists() or file in {".env", "streamer"} for file in files), line
    assert called >= 8


def test_the_streamers_of_the_deployment_page_extend_the_one_there_is() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    (example,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S))
    second = example["services"]["streamer-2"]
    assert second["extends"] == {"file": COMPOSE.name, "service": "streamer"}
    shares = [set(one["environment"]["SYMBOLS"].split(",")) for one in example["services"].values()]
    assert set.intersection(*shares) == set()
