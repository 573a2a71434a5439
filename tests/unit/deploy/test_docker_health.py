"""Health checks distinguish healthy from unhealthy services and print the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from deploy.docker.health import check_airflow, check_http, main
from include.errors import PermanentError, TransientError


@contextmanager
def serving(status: int, body: str) -> Iterator[str]:
    """Serve the same response for every request; yield the URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_service_that_answers_is_healthy(capsys):
    with serving(200, "fine") as url:
        assert main(["http", url]) == 0
    assert capsys.readouterr().out == f"{url} answered 4 bytes\n"


def test_service_with_error_or_no_answer_is_unhealthy(capsys):
    with serving(503, "no") as url:
        assert main(["http", url]) == 1
    assert "HTTP Error 503" in capsys.readouterr().err
    with pytest.raises(TransientError, match="Connection refused"):
        check_http(url)


def test_proxy_variables_are_ignored(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(200, "fine") as url:
        assert check_http(url) == b"fine"


def test_file_url_is_rejected():
    with pytest.raises(PermanentError, match="is not an http://"):
        check_http("file:///etc/hostname")


def health(**parts: str | None) -> str:
    return json.dumps({name: {"status": status} for name, status in parts.items()})


def test_airflow_component_has_the_status_of_the_api_server(monkeypatch, capsys):
    with serving(200, health(scheduler="healthy", triggerer="unhealthy")) as url:
        monkeypatch.setenv("AIRFLOW_API_URL", url)
        assert main(["airflow", "scheduler"]) == 0
        assert main(["airflow", "triggerer"]) == 1
        assert main(["airflow", "dag_processor"]) == 1
    printed = capsys.readouterr().err
    assert printed == "Airflow's triggerer is unhealthy\nAirflow's dag_processor is unknown\n"


def test_airflow_component_that_never_ran_is_unhealthy():
    with serving(200, health(dag_processor=None)) as url, pytest.raises(TransientError):
        check_airflow(url, "dag_processor")


def test_unknown_airflow_component_is_rejected():
    with pytest.raises(PermanentError, match="'webserver' is not one of metadatabase"):
        check_airflow("http://127.0.0.1:1", "webserver")


@pytest.mark.parametrize("arguments", [[], ["other"], ["http"], ["streamer", "x"], ["airflow"]])
def test_wrong_arguments_print_the_usage(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err == "usage: health streamer | http URL | airflow COMPONENT\n"


READY = '{"status":"ready","reasons":[]}'
NOT_READY = (
    '{"status":"not ready","reasons":['
    '{"code":"database","message":"the database cannot be reached","symbols":[]},'
    '{"code":"disconnected","message":"connection spot-1 is not open","symbols":[]}]}'
)


def serve_as(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("STREAMER_HTTP_HOST", "0.0.0.0")
    monkeypatch.setenv("STREAMER_HTTP_PORT", url.rpartition(":")[2])


def test_ready_streamer_is_healthy(monkeypatch, capsys):
    with serving(200, READY) as url:
        serve_as(monkeypatch, url)
        assert main(["streamer"]) == 0
    assert capsys.readouterr().out == "ready\n"


def test_streamer_that_is_not_ready_prints_the_reasons(monkeypatch, capsys):
    with serving(503, NOT_READY) as url:
        serve_as(monkeypatch, url)
        assert main(["streamer"]) == 1
    assert capsys.readouterr().err == (
        "not ready: the database cannot be reached; connection spot-1 is not open\n"
    )


def test_streamer_with_error_or_no_answer_is_unhealthy(monkeypatch, capsys):
    with serving(500, "no") as url:
        serve_as(monkeypatch, url)
        assert main(["streamer"]) == 1
    assert "HTTP Error 500" in capsys.readouterr().err
    assert main(["streamer"]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"), [("STREAMER_HTTP", "false"), ("STREAMER_HTTP_PORT", "0")]
)
def test_database_is_checked_if_the_streamer_serves_no_http(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    for variable in ("DATABASE_URL", "STREAMER_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert main(["streamer"]) == 1
    assert "set STREAMER_DATABASE_URL" in capsys.readouterr().err
