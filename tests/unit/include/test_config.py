from __future__ import annotations

from pathlib import Path

import pytest

from include.config import TIMEFRAME_NAMES, Settings, load_settings
from include.domain.timeframes import TIMEFRAMES
from include.errors import PermanentError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_defaults_point_to_the_public_hosts() -> None:
    settings = load_settings()
    assert settings.binance_ws_url == "wss://data-stream.binance.vision"
    assert settings.binance_rest_url == "https://data-api.binance.vision"


def test_testnet_is_one_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_TESTNET", "true")
    assert load_settings().binance_rest_url == "https://testnet.binance.vision"


def test_explicit_url_overrides_the_testnet_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_TESTNET", "true")
    monkeypatch.setenv("BINANCE_REST_URL", "http://127.0.0.1:1/")
    assert load_settings().binance_rest_url == "http://127.0.0.1:1"


def test_symbols_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMBOLS", "BTCUSDT, ETHUSDT.P,")
    assert load_settings().symbols == ("BTCUSDT", "ETHUSDT.P")


def test_database_may_have_several_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:a,b@one:5432,two,[::1]:5434/candles?connect_timeout=3"
    monkeypatch.setenv("DATABASE_URL", url)
    assert load_settings().url_for("streamer") == url


def test_each_role_falls_back_to_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner@h/d")
    monkeypatch.setenv("DBT_DATABASE_URL", "postgresql://dbt@h/d")
    settings = load_settings()
    assert settings.url_for("dbt") == "postgresql://dbt@h/d"
    assert settings.url_for("jobs") == "postgresql://owner@h/d"
    assert settings.role_urls() == {"candelabra_dbt": "postgresql://dbt@h/d"}


def test_serving_uses_the_login_of_readers_if_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner@h/d")
    assert load_settings().url_for("serving") == "postgresql://owner@h/d"
    monkeypatch.setenv("READER_DATABASE_URL", "postgresql://reader@h/d")
    assert load_settings().url_for("serving") == "postgresql://reader@h/d"
    monkeypatch.setenv("SERVING_DATABASE_URL", "postgresql://serving@h/d")
    assert load_settings().url_for("serving") == "postgresql://serving@h/d"


def test_missing_database_url_names_the_settings() -> None:
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
def test_wrong_setting_is_named_with_its_value_and_the_allowed_ones(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(PermanentError, match=f"(?s){message}"):
        load_settings()


POSTGRES = "should be postgresql://"
WRONG = {
    "database_url": ("mysql://me:s3cret@h/d", POSTGRES),
    "streamer_database_url": ("postgresql://me:s3cret@h:port/d", POSTGRES),
    "jobs_database_url": ("host=h password=s3cret", POSTGRES),
    "dbt_database_url": ("me:s3cret@h/d", POSTGRES),
    "reader_database_url": ("http://me:s3cret@h/d", POSTGRES),
    "serving_database_url": ("http://me:s3cret@h/d", POSTGRES),
    "accounts_database_url": ("http://me:s3cret@h/d", POSTGRES),
    "symbols": ("BTCUSDT ETHUSDT", "separated by commas"),
    "symbols_file": (str(Path(__file__).parent), "should be a file"),
    "top": ("0", "greater than or equal to 1"),
    "binance_testnet": ("perhaps", "true or false"),
    "binance_ws_url": ("https://h", "should be ws or wss://"),
    "binance_rest_url": ("wss://h", "should be http or https://"),
    "binance_um_ws_url": ("h:9443", "should be ws or wss://"),
    "binance_um_rest_url": ("https://h:port", "should be http or https://"),
    "binance_cm_ws_url": ("https://h", "should be ws or wss://"),
    "binance_cm_rest_url": ("ws://h", "should be http or https://"),
    "binance_dump_url": ("https://", "should be http or https://"),
    "binance_dump_list_url": ("data.binance.vision", "should be http or https://"),
    "rest_weight_share": ("75", "less than or equal to 1"),
    "http_timeout_s": ("inf", "less than or equal to 3600"),
    "https_proxy": ("me:s3cret@proxy:3128", "should be http or https://"),
    "close_grace_spot_ms": ("-1", "greater than or equal to 0"),
    "close_grace_um_ms": ("0.4", "valid integer"),
    "kline_timeout_ms": ("3", "greater than or equal to 100"),
    "stale_stream_s": ("15s", "valid number"),
    "batch_size": ("1e9", "valid integer"),
    "batch_flush_timeout_ms": ("1", "greater than or equal to 10"),
    "buffer_rows": ("10", "greater than or equal to 1000"),
    "fill_lookback_minutes": ("a day", "valid integer"),
    "candelabra_home": (__file__, "should be a folder"),
    "inbox_folder": (__file__, "should be a folder"),
    "raw_retention_days": ("1", "greater than or equal to 2"),
    "archive_folder": (__file__, "should be a folder"),
    "quality_stale_after_minutes": ("1", "greater than or equal to 2"),
    "quality_unverified_after_minutes": ("1441", "less than or equal to 1440"),
    "quality_jump_multiple": ("1", "greater than 1"),
    "quality_docs_folder": (__file__, "should be a folder"),
    "ledger_retention_days": ("a week", "valid integer"),
    "log_level": ("chatty", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    "log_format": ("xml", "'auto', 'json' or 'console'"),
    "symbols_refresh_s": ("0", "greater than 0"),
    "rotate_after_s": ("0", "greater than or equal to 1"),
    "capture": ("quotes", "agg_trades"),
    "capture_batch_rows": ("0", "greater than or equal to 1"),
    "capture_flush_timeout_ms": ("1", "greater than or equal to 10"),
    "capture_buffer_rows": ("10", "greater than or equal to 1000"),
    "capture_spool_bytes": ("1MB", "valid integer"),
    "follow_watchlists": ("perhaps", "true or false"),
    "streamer_http": ("perhaps", "true or false"),
    "streamer_http_host": ("http://localhost", "an address or a host name"),
    "streamer_http_port": ("70000", "less than or equal to 65535"),
    "api": ("perhaps", "true or false"),
    "trusted_proxies": ("127.0.0.1,proxy.example.org", "'proxy.example.org': should be addresses"),
    "api_host": ("http://localhost", "an address or a host name"),
    "api_port": ("70000", "less than or equal to 65535"),
    "api_allowed_origins": ("charts.example.org", "https://charts.example.org"),
    "api_requests_per_minute": ("0", "greater than or equal to 1"),
    "api_sockets_per_client": ("0", "greater than or equal to 1"),
    "auth_required": ("perhaps", "true or false"),
    "session_hours": ("0", "greater than or equal to 1"),
    "streamer_token": ("s3cret", "candelabra user token add"),
    "nats_url": ("http://user:s3cret@nats.test", "nats://host:4222 or tls://host:4222"),
    "nats_trusted_file": ("/no/such/ca.pem", "should be a file in PEM format"),
    "nats_timeframes": ("1m,7m", "7m is none; should be of 1m 3m"),
    "grpc": ("perhaps", "true or false"),
    "grpc_host": ("http://localhost", "an address or a host name"),
    "grpc_port": ("70000", "less than or equal to 65535"),
    "grpc_calls_per_client": ("0", "greater than or equal to 1"),
    "grpc_tls_cert_file": ("/no/such/cert.pem", "should be a file in PEM format"),
    "grpc_tls_key_file": ("/no/such/key.pem", "should be a file in PEM format"),
    "grpc_trusted_file": ("/no/such/ca.pem", "should be a file in PEM format"),
    "alert_webhook_url": ("hooks.test/s3cret", "should be http or https://"),
}
"""A wrong value of each setting, and the part of the message that says what would be right."""


def test_each_setting_has_a_wrong_value_here() -> None:
    assert WRONG.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("name", WRONG)
def test_each_setting_refuses_an_invalid_value_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    value, right = WRONG[name]
    monkeypatch.setenv(name.upper(), value)
    with pytest.raises(PermanentError) as caught:
        load_settings()
    message = str(caught.value)
    assert f"{name.upper()}=" in message
    assert right in message
    is_secret = "s3cret" in value or "_database_url" in name or name == "database_url"
    assert ("(hidden)" in message) == is_secret
    assert "s3cret" not in message
    if not is_secret:
        assert value.split()[0].upper() in message.upper()


def test_timeframes_equal_those_of_the_domain() -> None:
    assert tuple(TIMEFRAMES) == TIMEFRAME_NAMES


def test_all_wrong_settings_are_reported_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOP", "x")
    monkeypatch.setenv("BATCH_SIZE", "y")
    with pytest.raises(PermanentError, match=r"(?s)TOP='x'.*BATCH_SIZE='y'"):
        load_settings()


def test_wrong_database_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_loopback_bypasses_the_proxy(url: str, proxy: str) -> None:
    assert load_settings(https_proxy="http://proxy:3128").proxy_for(url) == proxy
