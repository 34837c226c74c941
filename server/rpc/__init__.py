"""How methods are called: one table, and the gRPC way in."""

from server.rpc.context import Authenticator, CallContext, Caller
from server.rpc.gate import Gate
from server.rpc.grpc_server import GrpcServer
from server.rpc.methods import Method, MethodTable

__all__ = ["Authenticator", "CallContext", "Caller", "Gate", "GrpcServer", "Method", "MethodTable"]
