"""What libraries tell by ``logging`` comes out as our own events do."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from include.logs import MAX_LINES, WINDOW_S, LibraryLines

PROGRAM = """
import logging
from include.logs import configure_logging
configure_logging("INFO", "json")
logger = logging.getLogger("uvicorn.error")
for number in range(50):
    try:
        b"\\xff".decode()
    except UnicodeDecodeError:
        logger.exception("Invalid UTF-8 sequence received from client.")
try:
    raise ValueError("a defect")
except ValueError:
    logger.exception("Exception in ASGI application")
logger.warning("%d of %s", 1)
logger.info("not shown")
"""


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logger(clock: Clock) -> logging.Logger:
    one = logging.Logger("a.library")
    one.addHandler(LibraryLines(clock=clock))
    return one


def test_lines_of_a_library_are_json_without_tracebacks_of_bad_input() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["library_logged"] * (MAX_LINES + 2)
    assert {line["library"] for line in lines} == {"uvicorn.error"}
    assert "invalid start byte" in lines[0]["error"]
    assert "exception" not in lines[0]
    assert "ValueError: a defect" in lines[-2]["exception"]  # a defect of ours is found by it
    assert lines[-1]["message"] == "%d of %s"


def test_many_lines_of_one_kind_are_counted(logger: logging.Logger, clock: Clock) -> None:
    with capture_logs() as logged:
        for number in range(101):
            if number == 100:
                logger.warning("another kind")
                clock.now_s = WINDOW_S
            logger.warning("request %d is invalid", number)
    assert [one["message"] for one in logged] == [
        *(f"request {number} is invalid" for number in range(MAX_LINES)),
        "another kind",
        "request 100 is invalid",
    ]
    assert logged[-1]["left_out"] == 100 - MAX_LINES


def test_lines_of_one_place_are_one_kind_whatever_they_say(logger: logging.Logger) -> None:
    with capture_logs() as logged:
        for number in range(100):  # such as asyncio's, with addresses of objects in the text
            logger.error(f"exception of <Client at {number:#x}>")
    assert len(logged) == MAX_LINES


def test_level_of_a_library_is_kept(logger: logging.Logger) -> None:
    with capture_logs() as logged:
        logger.debug("nothing")
        logger.warning("a warning")
        logger.critical("an error")
    assert [one["log_level"] for one in logged] == ["warning", "error"]
