"""Events become lines, whatever their fields are. Each test logs in a child process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.limits import COMMAND

PROGRAM = """
import logging, structlog
from spincycle_server.logs import configure_logs, set_level
configure_logs("info", {form!r})
logger = structlog.get_logger("test")
class Bad:
    def __repr__(self): raise ValueError("no text")
class BadError(Exception):
    def __str__(self): raise ValueError("no text")
circle = []; circle.append(circle)
{code}
"""


def logged(code: str, form: str = "json") -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form, code=code)],
        capture_output=True,
        timeout=COMMAND,
        check=True,
    )
    lines = done.stderr.decode().splitlines()
    return [json.loads(line) for line in lines] if form == "json" else lines


@pytest.mark.parametrize(
    "value",
    ["'\\ud800'", "2**70", "circle", "Bad()", "{'\\udc80': 1}", "{1: Bad()}", "float('nan')", "b'\\xff'"],
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_a_field_of_any_value_is_logged(value: str, form: str) -> None:
    lines = logged(f"logger.info('said', field={value}, other='kept')", form)
    assert len(lines) == 1
    assert "said" in str(lines[0])
    assert "kept" in str(lines[0])


@pytest.mark.parametrize("error", ["ValueError('\\ud800')", "BadError()", "KeyError(Bad())"])
@pytest.mark.parametrize("form", ["json", "text"])
def test_any_exception_is_logged_with_its_traceback(error: str, form: str) -> None:
    log = "logger.error('failed', exc_info=e, note='\\ud800')"
    code = f"try:\n    raise {error}\nexcept Exception as e:\n    {log}"
    text = str(logged(code, form))
    assert "failed" in text
    assert "Error" in text
    assert "line" in text


def test_a_message_of_a_library_whose_args_do_not_fit_is_logged() -> None:
    (event,) = logged("logging.getLogger('mine').error('%d of %d', 'x')")
    assert event["level"] == "error"
    assert "%d of %d" in event["message"]


def test_the_level_can_change_while_a_logger_is_in_use() -> None:
    code = "\n".join(
        (
            "logger.info('one')",
            "set_level('error')",
            "logger.warning('two')",
            "logging.getLogger('mine').warning('two')",
            "logger.error('three')",
            "set_level('debug')",
            "logger.debug('four')",
        )
    )
    assert [event["message"] for event in logged(code)] == ["one", "three", "four"]


def test_a_caller_can_ask_whether_events_of_level_debug_are_written() -> None:
    code = "from spincycle_server.logs import writes_debug\n" + "\n".join(
        f"set_level({level!r}); logger.error('asked', answer=writes_debug())" for level in ("info", "debug")
    )
    assert [event["answer"] for event in logged(code)] == [False, True]


def test_an_event_has_its_time_in_utc_with_microseconds() -> None:
    before = time.time_ns() // 1000
    (event,) = logged("logger.info('said')")
    after = time.time_ns() // 1000
    assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{6}Z", event["timestamp"])
    logged_at = datetime.fromisoformat(event["timestamp"]) - datetime(1970, 1, 1, tzinfo=UTC)
    assert before <= logged_at // timedelta(microseconds=1) <= after


def test_control_characters_are_escaped_in_text() -> None:
    evil = "'\\x1b[2Ja\\nb\\x9b\\x07'"
    code = (
        f"logger.info({evil}, request_id={evil})\n"
        f"logging.getLogger('other').error('%s', {evil})\n"
        f"try:\n    raise ValueError({evil})\nexcept ValueError:\n    logger.exception('failed')"
    )
    first, second, *rest = logged(code, "text")
    assert all(line.isprintable() for line in (first, second, *rest))
    assert first.count("\\x1b[2Ja\\nb\\x9b\\x07") == 2
    assert "\\x1b[2Ja\\nb\\x9b\\x07" in second
    assert rest[-2:] == ["ValueError: \\x1b[2Ja", "b\\x9b\\x07"]
