"""Serialized chains for runners, built without copying the messages inside them.

If a message becomes a field of another message, protobuf copies all of it. For a chain of 40,000 jobs that
blocks the event loop for 0.2 s. In serialized form, a message field is its tag, its length and its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.descriptor import Descriptor

from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.job_runner_pb2 import AssignedJobChain, StartJobChainsRequest, Suspect
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_server.chain import begun_sequences

_LENGTH_DELIMITED = 2
"""The wire type of messages, from protobuf.dev/programming-guides/encoding."""


def new_chain(epoch: int, job_chain: JobChain) -> bytes:
    """Returns the serialized AssignedJobChain of a new chain."""
    return _with_field(_head(epoch), _NEW, job_chain.SerializeToString())


def first_chain(epoch: int, job_chain: JobChain) -> bytes:
    """Returns the serialized AssignedJobChain of a chain that has not run.

    The chain of a retry has COMPLETE jobs. It is sent as a suspended chain, which runners of earlier versions
    know too.
    """
    if not job_chain.finished_jobs:
        return new_chain(epoch, job_chain)
    counters = SuspendedJobChain(
        request_id=job_chain.request_id, sequence_tries=begun_sequences(job_chain)
    ).SerializeToString()
    suspended = _with_field(counters, _SUSPENDED, job_chain.SerializeToString())
    return _with_field(_head(epoch), _RESUMED, suspended)


def resumed_chain(
    assignment: Assignment, suspended: SuspendedJobChain, suspect: Suspect | None = None
) -> bytes:
    """Returns the serialized AssignedJobChain of a chain to continue or to end, which may be a suspect."""
    head = AssignedJobChain(
        epoch=assignment.epoch, suspect=suspect, ending=assignment.ending
    ).SerializeToString()
    return _with_field(head, _RESUMED, suspended.SerializeToString())


def start_request(runner_id: str, chains: Sequence[bytes]) -> bytes:
    """Returns the serialized StartJobChainsRequest for serialized AssignedJobChains."""
    parts = [StartJobChainsRequest(runner_id=runner_id).SerializeToString()]
    for chain in chains:
        parts += (_CHAINS, _varint(len(chain)), chain)
    return b"".join(parts)


@lru_cache(maxsize=64)
def _head(epoch: int) -> bytes:
    """Returns the serialized epoch of an AssignedJobChain. It is 1 for nearly all new chains."""
    return AssignedJobChain(epoch=epoch).SerializeToString()


def _with_field(head: bytes, tag: bytes, data: bytes) -> bytes:
    """Returns a serialized message with one more field."""
    return b"".join((head, tag, _varint(len(data)), data))


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    """Returns a varint: seven bits per byte, lowest first. The highest bit says that another byte follows."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _tag(message: Descriptor, field: str) -> bytes:
    return _varint(message.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


_NEW = _tag(AssignedJobChain.DESCRIPTOR, "job_chain")
_RESUMED = _tag(AssignedJobChain.DESCRIPTOR, "suspended_job_chain")
_SUSPENDED = _tag(SuspendedJobChain.DESCRIPTOR, "job_chain")
_CHAINS = _tag(StartJobChainsRequest.DESCRIPTOR, "chains")
