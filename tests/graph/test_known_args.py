"""Args that the spec of a request does not name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.graph.known_args import check_known_args
from spincycle_server.specs.model import ArgSpec, SequenceSpec
from tests.graph.models import NOWHERE, node, sequence


def an_arg(name: str, default: str | None = None) -> ArgSpec:
    return ArgSpec(name, desc="", default=default, position=NOWHERE)


SPEC = replace(
    sequence("deploy", node("job"), request=True),
    required=(an_arg("host"),),
    optional=(an_arg("channel", "stable"),),
    static=(an_arg("fixed", "1"),),
)


def refusal(spec: SequenceSpec, *given: str) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        check_known_args(spec, given)
    assert caught.value.reason == "UNKNOWN_ARG"
    return caught.value


@pytest.mark.parametrize("given", [(), ("host",), ("host", "channel"), ("fixed",)])
def test_args_of_the_spec_are_known(given: tuple[str, ...]) -> None:
    check_known_args(SPEC, given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chanel", "request deploy has no arg 'chanel': did you mean channel?"),
        ("Host", "request deploy has no arg 'Host': did you mean host?"),
        ("zzz", "request deploy has no arg 'zzz': its args are channel, host"),
        ("", "request deploy has no arg '': its args are channel, host"),
    ],
)
def test_an_unknown_arg_is_refused_with_the_nearest_name(name: str, message: str) -> None:
    error = refusal(SPEC, "host", name)
    assert (str(error), error.field) == (message, f"args.{name}")


def test_a_request_without_args_says_so() -> None:
    assert str(refusal(sequence("nap", node("job"), request=True), "x")).endswith("it takes no args")


def test_names_in_the_message_are_limited() -> None:
    wide = replace(SPEC, optional=tuple(an_arg(f"a{number:02d}", "") for number in range(100)))
    message = str(refusal(wide, "x" * 100_000))
    assert message.endswith("its args are a00, a01, a02, a03, a04, a05, a06, a07, a08, a09, ...")
    assert len(message) < 300
