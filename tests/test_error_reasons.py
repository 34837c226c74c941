"""errors.proto lists exactly the reasons that the code uses, each with its status."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from spincycle_grpc import contracts
from spincycle_grpc.errors import ERROR_CLASSES, Status
from spincycle_grpc.v1.errors_pb2 import ErrorReason
from tools.error_page import ENUM, PREFIX, CommentError, page_of, parts

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = (REPOSITORY / "server" / "spincycle_server", REPOSITORY / "spincycle_grpc")
POSITIONAL = {"PlanError": 1, "bad_arg": 1, "broken_spec": 1}
"""The functions and classes that take a reason without its name, with the position of the argument."""

HELP = (
    "Each reason is defined in protos/spincycle/v1/errors.proto, and nowhere else. Add ERROR_REASON_<reason> "
    "with the next number and a comment of the form `STATUS: meaning. What to do.`, then run `make protos`. "
    "Remove an unused reason if it was never released. Otherwise, mark it as deprecated."
)
STATUS_BY_CLASS = {error.__name__: status for status, error in ERROR_CLASSES.items()}


def listed() -> set[str]:
    return {name.removeprefix(PREFIX) for name in ErrorReason.DESCRIPTOR.values_by_name}


@cache
def trees() -> dict[Path, ast.Module]:
    """The modules of both packages, without the stubs."""
    paths = [path for source in SOURCES for path in source.rglob("*.py") if "_pb2" not in path.name]
    return {path: ast.parse(path.read_text()) for path in paths}


def texts_in(node: ast.AST) -> Iterator[str]:
    """Yields the texts that an expression can have, of which it may choose one."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def reasons_in(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yields each reason that a module uses, with the name of what is called, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            arguments = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            if called in POSITIONAL:
                arguments += node.args[POSITIONAL[called] : POSITIONAL[called] + 1]
            for argument in arguments:
                yield from ((text, called, node.lineno) for text in texts_in(argument))
        elif isinstance(node, ast.Compare) and getattr(node.left, "attr", "") == "reason":
            for right in node.comparators:
                yield from ((text, "", node.lineno) for text in texts_in(right))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in node.args.kwonlyargs]
            for name, default in zip(names, node.args.kw_defaults, strict=True):
                if name == "reason" and default is not None:
                    yield from ((text, "", node.lineno) for text in texts_in(default) if text)


def used() -> dict[str, list[str]]:
    """The reasons that the code uses, with the places."""
    found = defaultdict(list)
    for path, tree in trees().items():
        for reason, _, line in reasons_in(tree):
            found[reason].append(f"{path.relative_to(REPOSITORY)}:{line}")
    return found


def test_every_reason_in_the_code_is_listed() -> None:
    missing = {reason: places for reason, places in used().items() if reason not in listed()}
    assert not missing, f"errors.proto lacks {missing}. {HELP}"


def test_every_listed_reason_is_in_the_code() -> None:
    texts = {text for tree in trees().values() for text in texts_in(tree)}
    unused = listed() - texts - set(Status.__members__)
    assert not unused, f"no code has the reasons {sorted(unused)}. {HELP}"


def test_every_status_is_a_reason_because_it_is_the_default() -> None:
    assert set(Status.__members__) <= listed()


def test_a_reason_has_the_statuses_of_the_errors_that_are_raised_with_it() -> None:
    comments = contracts.comments()
    wrong = []
    for path, tree in trees().items():
        for reason, called, line in reasons_in(tree):
            status, comment = STATUS_BY_CLASS.get(called), comments.get(f"{ENUM}.{PREFIX}{reason}")
            if status and comment and status.name not in parts(reason, comment)[0]:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line}: {reason} has no {status.name}")
    assert not wrong, f"{wrong}: add the status to the comment in errors.proto. {HELP}"


def test_a_missing_or_wrong_reason_is_found() -> None:
    tree = ast.parse(
        "raise NotFoundError('x', reason='NEW_ONE')\n"
        "scope.path.bad_arg('text', 'BAD_ONE', node)\n"
        "UnavailableError('x', reason='A' if late else 'B')\n"
        "if error.reason == 'SEEN': pass\n"
        "def f(*, reason='DEFAULT'): pass\n"
    )
    assert {reason for reason, _, _ in reasons_in(tree)} == {
        "NEW_ONE",
        "BAD_ONE",
        "A",
        "B",
        "SEEN",
        "DEFAULT",
    }


def test_the_page_has_a_row_for_each_reason() -> None:
    page = (REPOSITORY / "docs" / "errors.md").read_text()
    for reason in listed():
        assert f"| `{reason}` | " in page


@pytest.mark.parametrize("comment", ["No status. Do it.", "TEAPOT: no. Do it.", "INTERNAL: no remedy.", ""])
def test_a_comment_of_another_form_is_refused(comment: str) -> None:
    with pytest.raises(CommentError, match="ERROR_REASON_X must have the form"):
        page_of({f"{ENUM}.{PREFIX}X": comment}, "")
