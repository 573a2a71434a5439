"""Health checks tell well from unwell, and say why."""

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
    """The URL of a server that answers everything alike."""

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


def test_a_service_that_answers_is_well(capsys):
    with serving(200, "fine") as url:
        assert main(["http", url]) == 0
    assert capsys.readouterr().out == f"{url} answered 4 bytes\n"


def test_a_service_that_answers_with_an_error_or_not_at_all_is_not(capsys):
    with serving(503, "no") as url:
        assert main(["http", url]) == 1
    assert "HTTP Error 503" in capsys.readouterr().err
    with pytest.raises(TransientError, match="Connection refused"):
        check_http(url)


def test_no_proxy_of_the_environment_is_asked(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(200, "fine") as url:
        assert check_http(url) == b"fine"


def test_a_file_is_no_service():
    with pytest.raises(PermanentError, match="is no http:// URL"):
        check_http("file:///etc/hostname")


def health(**parts: str | None) -> str:
    return json.dumps({name: {"status": status} for name, status in parts.items()})


def test_a_part_of_airflow_is_well_when_the_api_server_says_so(monkeypatch, capsys):
    with serving(200, health(scheduler="healthy", triggerer="unhealthy")) as url:
        monkeypatch.setenv("AIRFLOW_API_URL", url)
        assert main(["airflow", "scheduler"]) == 0
        assert main(["airflow", "triggerer"]) == 1
        assert main(["airflow", "dag_processor"]) == 1
    said = capsys.readouterr().err
    assert said == "Airflow's triggerer is unhealthy\nAirflow's dag_processor is unknown\n"


def test_a_part_of_airflow_that_never_ran_is_not_well():
    with serving(200, health(dag_processor=None)) as url, pytest.raises(TransientError):
        check_airflow(url, "dag_processor")


def test_a_part_that_airflow_does_not_have_is_refused():
    with pytest.raises(PermanentError, match="'webserver' is no part of Airflow: metadatabase"):
        check_airflow("http://127.0.0.1:1", "webserver")


@pytest.mark.parametrize("arguments", [[], ["other"], ["http"], ["streamer", "x"], ["airflow"]])
def test_a_wrong_call_is_told(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err == "usage: health streamer | http URL | airflow PART\n"


READY = '{"status":"ready","reasons":[]}'
NOT_READY = (
    '{"status":"not ready","reasons":['
    '{"code":"database","message":"the database cannot be reached","symbols":[]},'
    '{"code":"disconnected","message":"connection spot-1 is not open","symbols":[]}]}'
)


def serve_as(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("STREAMER_HTTP_HOST", "0.0.0.0")
    monkeypatch.setenv("STREAMER_HTTP_PORT", url.rpartition(":")[2])


def test_a_streamer_that_is_ready_is_well(monkeypatch, capsys):
    with serving(200, READY) as url:
        serve_as(monkeypatch, url)
        assert main(["streamer"]) == 0
    assert capsys.readouterr().out == "ready\n"


def test_a_streamer_that_is_not_ready_says_why(monkeypatch, capsys):
    with serving(503, NOT_READY) as url:
        serve_as(monkeypatch, url)
        assert main(["streamer"]) == 1
    assert capsys.readouterr().err == (
        "not ready: the database cannot be reached; connection spot-1 is not open\n"
    )


def test_a_streamer_that_does_not_answer_or_fails_is_not_well(monkeypatch, capsys):
    with serving(500, "no") as url:
        serve_as(monkeypatch, url)
        assert main(["streamer"]) == 1
    assert "HTTP Error 500" in capsys.readouterr().err
    assert main(["streamer"]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"), [("STREAMER_HTTP", "false"), ("STREAMER_HTTP_PORT", "0")]
)
def test_where_a_streamer_cannot_be_asked_its_database_is(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    for variable in ("DATABASE_URL", "STREAMER_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert main(["streamer"]) == 1
    assert "set STREAMER_DATABASE_URL" in capsys.readouterr().err
