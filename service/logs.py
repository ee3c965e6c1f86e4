"""Logs of the service: JSON lines or text, each with the id of its request, none with a key or a photo."""

from __future__ import annotations

import logging
import logging.config
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from service.keys import PREFIX
from service.settings import Settings

# Of the request that is being answered; empty outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")
_KEY = re.compile(PREFIX + r"[A-Za-z0-9_-]{20,}")
_LONGEST = 10_000
# What every record has; all else was given as `extra`.
_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "request_id", "color_message"}


def configure(settings: Settings) -> None:
    """Sends everything that is logged in this process, uvicorn's lines too, to standard error.

    Args:
        settings: Its log_format and log_level.
    """
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JsonLines}, "text": {"()": TextLines}},
            "filters": {"request": {"()": OfRequest}},
            "handlers": {
                "lines": {"class": "logging.StreamHandler", "formatter": settings.log_format, "filters": ["request"]}
            },
            "root": {"level": settings.log_level.upper(), "handlers": ["lines"]},
            "loggers": {
                "uvicorn": {"handlers": [], "propagate": True},
                "uvicorn.error": {"handlers": [], "propagate": True},
                # Six lines at each start about which of its builds it tries.
                "faiss": {"level": "WARNING"},
                # shields.py logs a line per request that says more, and shows no query.
                "uvicorn.access": {"handlers": [], "propagate": False, "level": "CRITICAL"},
            },
        }
    )


class OfRequest(logging.Filter):
    """Says of each record which request it is of, and takes out the bytes of photos."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mends the record; all pass."""
        record.request_id = request_id.get()
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_bytes, record.args))
        for name in vars(record).keys() - _RECORD:
            setattr(record, name, _without_bytes(getattr(record, name)))
        return True


class JsonLines(JsonFormatter):
    """A JSON object a line: time, level, logger, message, request_id, what was given as extra, and the traceback."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message", "request_id"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
            reserved_attrs=[*_RECORD],
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """The fields that say something."""
        return {name: value for name, value in log_data.items() if value not in (None, "")}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return _without_keys(super().format(record))

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Adds the time, first, to what the library collects."""
        log_data["time"] = _time(record)
        super().add_fields(log_data, record, message_dict)
        log_data["message"] = _cut(str(log_data.get("message", "")))


class TextLines(logging.Formatter):
    """A line for people: time, level, logger, message, then name=value of what was given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it."""
        extras = {name: getattr(record, name) for name in sorted(vars(record).keys() - _RECORD)}
        if named := getattr(record, "request_id", ""):
            extras["request_id"] = named
        words = [_time(record), record.levelname, record.name, _cut(record.getMessage())]
        words += [f"{name}={value}" for name, value in extras.items() if value not in (None, "")]
        # A line stays a line, whatever a client managed to have logged.
        line = " ".join(words).replace("\r", "\\r").replace("\n", "\\n")
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return _without_keys(line + trace)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _without_bytes(value: Any) -> Any:
    return f"<{len(value)} bytes>" if isinstance(value, bytes | bytearray | memoryview) else value


def _without_keys(line: str) -> str:
    return _KEY.sub(PREFIX + "***", line)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
