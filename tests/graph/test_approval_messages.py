"""Messages of approvals: people see the args that they decide about, or the request is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.graph import ChainBuilder
from spincycle_server.specs.approval import MAX_MESSAGE, MAX_SHOWN_VALUE
from spincycle_server.specs.model import ApprovalSpec
from tests.graph.job_types import factory
from tests.graph.models import node, sequence, specs


def message_of(text: str, **args: object) -> str:
    asked = ApprovalSpec(roles=("dba",), message=text)
    permit = replace(node("permit", "approval", args=list(args)), approval=asked)
    sequences = specs(sequence("request", permit, request=True, required=list(args)))
    chain = ChainBuilder(sequences, factory).build("request", args, "").job_chain
    (message,) = (job.approval.message for job in chain.jobs.values() if job.HasField("approval"))
    return message


def test_a_message_shows_all_of_many_hosts() -> None:
    hosts = [f"web{number}.example.com" for number in range(40)]
    assert all(host in message_of("Stop {hosts}?", hosts=hosts) for host in hosts)
    assert message_of("Stop {hosts}?", hosts=",".join(hosts)) == f"Stop {','.join(hosts)}?"


def test_a_very_long_value_is_shortened_visibly() -> None:
    for value in ("x" * 5000, ["x"] * 5000):
        message = message_of("{value}", value=value)
        assert (len(message), "\u2026" in message) == (MAX_SHOWN_VALUE, True)


def test_a_request_whose_message_is_too_long_is_refused() -> None:
    fits = "x" * (MAX_MESSAGE - 2 * MAX_SHOWN_VALUE) + "{a}{b}"
    long = "x" * MAX_SHOWN_VALUE
    assert len(message_of(fits, a=long, b=long)) == MAX_MESSAGE
    with pytest.raises(InvalidArgumentError, match=r"node permit: .* has 2001 characters") as caught:
        message_of(f"{fits}!", a=long, b=long)
    assert caught.value.reason == "APPROVAL_MESSAGE_TOO_LONG"
