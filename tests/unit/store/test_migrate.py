"""Server versions, and one definition for each SQL function."""

from __future__ import annotations

import re

import pytest

from include.errors import PermanentError
from include.store.migrate import check_server_version
from include.store.migrations.scripts import script_names, script_text


@pytest.mark.parametrize("version", [150_000, 150_014, 180_001])
def test_servers_from_15_are_accepted(version: int) -> None:
    check_server_version(version, where="db:5432")


@pytest.mark.parametrize(("version", "named"), [(149_999, "14"), (130_005, "13"), (90_624, "9")])
def test_older_server_is_refused_with_host_and_version(version: int, named: str) -> None:
    with pytest.raises(PermanentError, match=f"^db:5432 is PostgreSQL {named}; .* 15 or newer"):
        check_server_version(version, where="db:5432")


def test_every_function_is_defined_once() -> None:
    texts = [script_text(name).decode() for name in script_names("repeatable/functions")]
    names = re.findall(r"^CREATE OR REPLACE FUNCTION ([\w.]+)", "\n".join(texts), re.MULTILINE)

    assert len(names) > 20
    assert sorted(set(names)) == sorted(names)
