"""`spinc retry` and `spinc rerun`: what they call, and what they show."""

from __future__ import annotations

import json

from spincycle_grpc import State, errors
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1.request_pb2 import RequestArg
from tests.cli.conftest import Spinc
from tests.fake_manager import REQUEST_ID, RETRY_ID, FakeManager, stage


def test_a_request_is_retried(manager: FakeManager, spinc: Spinc) -> None:
    result = spinc("retry", REQUEST_ID, "--from", "aB3x", "--idempotency-key", "key")
    assert (result.exit_code, result.stdout) == (0, f"{RETRY_ID}\n")
    (asked,) = manager.requests("Retry")
    assert (asked.request_id, asked.from_job, asked.idempotency_key) == (REQUEST_ID, "aB3x", "key")
    shown = json.loads(spinc("retry", REQUEST_ID, "--json").stdout)
    assert (shown["id"], shown["retryOf"]) == (RETRY_ID, REQUEST_ID)


def test_a_refused_retry_shows_the_reason(manager: FakeManager, spinc: Spinc) -> None:
    message = "retry x of the request has not ended: wait for it, or stop it"
    manager.failures["Retry"] = [errors.FailedPreconditionError(message, reason="RETRY_NOT_ENDED")]
    result = spinc("retry", REQUEST_ID)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", f"spinc: {message}\n")


def test_a_request_that_was_retried_is_retried_only_again(manager: FakeManager, spinc: Spinc) -> None:
    retried = stage(State.FAIL, 2)
    retried.retried_by = RETRY_ID
    manager.stages = [retried]
    refused = spinc("retry", REQUEST_ID)
    assert refused.exit_code == 2
    assert f"was retried by {RETRY_ID}, which may have done more: retry that one" in refused.stderr
    assert manager.requests("Retry") == []
    assert spinc("retry", REQUEST_ID, "--again").exit_code == 0
    assert spinc("retry", REQUEST_ID, "--idempotency-key", "key").exit_code == 0
    assert len(manager.requests("Retry")) == 2


def test_who_may_not_see_a_request_may_retry_it(manager: FakeManager, spinc: Spinc) -> None:
    manager.failures["Get"] = [errors.PermissionDeniedError("denied", reason="ACCESS_DENIED")]
    assert spinc("retry", REQUEST_ID).stdout == f"{RETRY_ID}\n"


def test_a_retry_needs_either_a_request_or_filters(manager: FakeManager, spinc: Spinc) -> None:
    for arguments, message in (
        ((), "name a request, or filter requests"),
        ((REQUEST_ID, "--type", "nap"), "not both"),
        (("--type", "nap", "--wait"), "need an ID"),
        (("--type", "nap", "--from", "drain"), "need an ID"),
        (("--type", "nap", "--again"), "need an ID"),
    ):
        result = spinc("retry", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    assert manager.asked == []


def test_a_request_is_created_again_with_the_args_that_were_given(manager: FakeManager, spinc: Spinc) -> None:
    seen = stage(State.FAIL, 2)
    seen.args.append(RequestArg(name="ms", given=True, value=to_value(7, "ms")))
    seen.args.append(RequestArg(name="host", given=False, value=to_value("localhost", "host")))
    manager.stages = [seen]
    result = spinc("rerun", REQUEST_ID)
    assert (result.exit_code, result.stdout) == (0, f"{REQUEST_ID}\n")
    (asked,) = manager.requests("Create")
    assert (asked.type, dict(asked.args), asked.strict_args) == ("nap", {"ms": 7}, True)


def test_a_request_whose_args_were_left_out_is_not_created_again(manager: FakeManager, spinc: Spinc) -> None:
    seen = stage(State.FAIL, 2)
    seen.args_omitted = True
    manager.stages = [seen]
    assert spinc("rerun", REQUEST_ID).exit_code == 5
    assert manager.requests("Create") == []
