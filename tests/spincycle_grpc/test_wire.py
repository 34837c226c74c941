"""The JSON codec: recorded bodies, round trips, and input that it must refuse."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from spincycle_grpc import wire
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import LARGEST_EXACT, MAX_DEPTH
from spincycle_grpc.v1 import (
    error_pb2,
    job_log_pb2,
    job_pb2,
    job_runner_pb2,
    request_manager_pb2,
    request_pb2,
    runner_reports_pb2,
)
from tests.reference.recordings import CASES, EXCHANGES
from tests.spincycle_grpc.messages import MESSAGE_TYPES, json_values, messages

REFUSALS = {"BAD_JSON", "WRONG_TYPE", "NUMBER_TOO_LARGE", "TOO_DEEP"}

# Clients may leave out unset fields, and some errors of the original have only a message.
WRITTEN_IN_PART = {
    f"spincycle.v1.{name}"
    for name in ("CreateRequest", "Error", "ProgressRequest", "RecordLogRequest", "SuspendRequest")
}

UNREADABLE = {"create-bad-json", "create-type-number", "progress-empty"}
"""Recorded requests with invalid bodies."""

KEYS = {"type": "Type", "args": "Args", "user": "User"}
"""Keys that clients send in either case. The client of the original capitalizes them."""

METHODS = {
    "rm": [
        *request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"].methods,
        *runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"].methods,
    ],
    "jr": job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"].methods,
}


def recorded_bodies() -> list[Any]:
    """Returns every recorded JSON body that is a message, with its message type and field."""
    found: list[tuple[str, Descriptor, str, str]] = []
    for one in EXCHANGES:
        method = called_method(one)
        if method is None:
            continue
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        if rule.body and one["requestBody"] and one["name"] not in UNREADABLE:
            field = "" if rule.body == "*" else rule.body
            found.append((f"{one['name']}-sent", method.input_type, field, one["requestBody"]))
        if not one["headers"].get("Content-Type", "").startswith("application/json"):
            continue
        if one["status"] >= 400:
            found.append((one["name"], error_pb2.Error.DESCRIPTOR, "", one["body"]))
        else:
            found.append((one["name"], method.output_type, rule.response_body, one["body"]))
    for case in CASES:
        name = case["case"]
        for part in ("response", "request"):
            if "id" in (case.get(part) or {}):
                found.append((f"{name}-{part}", request_pb2.Request.DESCRIPTOR, "", json.dumps(case[part])))
        for number, entry in enumerate(case.get("job_log") or []):
            found.append((f"{name}-log-{number}", job_log_pb2.JobLog.DESCRIPTOR, "", json.dumps(entry)))
    return [pytest.param(*rest, id=name) for name, *rest in found]


def called_method(one: dict[str, Any]) -> MethodDescriptor | None:
    """Returns the method that an exchange calls, or None."""
    for method in METHODS[one["server"]]:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        kind = rule.WhichOneof("pattern")
        if kind is None or kind.upper() != one["method"]:
            continue
        pattern = re.sub(r"\{[^}]*\}", "[^/]+", getattr(rule, kind))
        if re.fullmatch(pattern, one["path"].partition("?")[0]):
            return method
    return None


def comparable(value: Any) -> Any:
    """Returns a JSON value without nulls, empty lists and empty maps."""
    if isinstance(value, dict):
        parts = {name: comparable(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not None} or None
    if isinstance(value, list):
        return [comparable(part) for part in value] or None
    return value


def without_omitted_keys(written: Any, sent: Any) -> Any:
    """Returns written JSON without empty values whose keys the sender left out."""
    if not isinstance(written, dict) or not isinstance(sent, dict):
        return written
    parts = {name: without_omitted_keys(part, sent.get(name, {})) for name, part in written.items()}
    return {name: part for name, part in parts.items() if name in sent or part}


def read_or_refused(message: Message, data: bytes, field: str = "") -> None:
    """Checks that input is either refused with a known reason, or can be written after it was read."""
    try:
        wire.decode_into(message, data, field)
    except InvalidArgumentError as error:
        if error.reason not in REFUSALS:
            raise
    else:
        wire.encode(message, field)


@pytest.mark.parametrize(("descriptor", "field", "text"), recorded_bodies())
def test_recorded_bodies_survive_the_round_trip(descriptor: Descriptor, field: str, text: str) -> None:
    message = GetMessageClass(descriptor)()
    wire.decode_into(message, text.encode(), field)
    written, recorded = json.loads(wire.encode(message, field)), json.loads(text)
    if descriptor.name == "CreateRequest":
        recorded = {KEYS.get(name, name): value for name, value in recorded.items()}
    if descriptor.full_name in WRITTEN_IN_PART:
        written = without_omitted_keys(written, recorded)
    assert comparable(written) == comparable(recorded)


def test_the_recordings_cover_all_kinds_of_bodies() -> None:
    covered = {parameters.values[0].full_name.rpartition(".")[2] for parameters in recorded_bodies()}
    assert covered >= {
        "CreateRequest", "CreateResponse", "Error", "FinishRequest", "JobLog", "NewJobChainRequest",
        "ProgressRequest", "Request", "RequestListResponse", "ResumeJobChainRequest", "RunningResponse",
        "SuspendRequest",
    }  # fmt: skip


@pytest.mark.parametrize("descriptor", MESSAGE_TYPES, ids=lambda one: one.name)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_message_survives_the_round_trip(descriptor: Descriptor, data: st.DataObject) -> None:
    message = data.draw(messages(descriptor))
    text = wire.encode(message)
    assert wire.decode(text, type(message)) == message
    assert wire.encode(wire.decode(text, type(message))) == text
    assert b"\n" not in text
    assert not any(sign in text.decode() for sign in "<>&\u2028\u2029")


@given(json_values)
def test_args_are_read_like_any_json_parser_does(value: Any) -> None:
    request = request_manager_pb2.CreateRequest()
    wire.decode_into(request, json.dumps({"type": "t", "args": {"a": value}}).encode())
    assert json.loads(wire.encode(request))["Args"]["a"] == value


@pytest.mark.parametrize(
    ("message_type", "text", "reason", "message"),
    [
        (request_manager_pb2.CreateRequest, "", "BAD_JSON", "EOF"),
        (request_manager_pb2.CreateRequest, '{"type":', "BAD_JSON", "unexpected EOF"),
        (
            request_manager_pb2.CreateRequest,
            "{'type'}",
            "BAD_JSON",
            "Syntax error: offset=2, error=invalid character '\\'' looking for beginning of object key string",  # noqa: E501
        ),
        (
            request_manager_pb2.CreateRequest,
            '{"type":3}',
            "WRONG_TYPE",
            "Unmarshal type error: expected=string, got=number, field=Type, offset=9",
        ),
        (
            request_manager_pb2.CreateRequest,
            '{"args":[]}',
            "WRONG_TYPE",
            "Unmarshal type error: expected=object, got=array, field=Args, offset=9",
        ),
        (
            job_pb2.JobChain,
            '{"jobs":{"ab12":{"retry":"2"}}}',
            "WRONG_TYPE",
            "Unmarshal type error: expected=uint64, got=string, field=jobs.ab12.retry, offset=28",
        ),
        (
            job_pb2.JobChain,
            '{"jobs":{"ab12":{"retry":18446744073709551616}}}',
            "WRONG_TYPE",
            "Unmarshal type error: expected=uint64, got=number 18446744073709551616,"
            " field=jobs.ab12.retry, offset=45",
        ),
        (
            job_pb2.JobChain,
            '{"adjacencyList":{"ab12":["x",5]}}',
            "WRONG_TYPE",
            "Unmarshal type error: expected=string, got=number, field=adjacencyList.ab12.1, offset=31",
        ),
        (
            request_manager_pb2.CreateRequest,
            '{"args":{"a":{"b":[1,9007199254740993]}}}',
            "NUMBER_TOO_LARGE",
            "Args.a.b[1]: 9007199254740993 is beyond 2^53, where numbers are not exact: pass it as a string",
        ),
        (
            request_manager_pb2.CreateRequest,
            '{"args":{"a":-123456789012345678901234567890}}',
            "NUMBER_TOO_LARGE",
            "Args.a: -12345678901234567890123456789 is beyond 2^53, where numbers are not exact:"
            " pass it as a string",
        ),
    ],
)
def test_errors_name_the_place_in_the_text(message_type: Any, text: str, reason: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        wire.decode(text.encode(), message_type)
    assert (caught.value.reason, caught.value.message) == (reason, message)


@pytest.mark.parametrize("number", [LARGEST_EXACT, -LARGEST_EXACT, 1e300, 0.1, -0.0])
def test_exact_numbers_are_accepted_up_to_the_limit(number: float) -> None:
    request = wire.decode(
        b'{"args":{"n":%s}}' % json.dumps(number).encode(), request_manager_pb2.CreateRequest
    )
    assert request.args["n"] == number
    assert json.loads(wire.encode(request))["Args"]["n"] == number


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 900, 200_000])
def test_args_that_nest_too_deeply_are_refused(levels: int) -> None:
    text = b'{"args":{"a":' + b"[" * levels + b"]" * levels + b"}}"
    if levels == MAX_DEPTH:
        wire.decode(text, request_manager_pb2.CreateRequest)
        return
    with pytest.raises(InvalidArgumentError) as caught:
        wire.decode(text, request_manager_pb2.CreateRequest)
    assert caught.value.reason in ("TOO_DEEP", "BAD_JSON")


def test_keys_are_matched_as_the_original_does() -> None:
    """Keys ignore case, the last duplicate wins, and unknown keys are ignored."""
    request = wire.decode(b'{"TYPE":"a","User":"u","nothing":[1,{}]}', request_manager_pb2.CreateRequest)
    assert (request.type, request.user) == ("a", "u")
    assert wire.decode(b'{"Type":"first","type":"last"}', request_manager_pb2.CreateRequest).type == "last"


def test_text_after_the_first_value_is_ignored() -> None:
    assert wire.decode(b'{"type":"t"} and {"more"', request_manager_pb2.CreateRequest).type == "t"


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for message_type in (request_manager_pb2.CreateRequest, job_pb2.SuspendedJobChain):
        read_or_refused(message_type(), data)


@given(st.sampled_from(MESSAGE_TYPES), json_values)
@settings(deadline=None)
def test_any_json_is_read_or_refused(descriptor: Descriptor, value: Any) -> None:
    named = {field.json_name: value for field in descriptor.fields}
    for text in (json.dumps(value), json.dumps(named)):
        read_or_refused(GetMessageClass(descriptor)(), text.encode())


@given(st.sampled_from(recorded_bodies()), st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bodies_are_read_or_refused(body: Any, data: st.DataObject) -> None:
    descriptor, field, text = body.values
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 10)))
    damaged = text[:start] + data.draw(st.text(max_size=4)) + text[end:]
    read_or_refused(GetMessageClass(descriptor)(), damaged.encode(), field)


def test_reading_into_a_field_replaces_its_content() -> None:
    request = request_pb2.Request(id="before", user="u")
    request.job_chain.request_id = "r"
    wire.decode_into(request, b'{"requestId":"new"}', "job_chain")
    assert (request.id, request.job_chain.request_id) == ("before", "new")
    wire.decode_into(request, b"null", "job_chain")
    assert not request.HasField("job_chain")


@pytest.mark.parametrize("jobs", [255, 256, 257, 512, 1000])
def test_large_chains_and_lists_are_written_like_small_ones(jobs: int) -> None:
    chain = job_pb2.JobChain(
        request_id="c", jobs={f"{n:04d}": job_pb2.Job(id=f"{n:04d}") for n in range(jobs)}
    )
    chain.jobs["0007"].name = 'a "name", with <marks> & more'
    written = wire.encode(chain)
    assert wire.decode(written, job_pb2.JobChain) == chain
    small = job_pb2.JobChain(request_id="c", jobs={key: chain.jobs[key] for key in ("0000", "0007")})
    whole, part = json.loads(written), json.loads(wire.encode(small))
    assert list(whole["jobs"]) == sorted(chain.jobs)
    assert {key: whole["jobs"][key] for key in part["jobs"]} == part["jobs"]

    entries = [job_log_pb2.JobLog(job_id=f"{n:04d}", name="<") for n in range(jobs)]
    log = request_manager_pb2.GetLogResponse(entries=entries)
    listed = wire.encode(log, "entries")
    assert listed == b"[" + b",".join(wire.encode(entry) for entry in entries) + b"]"
