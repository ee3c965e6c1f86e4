from __future__ import annotations

import contextvars
import io
import json
import logging
from datetime import datetime

import pytest

from service.logs import configure, request_id
from service.settings import Settings

KEY = "modiste_" + "Ab-_" * 10 + "xyz"


class Lines:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def lines(capsys):
    """Standard error; the loggers are as they were once the test is over."""
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error", "uvicorn.access")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield Lines(capsys)
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def start(**settings: str) -> None:
    configure(Settings.read(gallery="a", **settings))


def entry(lines: Lines) -> dict[str, object]:
    (line,) = lines.getvalue().splitlines()
    return json.loads(line)


def test_a_line_is_json_with_what_was_said(lines):
    start()
    logging.getLogger("service.engine").info(
        "Loaded %d items.", 3, extra={"milliseconds": 1.5, "stages": {"decode": 2}}
    )
    found = entry(lines)
    when = datetime.fromisoformat(str(found.pop("time")))
    assert when.utcoffset().total_seconds() == 0
    assert abs((datetime.now(when.tzinfo) - when).total_seconds()) < 60
    assert found == {
        "level": "INFO",
        "logger": "service.engine",
        "message": "Loaded 3 items.",
        "milliseconds": 1.5,
        "stages": {"decode": 2},
    }


def test_a_line_knows_its_request(lines):
    start()

    def answer() -> None:
        request_id.set("0123")
        logging.getLogger("service").warning("Odd.")

    contextvars.copy_context().run(answer)
    assert entry(lines)["request_id"] == "0123"


def test_a_traceback_stays_in_its_line(lines):
    start()
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        logging.getLogger("service").exception("Failed.")
    found = entry(lines)
    assert "ValueError: one\ntwo" in str(found["traceback"])


def test_text_is_for_people(lines):
    start(log_format="text")
    logging.getLogger("service").info("Loaded\n%s", "x", extra={"status": 200})
    logging.getLogger("service").debug("Nothing.")
    # A client must not be able to add a line of its own.
    assert lines.getvalue().split(" ", 1)[1] == "INFO service Loaded\\nx status=200\n"


def test_text_has_the_traceback(lines):
    start(log_format="text")
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("service").exception("Failed.")
    assert "ValueError: modiste_***" in lines.getvalue()


def test_the_level_is_kept(lines):
    start(log_level="error")
    logging.getLogger("service").warning("Odd.")
    logging.getLogger("uvicorn.error").info("Started.")
    assert lines.getvalue() == ""


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error"])
def test_lines_of_the_server_are_lines_like_others(lines, name):
    server = logging.getLogger(name)
    server.addHandler(logging.StreamHandler(io.StringIO()))
    server.propagate = False
    start()
    server.info("Started.", extra={"color_message": "\x1b[1mStarted.\x1b[0m"})
    found = entry(lines)
    assert (found["logger"], found["message"]) == (name, "Started.")
    assert "color_message" not in found


def test_the_server_logs_no_address_of_its_own(lines):
    # Its line has the query, in which a filter or a key that was put in the wrong place would stand.
    start(log_level="debug")
    logging.getLogger("uvicorn.access").info('"GET /v1/items?key=1"')
    assert lines.getvalue() == ""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_line_has_a_key(lines, log_format):
    start(log_format=log_format)
    try:
        raise ValueError(KEY)
    except ValueError:
        logging.getLogger("service").exception("Got %s.", KEY, extra={"header": f"Bearer {KEY}", "all": {"key": KEY}})
    assert "modiste_***" in lines.getvalue()
    assert "Ab-_" not in lines.getvalue()
    assert "xyz" not in lines.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_line_has_a_photo(lines, log_format):
    start(log_format=log_format)
    logging.getLogger("service").info("Got %r.", b"\xff\xd8photo", extra={"body": bytearray(b"photo")})
    assert "Got '<7 bytes>'." in lines.getvalue()
    assert "<5 bytes>" in lines.getvalue()
    assert "photo" not in lines.getvalue()


def test_a_long_message_is_cut(lines):
    start()
    logging.getLogger("service").info("x" * 20_000)
    assert entry(lines)["message"] == "x" * 10_000 + "..."
