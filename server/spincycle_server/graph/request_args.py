"""The args of requests: their declarations in specs, and their values in one request."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.struct_pb2 import Value

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.structs import fill_unicode
from spincycle_grpc.v1.request_pb2 import ArgType, Request, RequestArg, RequestSpec
from spincycle_server.graph.values import checked_struct
from spincycle_server.specs.model import ArgSpec, SequenceSpec, Specs

# Each use of the attributes of a generated enum calls a function.
_REQUIRED, _OPTIONAL, _STATIC = ArgType.ARG_TYPE_REQUIRED, ArgType.ARG_TYPE_OPTIONAL, ArgType.ARG_TYPE_STATIC


def request_sequence(specs: Specs, request_type: str) -> SequenceSpec:
    """Returns the sequence of a request type.

    Raises:
        InvalidArgumentError: There is no such request type. Reason: UNKNOWN_REQUEST_TYPE, NOT_A_REQUEST.
    """
    sequence = specs.sequences.get(request_type)
    if sequence is None:
        raise InvalidArgumentError(
            f"cannot find definition for request: {request_type}", reason="UNKNOWN_REQUEST_TYPE", field="type"
        )
    if not sequence.request:
        raise InvalidArgumentError(f"{request_type} is not a request", reason="NOT_A_REQUEST", field="type")
    return sequence


def record_args(request: Request, sequence: SequenceSpec, given: Mapping[str, object]) -> None:
    """Adds its args to a request: required, optional, static.

    They are written in place, because a copy of large args lets no other thread run meanwhile. Each arg has
    its final value. Positions count within each kind. Args that the spec does not name are not recorded.

    Raises:
        InvalidArgumentError: A required arg is missing, a static arg is given, or a value is not
            JSON. Reason: REQUIRED_ARG_MISSING, STATIC_ARG_GIVEN, WRONG_TYPE, NUMBER_TOO_LARGE,
            TOO_DEEP.
    """
    for arg in sequence.static:
        if arg.name in given:
            raise InvalidArgumentError(
                f"static arg '{arg.name}' cannot be given because the spec fixes its value: leave it out",
                reason="STATIC_ARG_GIVEN",
                field=f"args.{arg.name}",
            )
    for arg in sequence.required:
        if arg.name not in given:
            raise InvalidArgumentError(
                f"required arg '{arg.name}' not set", reason="REQUIRED_ARG_MISSING", field=f"args.{arg.name}"
            )
    kinds = (
        (sequence.required, _REQUIRED),
        (sequence.optional, _OPTIONAL),
        (sequence.static, _STATIC),
    )
    for args, kind in kinds:
        for position, arg in enumerate(args):
            _record(request.args.add(), arg, kind, position, given)
    if given and len(given) > sum(arg.given for arg in request.args):  # The others must be JSON too.
        named = {arg.name for arg in request.args}
        checked_struct({name: value for name, value in given.items() if name not in named})


def _record(
    recorded: RequestArg, arg: ArgSpec, kind: ArgType.ValueType, position: int, given: Mapping[str, object]
) -> None:
    recorded.pos = position
    recorded.name = arg.name
    recorded.type = kind
    if kind == _OPTIONAL and arg.default is not None:
        recorded.default.string_value = arg.default
    if arg.name in given:
        recorded.given = True
        fill_unicode(recorded.value, given[arg.name], f"args.{arg.name}")
    elif arg.default is not None:
        recorded.value.string_value = arg.default


def _default_of(arg: ArgSpec, kind: ArgType.ValueType) -> Value | None:
    # The value of a static arg is not a default, because callers cannot replace it.
    return _text(arg.default) if kind == _OPTIONAL else None


def _text(text: str | None) -> Value | None:
    return None if text is None else Value(string_value=text)


def request_specs(specs: Specs) -> list[RequestSpec]:
    """Returns the request types by name, each with its required args followed by its optional args.

    All positions are 0, as in the original's list.
    """
    return [
        RequestSpec(name=name, args=_spec_args(sequence))
        for name, sequence in sorted(specs.sequences.items())
        if sequence.request
    ]


def _spec_args(sequence: SequenceSpec) -> list[RequestArg]:
    kinds = ((sequence.required, _REQUIRED), (sequence.optional, _OPTIONAL))
    return [
        RequestArg(name=arg.name, desc=arg.desc, type=kind, default=_default_of(arg, kind))
        for args, kind in kinds
        for arg in args
    ]
