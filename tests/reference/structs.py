"""The table of the original's structs, and the messages that stand for them."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor

from spincycle_grpc.v1 import (
    error_pb2,
    job_log_pb2,
    job_pb2,
    request_manager_pb2,
    request_pb2,
    runner_reports_pb2,
    status_pb2,
)
from tests.reference.recordings import DATA


@dataclass(frozen=True)
class Field:
    """One field of a struct.

    Attributes:
        name: The name in the struct.
        key: The key in JSON.
        omitempty: The original leaves the field out if it is empty.
        param: The name in a query string, for the structs that are filters.
    """

    name: str
    key: str
    omitempty: bool
    param: str


def _read() -> dict[str, list[Field]]:
    structs: dict[str, list[Field]] = {}
    lines = [line for line in (DATA / "structs.tsv").read_text().splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines, delimiter="\t"):
        field = Field(row["field"], row["key"], row["omitempty"] == "yes", row["param"])
        structs.setdefault(row["struct"], []).append(field)
    return structs


STRUCTS: dict[str, list[Field]] = _read()
"""The fields of each struct, by the name of the struct."""

FILTERS = {name for name, fields in STRUCTS.items() if fields[0].param != "-"}
"""The structs that the original reads from query strings."""

_MODULES = (
    error_pb2,
    job_log_pb2,
    job_pb2,
    request_manager_pb2,
    request_pb2,
    runner_reports_pb2,
    status_pb2,
)
MESSAGES: dict[str, Descriptor] = {
    name: descriptor
    for module in _MODULES
    for name, descriptor in module.DESCRIPTOR.message_types_by_name.items()
}
"""The messages by name. A struct and its message have the same name."""
