"""How a method is called: the method table, which wraps each method once, and the gRPC server."""

from spincycle_server.rpc.context import CallContext, ReceivedRequest
from spincycle_server.rpc.gate import Gate
from spincycle_server.rpc.grpc_server import GrpcServer
from spincycle_server.rpc.input_limits import InputLimits
from spincycle_server.rpc.methods import Method, MethodTable, OnDenied, ignore_denial

__all__ = [
    "CallContext",
    "Gate",
    "GrpcServer",
    "InputLimits",
    "Method",
    "MethodTable",
    "OnDenied",
    "ReceivedRequest",
    "ignore_denial",
]
