"""Structured logs on standard error, one line per event.

In a terminal a line is readable text, otherwise a JSON object. Every event has a time, a level and a
message. The fields request_id, job_id and runner_id name the subject of the event. Lines about a request that
belongs to a trace have trace_id and span_id too.

Logging never raises: a field that cannot be written is shown in another form, and a line that cannot be
written is lost and counted.
"""

from __future__ import annotations

import io
import logging
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import structlog

from spincycle_server.log_output import LogOutput, text_stream
from spincycle_server.telemetry.trace_lines import trace_lines

if TYPE_CHECKING:
    from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_LIBRARIES = ("uvicorn", "uvicorn.error", "grpc", "alembic", "asyncio", "sqlalchemy")

LOST_LINES = "lines of the log could not be written"
"""The message of the event that reports how many lines were lost (field `lines`)."""


def configure_logs(level: str, form: str) -> None:
    """Sets up logging for the whole process. Writes to standard output and error never raise from now on.

    Args:
        level: "debug", "info", "warning" or "error".
        form: "json", "text", or "auto", which is text in a terminal and JSON otherwise.
    """
    is_terminal = sys.stderr.isatty()
    if form == "auto":
        form = "text" if is_terminal else "json"
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        _add_time,
        _add_trace,
    ]
    line = _JsonLine() if form == "json" else _Line([*processors, *_text_processors(is_terminal)])
    output = LogOutput(2, lambda lost: line(None, "warning", {"event": LOST_LINES, "lines": lost}))
    sys.stdout = text_stream(LogOutput(1, _no_report), 1)
    sys.stderr = text_stream(output, 2)
    structlog.configure(
        processors=[_drop_below_level, line],
        # `_Logger` and `_drop_below_level` filter, because the level can change while the process runs.
        wrapper_class=_Logger,
        logger_factory=lambda *_: _LineLogger(output),
        cache_logger_on_first_use=True,
    )
    _Output.used = output
    set_level(level)


def name_process(**fields: object) -> None:
    """Adds fields to all lines of this process, such as the number of a worker."""
    _Process.fields = fields


def lost_lines() -> int:
    """Returns how many lines of the log could not be written since the start."""
    return 0 if _Output.used is None else _Output.used.lost_in_all


def set_level(level: str) -> None:
    """Changes the level of the log, also while the process runs.

    Args:
        level: "debug", "info", "warning" or "error".
    """
    _Level.number = _LEVELS[level.lower()]
    _redirect_library_logs(max(_Level.number, logging.WARNING))


def writes_debug() -> bool:
    """Whether the log has events of level debug. Ask this first where every call would log one."""
    return _Level.number <= logging.DEBUG


class _Output:
    """The output of the log; None before it is set up."""

    used: LogOutput | None = None


class _Process:
    """The fields of all lines of this process."""

    fields: Mapping[str, object] = {}


class _Level:
    """The level of the log. Events below it are dropped."""

    number = logging.INFO


def _drop_below_level(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if _LEVELS.get(method, logging.ERROR) < _Level.number:
        raise structlog.DropEvent
    return event


def _add_time(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    event["timestamp"] = f"{_second(seconds)}.{microseconds:06d}Z"
    return event


def _add_trace(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if trace_lines and (fields := trace_lines.fields(event.get("request_id"))) is not None:
        return {**fields, **event}
    return event


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


class _Logger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc]
    """Drops frequent events below the level at once, before they are processed."""

    def debug(self, event: str, *args: Any, **fields: Any) -> Any:
        """Logs an event of level debug."""
        return super().debug(event, *args, **fields) if _Level.number <= logging.DEBUG else None

    def info(self, event: str, *args: Any, **fields: Any) -> Any:
        """Logs an event of level info. Each request has some, so this takes fewer steps than structlog."""
        if _Level.number > logging.INFO:
            return None
        processors = self._processors
        if args or processors[0] is not _drop_below_level:  # as when a test captures the log
            return super().info(event, *args, **fields)
        return self._logger.msg(processors[1](None, "info", {**self._context, **fields, "event": event}))


class _LineLogger:
    """Passes the lines of structlog to the output."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output

    def msg(self, line: bytes) -> None:
        """Writes a line."""
        self._output.write(line)

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _Line:
    """Turns an event into a line. Raises nothing, whatever the fields of the event are."""

    def __init__(self, processors: Sequence[Processor]) -> None:
        self._processors = processors

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        if _Process.fields:
            event = {**event, **_Process.fields}
        try:
            return self._line(logger, method, dict(event))
        except Exception:
            return self._line(logger, method, _plain(event))

    def _line(self, logger: WrappedLogger, method: str, event: Any) -> bytes:
        for processor in self._processors:
            event = processor(logger, method, event)
        return event if isinstance(event, bytes) else str(event).encode("utf-8", "backslashreplace")


class _JsonLine(_Line):
    """Turns an event into a JSON object. One function, because each request has several events."""

    def __init__(self) -> None:
        super().__init__(())

    def _line(self, logger: WrappedLogger, method: str, event: Any) -> bytes:
        event = _add_time(logger, method, structlog.processors.add_log_level(logger, method, event))
        if trace_lines:
            event = _add_trace(logger, method, event)
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, method, event)
        event["message"] = event.pop("event")
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)


def _plain(event: Mapping[str, object]) -> dict[str, object]:
    """Returns an event whose fields are text, in which escapes replace lone surrogates."""
    plain: dict[str, object] = {_as_text(name): _as_text(value) for name, value in event.items()}
    if plain.pop("exc_info", None) is not None:
        plain["exception"] = _as_text(_traceback_of(event["exc_info"]))
    return plain


def _as_text(value: object) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
        return str.__str__(text).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return f"<{type(value).__name__}>"


def _traceback_of(exc_info: object) -> str:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1]
    try:
        return "" if error is None else "".join(traceback.format_exception(error))
    except Exception:
        return f"<{type(error).__name__}>"


def _no_report(lost: int) -> bytes:
    return b""


def _text_processors(is_terminal: bool) -> list[Processor]:
    return [
        _escape_texts,
        structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=_write_traceback),
    ]


def _escape_texts(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escapes control characters: a caller could change the terminal with them, or forge a line."""
    return {
        name: value if not isinstance(value, str) or name == "exception" else _on_one_line(value)
        for name, value in event.items()
    }


def _write_traceback(output: TextIO, exc_info: ExcInfo) -> None:
    # The formatter of rich would show the values of local variables, including passwords.
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    output.write("\n".join(map(_on_one_line, text.getvalue().split("\n"))))


def _on_one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "backslashreplace").decode()
        for character in text
    )


class _LibraryHandler(logging.Handler):
    """Logs the records of libraries and jobs as events."""

    def emit(self, record: logging.LogRecord) -> None:
        logger: WrappedLogger = structlog.get_logger("library")
        method = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(logger, method)(
            _message_of(record),
            logger=record.name,
            **({"exc_info": record.exc_info} if record.exc_info else {}),
        )


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # The args do not fit the message, which would raise in the code that logs.
        return f"{_as_text(record.msg)} {_as_text(record.args)}"


def _redirect_library_logs(level: int) -> None:
    root = logging.getLogger()
    root.handlers = [_LibraryHandler()]
    root.setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True
        library.setLevel(level)
