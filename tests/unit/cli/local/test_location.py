from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.local import location as module
from cli.local.location import settings_here
from cli.local.stack import PARTS, LocalStack
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.restarts import Restarter
from include.config import Settings
from include.errors import PermanentError


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("CANDELABRA_HOME", str(tmp_path))


def run_something(home: Path) -> None:
    (home / "demo").mkdir()
    running = {"DATABASE_URL": "postgresql://a@h/d", "BINANCE_REST_URL": "http://127.0.0.1:5"}
    (home / "demo" / "environment.json").write_text(json.dumps(running))


def test_running_stack_is_found(tmp_path: Path) -> None:
    run_something(tmp_path)
    settings = settings_here()
    assert settings.url_for("jobs") == "postgresql://a@h/d"
    assert settings.binance_rest_url == "http://127.0.0.1:5"


def test_running_stack_of_the_checkout_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, checkout = tmp_path / "elsewhere", tmp_path / "checkout"
    (checkout / ".candelabra").mkdir(parents=True)
    elsewhere.mkdir()
    run_something(checkout / ".candelabra")
    monkeypatch.setattr(module, "PROJECT_ROOT", checkout)
    monkeypatch.chdir(elsewhere)
    assert settings_here().database_url == ""  # CANDELABRA_HOME is another one
    monkeypatch.delenv("CANDELABRA_HOME")
    settings = settings_here()
    assert settings.url_for("jobs") == "postgresql://a@h/d"
    assert settings.candelabra_home == checkout / ".candelabra"


def test_configured_database_overrides_a_running_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_something(tmp_path)
    monkeypatch.setenv("READER_DATABASE_URL", "postgresql://mine@h/d")
    settings = settings_here()
    assert settings.url_for("reader") == "postgresql://mine@h/d"
    assert settings.binance_rest_url.startswith("https://")


def test_no_database_is_chosen_without_a_running_stack() -> None:
    assert settings_here().database_url == ""


def test_two_running_stacks_are_ambiguous(tmp_path: Path) -> None:
    run_something(tmp_path)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "environment.json").write_text("{}")
    with pytest.raises(PermanentError, match="both `up` and `demo` run"):
        settings_here()


def test_option_chooses_one_of_two_running_stacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_something(tmp_path)
    (tmp_path / "up").mkdir()
    mine = {"DATABASE_URL": "postgresql://b@h/up"}
    (tmp_path / "up" / "environment.json").write_text(json.dumps(mine))
    # also over a database of the environment, whose logins are not the stack's
    monkeypatch.setenv("READER_DATABASE_URL", "postgresql://mine@h/d")
    monkeypatch.setattr(module, "chosen_run", lambda: "up")
    assert settings_here().url_for("reader") == "postgresql://b@h/up"
    monkeypatch.setattr(module, "chosen_run", lambda: "demo")
    assert settings_here().url_for("reader") == "postgresql://a@h/d"


def test_chosen_stack_that_does_not_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_something(tmp_path)
    monkeypatch.setattr(module, "chosen_run", lambda: "up")
    with pytest.raises(PermanentError, match=f"`up` does not run in {tmp_path}; start it with"):
        settings_here()


@pytest.mark.parametrize(
    ("last_line", "shown"),
    [
        (
            '{"level": "warning", "event": "start_postponed", "error": "no answer from h"}',
            "streamer: start_postponed no answer from h",
        ),
        ('{"level": "info", "event": "streaming_started"}', ""),
        ("Traceback", ""),
    ],
)
def test_streamer_trouble_is_the_last_line_of_its_log(
    tmp_path: Path, last_line: str, shown: str
) -> None:
    stack = LocalStack(tmp_path)
    stack.logs.mkdir()
    log = stack.logs / "streamer.log"
    log.write_text('{"level": "error", "event": "earlier"}\n' + last_line + "\n")
    assert stack.streamer_trouble() == shown


def test_service_that_was_given_up_is_named_with_its_log_below_the_table(tmp_path: Path) -> None:
    class GivenUp(Restarter):
        def __init__(self) -> None:
            self.service = EmbeddedPostgres.__new__(EmbeddedPostgres)
            self.given_up = "airflow scheduler ended 5 times; end of /its.log:\nTraceback\nmore"

    stack = LocalStack(tmp_path)
    stack._restarters = [GivenUp()]
    assert stack.trouble() == "airflow scheduler ended 5 times; end of /its.log"
    with pytest.raises(PermanentError, match="Traceback\nmore"):
        stack.check()  # while the stack starts


def test_services_get_the_urls_of_their_own_roles_only(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path)
    names = ("streamer", "jobs", "dbt", "reader", "serving", "accounts")
    stack.environment = {f"{one.upper()}_DATABASE_URL": f"of {one}" for one in names}
    stack.environment |= {"DATABASE_URL": "of the owner", "BINANCE_REST_URL": "http://127.0.0.1:5"}
    got = {
        part: {value for value in stack.environment_of(part).values() if value.startswith("of ")}
        for part in PARTS
    }
    assert got == {
        "simulator": set(),
        "streamer": {"of streamer", "of serving", "of accounts"},
        "airflow": {"of jobs", "of dbt", "of reader"},
    }
    # Empty, because the terminal of `up` may have set it.
    assert stack.environment_of("streamer")["DATABASE_URL"] == ""
    assert stack.environment_of("airflow")["BINANCE_REST_URL"] == "http://127.0.0.1:5"


def test_service_connects_as_the_owner_where_that_is_the_only_login(tmp_path: Path) -> None:
    stack = LocalStack(tmp_path)
    stack.environment = {"DATABASE_URL": "of the owner"}
    found = stack.environment_of("streamer")
    assert found["STREAMER_DATABASE_URL"] == found["ACCOUNTS_DATABASE_URL"] == "of the owner"
    assert found["JOBS_DATABASE_URL"] == found["DATABASE_URL"] == ""
