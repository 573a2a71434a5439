"""docker-compose.yml has the form of the Compose specification, as far as we use it.

The forms below are stricter than the specification's: one way of writing each thing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.container_files import (
    COMPOSE,
    LONG_RUNNING,
    ONE_SHOTS,
    OWN_POSTGRES,
    ROOT,
    SIMULATOR_ENV,
    made_env,
    read_env,
    services,
    stack,
)

DURATION = r"(\d+h)?(\d+m)?(\d+s)?"
SIZE = r"\d+[mg]"
NAME = r"[a-z][a-z0-9-]*"


def text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value))


def is_true(value: Any) -> bool:
    return value is True


def of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(check, value))


def shape(
    needed: Mapping[str, Callable[[Any], bool]], optional: Mapping[str, Callable[[Any], bool]] = {}
) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and needed.keys() <= value.keys() <= needed.keys() | optional.keys()
            and all((needed | optional)[key](part) for key, part in value.items())
        )

    return fits


def is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(
        text(r"[A-Za-z_][A-Za-z0-9_]*")(name) and isinstance(part, str)
        for name, part in value.items()
    )


def is_dependencies(value: Any) -> bool:
    conditions = text(r"service_(healthy|started|completed_successfully)")
    one = shape({"condition": conditions}, {"required": lambda flag: flag is False})
    return isinstance(value, dict) and all(text(NAME)(k) and one(v) for k, v in value.items())


WORDS = of(lambda word: isinstance(word, str))
SERVICE_KEYS: dict[str, Callable[[Any], bool]] = {
    "image": text(r"[a-z-]+:[A-Za-z0-9._-]+"),
    "build": shape({"context": text(r"\."), "dockerfile": text(r".+"), "target": text(NAME)}),
    "pull_policy": text("never"),
    "command": WORDS,
    "entrypoint": WORDS,
    "environment": is_environment,
    "depends_on": is_dependencies,
    "healthcheck": shape(
        {
            "test": of(lambda word: isinstance(word, str)),
            "interval": text(DURATION),
            "timeout": text(DURATION),
            "retries": lambda value: isinstance(value, int) and value > 0,
            "start_period": text(DURATION),
        }
    ),
    "restart": text(r"no|unless-stopped"),
    "stop_grace_period": text(DURATION),
    "ports": of(text(r"[\d.]+:\d+:\d+")),
    "volumes": of(text(r"[./a-z-]+:/[a-z./-]+(:ro)?")),
    "tmpfs": of(text(r"/[a-z/]+(:[a-z]+=\w+(,[a-z]+=\w+)*)?")),
    "shm_size": text(SIZE),
    "read_only": is_true,
    "init": is_true,
    "cap_drop": of(text("ALL")),
    "cap_add": of(text(r"[A-Z_]+")),
    "security_opt": of(text("no-new-privileges:true")),
    "profiles": of(text(NAME)),
    "logging": shape(
        {
            "driver": text("json-file"),
            "options": shape({"max-size": text(SIZE), "max-file": text(r"\d+")}),
        }
    ),
    "deploy": shape(
        {
            "resources": shape(
                {
                    "limits": shape({"memory": text(SIZE)}),
                    "reservations": shape({"memory": text(SIZE)}),
                }
            )
        }
    ),
}


@pytest.mark.parametrize("name", services())
def test_a_service_has_only_keys_of_the_specification_in_their_form(name: str) -> None:
    service = services()[name]
    assert sorted(service.keys() - SERVICE_KEYS.keys()) == []
    assert [key for key, value in service.items() if not SERVICE_KEYS[key](value)] == []


def test_the_file_has_only_services_volumes_a_name_and_templates() -> None:
    top = [key for key in stack() if not key.startswith("x-")]
    assert top == ["name", "services", "volumes"]
    assert services().keys() == ONE_SHOTS | LONG_RUNNING
    assert set(stack()["volumes"].values()) == {None}


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("image", "postgres"),
        ("restart", True),
        ("ports", ["8080:8080"]),
        ("depends_on", {"postgres": {"condition": "healthy"}}),
        ("healthcheck", {"test": ["CMD", "x"]}),
        ("environment", {"TOP": 5}),
        ("command", "stream"),
        ("deploy", {"resources": {"limits": {"memory": "4 g"}}}),
        ("security_opt", ["no-new-privileges:false"]),
    ],
)
def test_a_wrong_form_is_noticed(key: str, wrong: object) -> None:
    assert not SERVICE_KEYS[key](wrong)


def test_a_second_opinion_where_compose_is_installed(tmp_path: Path) -> None:
    """`config` needs no engine."""
    program = shutil.which("docker-compose")
    command = [program] if program else ["docker", "compose"]
    try:
        subprocess.run([*command, "version"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("neither docker-compose nor the plugin of docker is installed")
    env = tmp_path / ".env"
    env.write_text("".join(f"{name}={value}\n" for name, value in made_env().items()))
    base = [*command, "--project-directory", ROOT, "-f", COMPOSE, "--env-file", env]
    plain = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}

    def config(*more: str | Path, env: Mapping[str, str] = plain) -> str:
        done = subprocess.run(
            [*base, *more], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    theirs = yaml.safe_load(config("--profile", "*", "config"))
    assert theirs["services"].keys() == services().keys()
    for name, service in services().items():
        assert theirs["services"][name].get("environment", {}) == service.get("environment", {})
    simulated = yaml.safe_load(config("--env-file", SIMULATOR_ENV, "config"))
    assert simulated["name"] == read_env(SIMULATOR_ENV)["COMPOSE_PROJECT_NAME"]
    assert "simulator" in simulated["services"]
    assert "postgres" not in config("-f", OWN_POSTGRES, "config", "--services").split()
