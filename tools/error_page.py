"""Writes docs/errors.md from the comments of the enum ErrorReason.

With `--check` it only fails if the page differs. `python tools/protos.py generate` and `check` run it.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from spincycle_grpc.contracts import comments
from spincycle_grpc.errors import Status

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

ENUM = "spincycle.v1.ErrorReason"
PREFIX = "ERROR_REASON_"

_COMMENT = re.compile(r"(?P<statuses>[A-Z_]+(?:, [A-Z_]+)*): (?P<meaning>.+?)\. (?P<remedy>.+)\.", re.DOTALL)

_HEAD = "| reason | meaning | what to do |\n| --- | --- | --- |\n"
_MARK = "<!-- `make protos` writes everything below from protos/spincycle/v1/errors.proto. -->\n"


class CommentError(Exception):
    """The comment of a reason does not have the form `STATUS: meaning. What to do.`."""


def page_of(comments: Mapping[str, str], introduction: str) -> str:
    """Returns the page.

    Args:
        comments: The comments of the contracts, by full name.
        introduction: The text above the tables.

    Raises:
        CommentError: A comment has the wrong form. The message names the reason.
    """
    rows: dict[str, list[str]] = defaultdict(list)
    for name, comment in comments.items():
        if not name.startswith(f"{ENUM}.{PREFIX}"):
            continue
        reason = name.removeprefix(f"{ENUM}.{PREFIX}")
        statuses, meaning, remedy = parts(reason, comment)
        also = f" (also {', '.join(statuses[1:])})" if len(statuses) > 1 else ""
        rows[statuses[0]].append(f"| `{reason}` | {meaning}{also} | {remedy} |\n")
    tables = [
        f"\n## {status.name}, HTTP {_http(status)}\n\n{_HEAD}" + "".join(rows[status.name])
        for status in Status
        if status.name in rows
    ]
    return introduction + _MARK + "".join(tables)


def parts(reason: str, comment: str) -> tuple[list[str], str, str]:
    """Returns the statuses, the meaning and the remedy in a comment, each without its full stop.

    Raises:
        CommentError: The comment has the wrong form.
    """
    match = _COMMENT.fullmatch(comment)
    statuses = match["statuses"].split(", ") if match else []
    if match is None or not set(statuses) <= set(Status.__members__):
        raise CommentError(
            f"the comment of {PREFIX}{reason} must have the form `STATUS: meaning. What to do.`"
        )
    return statuses, match["meaning"], match["remedy"]


def _http(status: Status) -> str:
    return "401 or 403" if status is Status.PERMISSION_DENIED else str(status.http_status)


def main(arguments: list[str]) -> int:
    """Writes or checks the page. Returns the exit status."""
    try:
        earlier = PAGE.read_text()
        page = page_of(comments(), earlier.partition(_MARK)[0])
    except CommentError as error:
        print(f"errors.md: {error}", file=sys.stderr)
        return 1
    if arguments != ["--check"]:
        PAGE.write_text(page)
    elif page != earlier:
        print("errors.md: docs/errors.md differs from errors.proto, run `make protos`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
