"""The job SDK: the base class of jobs, their results, and job factories.

A job type is a subclass of Job. A job factory creates jobs of the types that it knows:

    @dataclass
    class Drain(Job):
        host: str
        grace: int = 30

        async def run(self, job_data):
            ...
            return Return(stdout=f"drained {self.host}")

    factory = JobTypes({"drain": Drain})

The Request Manager creates the job, calls `create` and `serialize`, and discards the object. For each try,
the Job Runner creates a new object, calls `deserialize` with the bytes, and then calls `run`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from inspect import get_annotations, isabstract, isclass
from typing import Any, Literal, Protocol

from spincycle_grpc import _job_fields
from spincycle_grpc.errors import InternalError
from spincycle_grpc.output import STDERR, STDOUT
from spincycle_grpc.state import State

_EXIT_LIMIT = 1 << 63


class UnknownJobTypeError(InternalError):
    """A job factory does not know a job type. Reason: UNKNOWN_JOB_TYPE.

    Attributes:
        job_type: The unknown type.
    """

    def __init__(self, job_type: str) -> None:
        super().__init__(f"unknown job type: {job_type}", reason="UNKNOWN_JOB_TYPE")
        self.job_type = job_type


class JobFactoryError(InternalError):
    """A job factory returned no job, or the same job twice. Reason: BAD_JOB_FACTORY."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="BAD_JOB_FACTORY")


@dataclass(frozen=True, slots=True)
class JobId:
    """The identity of a job.

    Attributes:
        type: The job type in the spec.
        name: The name of the spec node that the job was built from.
        id: Four characters of 0-9A-Za-z, unique in the request.
        request_id: The id of the request.
        traceparent: The W3C traceparent under which the job works: send it with calls to other services. For
            `create` it is that of the call that creates the request. Empty: the request belongs to no trace.
        tracestate: The W3C tracestate that belongs to it.
    """

    type: str
    name: str
    id: str
    request_id: str
    traceparent: str = field(default="", compare=False)
    tracestate: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Return:
    """The result of one try of a job.

    Attributes:
        state: COMPLETE, FAIL or, after `stop`, STOPPED. Any other state counts as a failure.
        exit: The exit code, a signed 64-bit number. 0 is success.
        error: The error in one line. Empty: no error.
        stdout: The output. If it is very long, the runner keeps only its beginning and its end.
        stderr: The error output, limited like `stdout`.

    Characters that UTF-8 cannot encode (lone surrogates) become question marks.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: `state` is not a state, or `exit` does not fit into 64 bits.
    """

    state: State = State.COMPLETE
    exit: int = 0
    error: str = ""
    stdout: str = ""
    stderr: str = ""

    def __post_init__(self) -> None:
        if self.state.__class__ is not State:
            object.__setattr__(self, "state", State(self.state))
        if not isinstance(self.exit, int) or isinstance(self.exit, bool):
            raise TypeError(f"exit of a Return must be a whole number, not {self.exit!r}")
        if not -_EXIT_LIMIT <= self.exit < _EXIT_LIMIT:
            raise ValueError(f"exit of a Return must fit into 64 bits: {self.exit} does not")
        for name in ("error", "stdout", "stderr"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise TypeError(f"{name} of a Return must be text, not {type(text).__name__}")
            if not text.isascii():
                object.__setattr__(self, name, text.encode("utf-8", "replace").decode())


class Job(ABC):
    """The base class of jobs. Subclasses must implement `run`; all other methods have defaults.

    If the subclass is a dataclass, the defaults of `create`, `serialize` and `deserialize` handle its
    fields. Each field gets the job arg of the same name. A field without a default is a required arg. Text
    is converted to the number or boolean that the field's type requires, because args from a command line
    are text. The bytes are the fields as JSON, in their order.

    Field types may be str, int, float, bool, bytes (base64), list, tuple, dict with text keys, dataclasses,
    `X | None` and Any. Fields with `field(init=False)` are neither filled nor stored; use them for state
    during `run`.

    Attributes:
        id: The identity of the job. The server sets it after the factory has returned the job, so it is not
            available in `__init__`.
    """

    id: JobId

    __sink: OutputSink | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in get_annotations(cls):
            if name in _RESERVED:
                raise TypeError(f"{cls.__name__}: the field name {name!r} is reserved: choose another one")

    def create(self, job_args: dict[str, Any]) -> None:
        """Reads the job args when the Request Manager builds the chain. It runs in a thread, so it may block.

        The default fills the fields of a dataclass. Then it calls `__post_init__`, if there is one.

        Args:
            job_args: The args that the spec passes to the node. Args that this method adds can be passed to
                later nodes with `sets:` in the spec.

        Raises:
            InvalidArgumentError: An arg is wrong. The caller gets INVALID_ARGUMENT (400), with the text and
                the reason of the error.
            Exception: Any other exception counts as a fault of the job, INTERNAL (500). Its text is shown.
        """
        if is_dataclass(self):
            _job_fields.fill(self, job_args, "job arg")

    def serialize(self) -> bytes:
        """Returns the bytes from which `deserialize` restores the job. They are stored with the chain.

        The default returns the fields of a dataclass as a JSON object. For other classes it returns no bytes.

        Raises:
            Exception: Any exception refuses the request. The error contains its text.
        """
        return _job_fields.dump(self) if is_dataclass(self) else b""

    def deserialize(self, data: bytes) -> None:
        """Restores the job from the bytes of `serialize`, in the Job Runner, before each try.

        The default fills the fields of a dataclass. Missing fields keep their defaults and unknown keys are
        ignored, so a class can change while requests wait.

        Raises:
            Exception: Any exception makes the try FAIL. The error contains its text.
        """
        if is_dataclass(self):
            _job_fields.load(self, data)

    def write(self, text: str, *, stream: Literal["stdout", "stderr"] = "stdout") -> None:
        """Writes output while the try runs, so that users can follow it. Any thread may call it.

        The output goes to the job log too, before what `run` returns. If `run` returns exactly the text that
        was written, it is kept once. Without a Job Runner, for example in a unit test, the text goes to
        stdout or stderr of the process. Text that is written after the end of the try is dropped.

        Args:
            text: The text; end lines with a newline. If it is very long in all, the runner keeps only its
                beginning and its end. Characters that UTF-8 cannot encode become question marks.
            stream: Where to write: "stdout" or "stderr".

        Raises:
            TypeError: `text` is not text.
            ValueError: `stream` is neither of the two.
        """
        number = _STREAMS.get(stream)
        if number is None:
            raise ValueError(f"stream of write must be stdout or stderr, not {stream!r}")
        if not isinstance(text, str):
            raise TypeError(f"write takes text, not {type(text).__name__}")
        if self.__sink is None:
            print(text, end="", file=sys.stdout if stream == "stdout" else sys.stderr, flush=True)
        else:
            self.__sink.write(number, text.encode("utf-8", "replace"))

    @abstractmethod
    def run(self, job_data: dict[str, Any]) -> Return | Awaitable[Return]:
        """Does the work of one try. A plain function runs in a thread, an `async def` on the event loop.

        A try that was running when its runner died runs again, so its effects must be safe to repeat.

        Args:
            job_data: The data of the jobs before this one. JSON values that this method adds are passed to
                the jobs directly after it, if this job is COMPLETE.

        Raises:
            Exception: Any exception makes the try FAIL with exit 1.
        """

    def stop(self) -> Awaitable[None] | None:
        """Asks a running try to end soon with state STOPPED. An `async def` runs on the event loop.

        The call can come just after `run` has started or ended. A try that has not ended after the option
        `job_runner.stop_timeout`, 10 s by default, is abandoned and is FAIL. The default does nothing.
        """
        return None

    def status(self) -> str:
        """Says in a few words what the running try does now. It must return immediately."""
        return "running"


_STREAMS = {"stdout": STDOUT, "stderr": STDERR}


class OutputSink(Protocol):
    """Keeps what a job writes, and shows it to those who follow the job."""

    def write(self, stream: int, data: bytes) -> None:
        """Adds UTF-8 to STDOUT or STDERR. A character may be split between two calls. Any thread may call."""

    def text(self, stream: int) -> str:
        """Returns what is kept of a stream that has ended."""


def set_output(job: Job, sink: OutputSink) -> None:
    """Sets where a job writes, as the Job Runner does before it runs the job."""
    object.__setattr__(job, _SINK, sink)  # Works for frozen dataclasses too.


def output_of(job: Job) -> OutputSink | None:
    """Returns where a job writes; None if no Job Runner runs it."""
    sink: OutputSink | None = getattr(job, _SINK)
    return sink


_SINK = "_Job__sink"
_RESERVED = frozenset({"id", "create", "serialize", "deserialize", "run", "stop", "status"})

JobFactory = Callable[[JobId], Job]
"""Creates a job of type `job_id.type`, or raises UnknownJobTypeError. Several threads may call it."""


class JobTypes:
    """A job factory with a table of job types.

    The table maps the name of a type to a subclass of Job, or to a function that creates the job. Use a
    function if the job needs more than its args, for example a client. Both are called without arguments.
    The fields of a dataclass that have no default are missing until `create` or `deserialize` sets them.

    Raises:
        TypeError: An entry is neither a function nor a subclass of Job that implements `run`.
    """

    def __init__(self, makers: Mapping[str, type[Job] | Callable[[], Job]]) -> None:
        self._makers = {name: _checked_maker(name, maker) for name, maker in makers.items()}

    def __call__(self, job_id: JobId) -> Job:
        """Creates a job. Raises UnknownJobTypeError if the type is not in the table."""
        maker = self._makers.get(job_id.type)
        if maker is None:
            raise UnknownJobTypeError(job_id.type)
        return maker()


def _checked_maker(name: str, maker: type[Job] | Callable[[], Job]) -> Callable[[], Job]:
    if not isclass(maker):
        if not callable(maker):
            raise TypeError(f"job type {name}: {maker!r} is neither a subclass of Job nor a function")
        return maker
    if not issubclass(maker, Job):
        raise TypeError(f"job type {name}: {maker.__name__} is not a subclass of Job")
    if isabstract(maker):
        raise TypeError(f"job type {name}: {maker.__name__} does not implement run")
    if is_dataclass(maker) and _job_fields.required(maker):
        return partial(_job_fields.blank, maker)
    return maker


def make_job(factory: JobFactory, job_id: JobId) -> Job:
    """Calls a factory as the servers do: creates a job and sets its id.

    Raises:
        UnknownJobTypeError: The factory does not know the type.
        JobFactoryError: The factory did not return a job, or returned a job that has another id.
        Exception: Any other exception of the factory.
    """
    job = factory(job_id)
    if not isinstance(job, Job):
        raise JobFactoryError(
            f"the job factory returned {job!r} for job type {job_id.type}, which is not a Job"
        )
    known_id = getattr(job, "id", None)
    if known_id is not None and known_id != job_id:
        raise JobFactoryError(
            f"the job factory returned the same job twice for job type {job_id.type}: return a new one"
        )
    object.__setattr__(job, "id", job_id)  # Works for frozen dataclasses too.
    return job
