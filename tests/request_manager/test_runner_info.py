"""What a Job Runner may say about itself."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.runner_reports_pb2 import KnownJobTypes, RunnerInfo
from spincycle_server.request_manager.asked_types import MAX_TYPES
from spincycle_server.request_manager.runner_info import MAX_URL, check_known_types, check_runner_info

ID = "9vb2d3q0c7k5r1n8m4tg"


def refusal(
    runner_id: str = ID, url: str = "http://10.0.0.2:32307", grpc_address: str = "10.0.0.2:32317"
) -> str:
    """Returns the reason of the refusal; "" if the runner is accepted."""
    try:
        check_runner_info(RunnerInfo(runner_id=runner_id, url=url, grpc_address=grpc_address))
    except InvalidArgumentError as error:
        return error.reason
    return ""


def test_features_have_well_formed_names() -> None:
    runner = RunnerInfo(runner_id=ID, url="http://10.0.0.2:32307", grpc_address="10.0.0.2:32317")
    runner.features.append("pause")
    check_runner_info(runner)
    runner.features.append("two words")
    with pytest.raises(InvalidArgumentError) as caught:
        check_runner_info(runner)
    assert caught.value.reason == "BAD_FEATURES"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.2:1", "host:65535", "job_runner-1.internal.example.com:32317", "[::1]:5", "[fe80::1]:5"],
)
def test_a_host_and_a_port_are_an_address(address: str) -> None:
    assert refusal(grpc_address=address) == ""
    assert refusal(url=f"https://{address}") == ""
    assert refusal(url=f"http://{address}/") == ""


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.2", "host:0", "host:65536", "host:-1", "host:", ":32317", "::1:5", "unix:/run/socket",
        "unix:5", "DNS:5",
        "dns:///host:5", "ipv4:10.0.0.2:5", "xds:///host:5", "host:5,other:6", "user@host:5", "host:5/path",
        "host name:5", "host\n:5", "host\0:5", "-host:5", "h\N{LATIN SMALL LETTER O WITH DIAERESIS}st:5",
        "h" * 254 + ":5",
    ],
)  # fmt: skip
def test_anything_else_is_not_a_grpc_address(address: str) -> None:
    assert refusal(grpc_address=address) == "BAD_ADDRESS"


@pytest.mark.parametrize(
    "url",
    [
        "10.0.0.2:32307", "ftp://host:5", "javascript:alert(1)", "http://host", "http://user:secret@host:5",
        "http://host:5/path", "http://host:5?query", "http://host:5/?", "http://host:5#fragment", "http://:5",
        "http://host:99999", "http://[::1:5", "http://host\n:5", "http://ho\x1bst:5", "http://host:5\0",
        "http://h\N{LATIN SMALL LETTER O WITH DIAERESIS}st:5", "http://" + "h" * (MAX_URL - 8) + ":5",
    ],
)  # fmt: skip
def test_a_url_has_only_a_scheme_a_host_and_a_port(url: str) -> None:
    assert refusal(url=url) == "BAD_ADDRESS"


@pytest.mark.parametrize(
    "runner_id", ["", "9" * 21, "9vb2 d3q", "../x", "id\0", "\N{DIGIT ONE}\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_an_id_has_at_most_twenty_letters_and_digits(runner_id: str) -> None:
    assert refusal(runner_id=runner_id) == "RUNNER_UNKNOWN"


def test_no_field_may_be_missing() -> None:
    assert refusal(url="") == refusal(grpc_address="") == "RUNNER_UNKNOWN"


@pytest.mark.parametrize(
    "labels", [{"": "a"}, {"zone": ""}, {"zone": "a b"}, {f"l{n}": "a" for n in range(51)}]
)
def test_malformed_labels_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_runner_info(
            RunnerInfo(runner_id=ID, url="http://10.0.0.2:1", grpc_address="10.0.0.2:2", labels=labels)
        )
    assert caught.value.reason == "BAD_LABELS"


@pytest.mark.parametrize(
    "known",
    [
        KnownJobTypes(version="v" * 33),
        KnownJobTypes(types=[""]),
        KnownJobTypes(types=["t" * 76]),
        KnownJobTypes(types=["ä" * 38]),
        KnownJobTypes(types=["t"] * (MAX_TYPES + 1)),
    ],
)
def test_job_types_that_cannot_be_right_are_refused(known: KnownJobTypes) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_known_types(known)
    assert caught.value.reason == "BAD_JOB_TYPES"


def test_the_longest_job_types_are_accepted() -> None:
    check_known_types(KnownJobTypes(version="v" * 32, types=["t" * 75] * MAX_TYPES))
