"""Checks what a Job Runner says about itself in the first message of its stream."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.v1.runner_reports_pb2 import KnownJobTypes, RunnerInfo
from spincycle_server.capabilities import ID_LENGTH, bad_feature, bad_label
from spincycle_server.request_manager.asked_types import MAX_TYPES
from spincycle_server.store.schema import MAX_TYPE

MAX_URL = 300
"""The maximum length of a runner's URL, which users see as the URL of their job chains."""

RUNNER_ID = re.compile(r"[0-9A-Za-z]{1,20}")
"""What the id of a runner looks like."""

_HOST_AND_PORT = re.compile(r"([0-9A-Za-z_][0-9A-Za-z._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
_SCHEMES = frozenset({"dns", "google-c2p", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds"})
"""Host names that gRPC takes for the scheme of a target: "unix:5" is the socket with the path "5"."""


def check_runner_info(runner: RunnerInfo) -> None:
    """Checks the id, the addresses, the labels and the features of a runner.

    The Request Manager calls the gRPC address, so it must be a plain host and port: gRPC would also accept
    unix sockets and names of other schemes. Users see the URL, so it must not carry anything else.

    Raises:
        InvalidArgumentError: The id is missing or invalid (RUNNER_UNKNOWN), or an address is invalid
            (BAD_ADDRESS), or a label is (BAD_LABELS), or a feature is (BAD_FEATURES).
    """
    if not (runner.runner_id and runner.url and runner.grpc_address):
        raise InvalidArgumentError(
            "the field runner must have a runner_id, a url and a grpc_address", reason="RUNNER_UNKNOWN"
        )
    if not RUNNER_ID.fullmatch(runner.runner_id):
        raise InvalidArgumentError(
            "the runner_id must be at most 20 characters of 0-9A-Za-z", reason="RUNNER_UNKNOWN"
        )
    if not _is_host_and_port(runner.grpc_address):
        raise _bad_address("grpc_address", "host:port, for example 10.0.0.2:32317")
    if not _is_url(runner.url):
        raise _bad_address(
            "url", f"http://host:port or https://host:port with at most {MAX_URL} characters in all"
        )
    problem = bad_label(runner.labels)
    if problem:
        raise InvalidArgumentError(f"the field labels of a runner {problem}", reason="BAD_LABELS")
    problem = bad_feature(runner.features)
    if problem:
        raise InvalidArgumentError(f"the features of a runner {problem}", reason="BAD_FEATURES")


def check_known_types(known: KnownJobTypes) -> None:
    """Checks the job types that a runner knows.

    Raises:
        InvalidArgumentError: They are too many or too long. Reason: BAD_JOB_TYPES.
    """
    if len(known.version) > ID_LENGTH:
        raise _bad_types(f"the version must have at most {ID_LENGTH} characters")
    if len(known.types) > MAX_TYPES:
        raise _bad_types(f"they are {len(known.types)}, and must be at most {MAX_TYPES}")
    if any(not 0 < len(one.encode()) <= MAX_TYPE for one in known.types):
        raise _bad_types(f"each must have 1 to {MAX_TYPE} bytes")


def _bad_types(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the job types of a runner are not valid: {what}", reason="BAD_JOB_TYPES")


def _is_host_and_port(text: str) -> bool:
    match = _HOST_AND_PORT.fullmatch(text)
    return match is not None and match[1].lower() not in _SCHEMES and 0 < int(match[2]) <= 65535


def _is_url(text: str) -> bool:
    if len(text) > MAX_URL or not (text.isascii() and text.isprintable()):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    is_plain = parts.path in ("", "/") and "?" not in text and "#" not in text
    return parts.scheme in ("http", "https") and is_plain and _is_host_and_port(parts.netloc)


def _bad_address(field: str, form: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the {field} of a runner must be {form}", reason="BAD_ADDRESS")
