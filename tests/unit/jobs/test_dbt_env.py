from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.errors import PermanentError
from include.jobs.dbt_env import DBT_PROJECT, dbt_environment


def test_url_becomes_the_variables_of_the_profile(tmp_path: Path) -> None:
    environment = dbt_environment(
        "postgresql://builder:p%40ss%2Fword@db.example:6543/candelabra?sslmode=require",
        home=tmp_path,
    )
    assert environment["CANDELABRA_DBT_HOST"] == "db.example"
    assert environment["CANDELABRA_DBT_PORT"] == "6543"
    assert environment["CANDELABRA_DBT_USER"] == "builder"
    assert environment["DBT_ENV_SECRET_CANDELABRA_PASSWORD"] == "p@ss/word"
    assert environment["CANDELABRA_DBT_NAME"] == "candelabra"
    assert environment["CANDELABRA_DBT_SSLMODE"] == "require"


def test_omitted_parts_of_a_url_have_the_drivers_defaults(tmp_path: Path) -> None:
    environment = dbt_environment("postgresql://builder@/candelabra", home=tmp_path)
    assert environment["CANDELABRA_DBT_HOST"] == "localhost"
    assert environment["CANDELABRA_DBT_PORT"] == "5432"
    assert environment["DBT_ENV_SECRET_CANDELABRA_PASSWORD"] == ""
    assert environment["CANDELABRA_DBT_SSLMODE"] == "prefer"


def test_profile_uses_only_our_variables_and_those_of_libpq(tmp_path: Path) -> None:
    made = dbt_environment("postgresql://builder@/candelabra", home=tmp_path).keys()
    profile = (DBT_PROJECT / "profiles.yml").read_text()
    asked = re.findall(r"env_var\('(\w+)'(, )?", profile)
    required = {name for name, default in asked if not default}
    assert required == {"PGHOST", "PGUSER", "PGDATABASE"}
    ours = {name for name, _ in asked if not name.startswith("PG")}
    assert ours - {"CANDELABRA_DBT_DEV_SCHEMA"} <= made


def test_manifest_and_logs_go_below_the_home_given(tmp_path: Path) -> None:
    environment = dbt_environment("postgresql://builder@/candelabra", home=tmp_path)
    assert environment["DBT_TARGET_PATH"] == str(tmp_path / "dbt" / "target")
    assert environment["DBT_LOG_PATH"] == str(tmp_path / "dbt" / "logs")
    assert environment["DBT_SEND_ANONYMOUS_USAGE_STATS"] == "false"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://builder:secret@host/candelabra?colour=red", "cannot be read"),
        ("postgresql://builder:secret@host", "names no dbname"),
        ("postgresql:///", "names no user and no dbname"),
    ],
)
def test_wrong_url_is_refused_without_its_password(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=message) as info:
        dbt_environment(url, home=tmp_path)
    assert "secret" not in str(info.value)
    assert info.value.__cause__ is None
