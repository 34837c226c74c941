"""`spinc` without a command: lists the types of requests with their args."""

from __future__ import annotations

from spincycle_grpc.cli.output import show_json
from spincycle_grpc.cli.settings import Settings
from spincycle_grpc.cli.specs import usage
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.v1.request_manager_pb2 import RequestListResponse
from spincycle_grpc.wire import encode


def list_types(settings: Settings) -> None:
    """Prints the types of requests.

    Raises:
        SpinCycleError: The call failed.
    """
    with settings.client() as client:
        specs = client.request_list()
    if settings.as_json:
        show_json(encode(RequestListResponse(specs=specs), "specs"))
        return
    show_table(
        (
            Column("REQUEST", [spec.name for spec in specs]),
            Column("ARGS", [usage(spec) for spec in specs], least=20, wraps=True),
        )
    )
