"""What docker-compose.yml takes from the environment, and who gets it."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.docker import airflow as airflow_container
from include.config import Settings
from include.store.migrate import ROLES
from tests.unit.deploy.container_files import (
    COMPOSE,
    MAKE_ENV,
    OWN_POSTGRES,
    ROOT,
    SIMULATOR_ENV,
    MissingVariableError,
    interpolate,
    load_compose,
    made_env,
    services,
    stack,
    variables_of,
)


def test_the_interpolation_is_composes_own() -> None:
    given = {"A": "1", "EMPTY": ""}
    assert interpolate("x ${A:-no} ${B:-two} ${EMPTY:-three}", given) == "x 1 two three"
    assert interpolate("${B:-u:${A:?needed}@h}/d", given) == "u:1@h/d"
    assert interpolate("${A:-u:${C:?needed}@h}", given) == "1"
    with pytest.raises(MissingVariableError, match="C: needed"):
        interpolate("${B:-${C:?needed}}", given)
    with pytest.raises(ValueError, match="neither"):
        interpolate("${A}", given)


def needed_variables() -> set[str]:
    return {name for name, kinds in variables_of(COMPOSE.read_text()).items() if ":?" in kinds}


def test_what_the_stack_needs_is_what_make_env_makes() -> None:
    assert made_env().keys() == needed_variables()


@pytest.mark.parametrize("name", sorted(needed_variables()))
def test_a_missing_variable_is_named_with_what_makes_it(name: str) -> None:
    with pytest.raises(MissingVariableError, match=f"{name}: sh deploy/docker/make-env.sh"):
        load_compose({key: value for key, value in made_env().items() if key != name})


def test_secrets_differ_each_time_and_none_has_a_default() -> None:
    first = {name: value for name, value in made_env().items() if name != "SYMBOLS"}
    assert len(set(first.values())) == len(first)
    made_env.cache_clear()
    assert not set(first.values()) & {v for n, v in made_env().items() if n != "SYMBOLS"}
    stack.cache_clear()
    kinds = variables_of(COMPOSE.read_text())
    secret = {name for name in kinds if re.search(r"PASSWORD|SECRET|_KEY$", name)}
    assert all(kinds[name] == {":?"} for name in secret)
    for file in (COMPOSE, SIMULATOR_ENV, OWN_POSTGRES):
        assert not re.search(
            r"(?i)(password|secret|_key)['\"]?\s*[:=]\s*['\"]?[\w]", file.read_text()
        )


def test_make_env_leaves_a_file_that_exists_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SYMBOLS=MINE\n")
    done = subprocess.run(
        ["sh", MAKE_ENV, file], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert f"{file} exists already" in done.stderr
    assert file.read_text() == "SYMBOLS=MINE\n"


def test_passwords_fit_into_a_url_and_the_keys_into_airflow() -> None:
    from cryptography.fernet import Fernet

    for name, value in made_env().items():
        if name.endswith("PASSWORD"):
            assert re.fullmatch(r"[0-9a-f]{64}", value)
    Fernet(made_env()["AIRFLOW_FERNET_KEY"])
    # RFC 7518, 3.2: a key is at least as long as the hash, here SHA-512.
    assert len(made_env()["AIRFLOW_JWT_SECRET"]) >= 64


NOT_GIVEN = {
    "database_url": "migrate's alone",
    "streamer_database_url": "the streamer's alone",
    "jobs_database_url": "the jobs' alone",
    "dbt_database_url": "the jobs' alone",
    "reader_database_url": "of those who read marts",
    "accounts_database_url": "of those who serve readers",
    "candelabra_home": "set in the image",
    "log_format": "set in the image",
    "streamer_http": "the streamer's health check asks it",
    "streamer_http_host": "the container's; its port is published to this host alone",
    "streamer_http_port": "published, as a variable; in the container it is fixed",
    "api_host": "the container's; its port is published to this host alone",
    "api_port": "published, as a variable; in the container it is fixed",
    "grpc_host": "the container's; its port is published to this host alone",
    "grpc_port": "published, as a variable; in the container it is fixed",
}


@pytest.mark.parametrize("name", ["streamer", "airflow-scheduler", "cli"])
def test_every_setting_can_be_given(name: str) -> None:
    fields = {one.upper() for one in Settings.model_fields if one not in NOT_GIVEN}
    given = services()[name]["environment"].keys()
    assert sorted(fields - given) == []
    filled = load_compose({**made_env(), **dict.fromkeys(fields, "given")})
    environment = filled["services"][name]["environment"]
    assert {one for one in fields if environment[one] != "given"} == set()


def test_each_service_gets_the_login_of_its_own_role_and_no_other() -> None:
    logins = {
        name: {
            variable: urlsplit(value).username
            for variable, value in service.get("environment", {}).items()
            if variable.endswith("DATABASE_URL")
        }
        for name, service in services().items()
    }
    jobs = {
        "JOBS_DATABASE_URL": "candelabra_jobs",
        "DBT_DATABASE_URL": "candelabra_dbt",
        "READER_DATABASE_URL": "candelabra_reader",
    }
    airflow = {"AIRFLOW_DATABASE_URL": "airflow", **jobs}
    assert logins == {
        "postgres": {},
        "nats": {},
        "simulator": {},
        "server": {
            "READER_DATABASE_URL": "candelabra_reader",
            "ACCOUNTS_DATABASE_URL": "candelabra_accounts",
        },
        "migrate": {
            "DATABASE_URL": "candelabra",
            "STREAMER_DATABASE_URL": "candelabra_streamer",
            "ACCOUNTS_DATABASE_URL": "candelabra_accounts",
            **jobs,
        },
        "streamer": {
            "STREAMER_DATABASE_URL": "candelabra_streamer",
            "READER_DATABASE_URL": "candelabra_reader",
            "ACCOUNTS_DATABASE_URL": "candelabra_accounts",
        },
        "cli": jobs,
        "airflow-init": airflow,
        "airflow-api-server": airflow,
        "airflow-scheduler": airflow,
        "airflow-dag-processor": airflow,
        "airflow-triggerer": airflow,
    }
    assert set(logins["migrate"].values()) == {"candelabra", *ROLES}
    assert "POSTGRES_PASSWORD" not in str({n: s for n, s in services().items() if n != "postgres"})


@functools.cache
def airflows_own_settings() -> frozenset[str]:
    """AIRFLOW__SECTION__KEY of everything that Airflow's reference of settings knows."""
    found = importlib.util.find_spec("airflow")
    assert found is not None
    assert found.origin is not None
    reference = Path(found.origin).parent / "config_templates" / "config.yml"
    sections = yaml.safe_load(reference.read_text())
    return frozenset(
        f"AIRFLOW__{section.upper()}__{key.upper()}"
        for section, about in sections.items()
        for key in about["options"]
    )


def test_every_variable_of_a_container_is_one_that_somebody_reads() -> None:
    ours = {name.upper() for name in Settings.model_fields}
    ours |= {*airflow_container.SECRETS.values(), *airflow_container.ADDRESSES, "AIRFLOW_HOME"}
    init = (ROOT / "deploy" / "docker" / "postgres" / "10-databases.sh").read_text()
    postgres = {"POSTGRES_PASSWORD", *re.findall(r"\\getenv \w+ ([A-Z_]+)", init)}
    for name, service in services().items():
        known = postgres if name == "postgres" else ours | {"NO_PROXY", "no_proxy"}
        given = service.get("environment", {}).keys()
        assert sorted(given - known - airflows_own_settings()) == [], name
