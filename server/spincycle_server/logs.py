"""Structured logs on standard error, one line per event.

In a terminal a line is readable text, otherwise a JSON object. Every event has a time, a level and a
message. The fields request_id, job_id and runner_id name the subject of the event.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import orjson
import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_LIBRARIES = ("uvicorn", "uvicorn.error", "grpc", "alembic", "asyncio", "sqlalchemy")


def configure_logs(level: str, form: str) -> None:
    """Sets up logging for the whole process.

    Args:
        level: "debug", "info", "warning" or "error".
        form: "json", "text", or "auto", which is text in a terminal and JSON otherwise.
    """
    if form == "auto":
        form = "text" if sys.stderr.isatty() else "json"
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *_last_processors(form)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=(
            structlog.BytesLoggerFactory(sys.stderr.buffer)
            if form == "json"
            else structlog.PrintLoggerFactory(sys.stderr)
        ),
        cache_logger_on_first_use=True,
    )
    _redirect_library_logs(max(number, logging.WARNING))


def _last_processors(form: str) -> list[Processor]:
    if form == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    # The formatter of rich would show the values of local variables, including passwords.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _to_json(event: EventDict, **_: object) -> bytes:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)


class _LibraryHandler(logging.Handler):
    """Logs the records of libraries as events."""

    def emit(self, record: logging.LogRecord) -> None:
        logger: WrappedLogger = structlog.get_logger("library")
        method = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(logger, method)(
            record.getMessage(),
            logger=record.name,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


def _redirect_library_logs(level: int) -> None:
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    root.setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
        library.setLevel(level)
