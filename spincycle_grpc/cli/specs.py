"""Finds a type of request by name, and describes its args."""

from __future__ import annotations

from spincycle_grpc.cli.output import value_text
from spincycle_grpc.client import Client
from spincycle_grpc.v1.request_pb2 import ARG_TYPE_REQUIRED, RequestArg, RequestSpec


def find_spec(client: Client, name: str) -> RequestSpec | None:
    """Returns the spec of a type of request, or None if the type does not exist.

    Raises:
        SpinCycleError: The call failed.
    """
    return next((spec for spec in client.request_list() if spec.name == name), None)


def is_required(arg: RequestArg) -> bool:
    """Whether the caller must give the arg."""
    return arg.type == ARG_TYPE_REQUIRED


def default_text(arg: RequestArg) -> str:
    """Returns the default of an arg, or "" if it has none."""
    return value_text(arg.default) if arg.HasField("default") else ""


def usage(spec: RequestSpec) -> str:
    """Returns the args in the form `required [optional=default]`."""
    return " ".join(
        arg.name if is_required(arg) else f"[{arg.name}={default_text(arg)}]" for arg in spec.args
    )
