from __future__ import annotations

import pytest

from include.config import Settings, load_settings
from include.errors import PermanentError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults_point_to_the_public_hosts() -> None:
    settings = load_settings()
    assert settings.binance_ws_url == "wss://data-stream.binance.vision"
    assert settings.binance_rest_url == "https://data-api.binance.vision"


def test_the_testnet_is_one_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_TESTNET", "true")
    assert load_settings().binance_rest_url == "https://testnet.binance.vision"


def test_a_url_of_its_own_beats_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_TESTNET", "true")
    monkeypatch.setenv("BINANCE_REST_URL", "http://127.0.0.1:1/")
    assert load_settings().binance_rest_url == "http://127.0.0.1:1"


def test_symbols_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMBOLS", "BTCUSDT, ETHUSDT.P,")
    assert load_settings().symbols == ("BTCUSDT", "ETHUSDT.P")


def test_each_role_falls_back_to_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner@h/d")
    monkeypatch.setenv("DBT_DATABASE_URL", "postgresql://dbt@h/d")
    settings = load_settings()
    assert settings.url_for("dbt") == "postgresql://dbt@h/d"
    assert settings.url_for("jobs") == "postgresql://owner@h/d"
    assert settings.role_urls() == {"candelabra_dbt": "postgresql://dbt@h/d"}


def test_no_database_says_what_to_set() -> None:
    with pytest.raises(PermanentError, match=r"JOBS_DATABASE_URL or DATABASE_URL.*make demo"):
        load_settings().url_for("jobs")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BATCH_SIZE", "many", "BATCH_SIZE='many'.*valid integer"),
        ("BATCH_SIZE", "0", "BATCH_SIZE='0'.*greater than or equal to 1"),
        ("BINANCE_WS_URL", "http://x", "BINANCE_WS_URL='http://x': should be ws or wss://"),
        ("HTTPS_PROXY", "proxy:3128", "HTTPS_PROXY=.hidden.: should be http or https://"),
        ("LOG_LEVEL", "chatty", "LOG_LEVEL='CHATTY'.*'DEBUG', 'INFO'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PermanentError, match=f"(?s){message}"):
        load_settings()


def test_a_wrong_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://me:secret@h/d")
    with pytest.raises(PermanentError, match=r"DATABASE_URL=.hidden.: should be") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://127.0.0.1:8080", ""),
        ("ws://localhost:1", ""),
        ("https://fapi.binance.com", "http://proxy:3128"),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(url: str, proxy: str) -> None:
    assert load_settings(https_proxy="http://proxy:3128").proxy_for(url) == proxy
