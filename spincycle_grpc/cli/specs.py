"""The types of requests as `spinc` shows them, and as it looks them up."""

from __future__ import annotations

from spincycle_grpc.cli.output import value_text
from spincycle_grpc.client import Client
from spincycle_grpc.v1.request_pb2 import ARG_TYPE_REQUIRED, RequestArg, RequestSpec


def find_spec(client: Client, name: str) -> RequestSpec | None:
    """Returns the spec of a type of request; None when there is no such type.

    Raises:
        SpinCycleError: The server cannot be asked.
    """
    return next((spec for spec in client.request_list() if spec.name == name), None)


def is_required(arg: RequestArg) -> bool:
    """Whether a request cannot be made without an arg."""
    return arg.type == ARG_TYPE_REQUIRED


def default_text(arg: RequestArg) -> str:
    """Returns the default of an arg; nothing when it has none."""
    return value_text(arg.default) if arg.HasField("default") else ""


def usage(spec: RequestSpec) -> str:
    """Returns the args of a request: `required [optional=default]`."""
    return " ".join(
        arg.name if is_required(arg) else f"[{arg.name}={default_text(arg)}]" for arg in spec.args
    )
