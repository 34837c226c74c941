"""The job SDK: what a job is, what it returns, and how the servers come by one.

A job type is a class, a subclass of Job. A job factory makes a job of a type that it knows:

    @dataclass
    class Drain(Job):
        host: str
        grace: int = 30

        async def run(self, job_data):
            ...
            return Return(stdout=f"drained {self.host}")

    factory = JobTypes({"drain": Drain})

The Request Manager makes the job, calls `create` and `serialize`, and throws the object away. For
each try, the Job Runner makes it anew, calls `deserialize` with those bytes, then `run`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from inspect import get_annotations, isabstract, isclass
from typing import Any

from spincycle_grpc import _job_fields
from spincycle_grpc.errors import InternalError
from spincycle_grpc.state import State

_EXIT_LIMIT = 1 << 63


class UnknownJobTypeError(InternalError):
    """A job factory does not know a type of job. Reason: UNKNOWN_JOB_TYPE.

    Attributes:
        job_type: The type that was asked for.
    """

    def __init__(self, job_type: str) -> None:
        super().__init__(f"unknown job type: {job_type}", reason="UNKNOWN_JOB_TYPE")
        self.job_type = job_type


class JobFactoryError(InternalError):
    """A job factory returned what is not a new job. Reason: BAD_JOB_FACTORY."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="BAD_JOB_FACTORY")


@dataclass(frozen=True, slots=True)
class JobId:
    """Which job of which request.

    Attributes:
        type: The job type, as in the spec.
        name: The name of the node in the spec that the job was built from.
        id: Four characters of 0-9A-Za-z, unique in the request.
        request_id: The request that the job belongs to.
    """

    type: str
    name: str
    id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Return:
    """How one try of a job ended.

    Attributes:
        state: COMPLETE, FAIL or, after `stop`, STOPPED. Any other state counts as a failure.
        exit: The exit code, a signed number of 64 bits; 0 is success.
        error: What went wrong, in one line; "" for nothing.
        stdout: The output. The runner keeps the two ends of one that is very long.
        stderr: The error output, likewise.

    Text that UTF-8 cannot hold (lone surrogates) is replaced by question marks.

    Raises:
        TypeError: A value of another type.
        ValueError: A number that is no state, or an exit code beyond 64 bits.
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
            raise TypeError(f"exit of a Return is a whole number, not {self.exit!r}")
        if not -_EXIT_LIMIT <= self.exit < _EXIT_LIMIT:
            raise ValueError(f"exit of a Return has 64 bits: {self.exit} is too large")
        for name in ("error", "stdout", "stderr"):
            text = getattr(self, name)
            if not isinstance(text, str):
                raise TypeError(f"{name} of a Return is text, not {type(text).__name__}")
            if not text.isascii():
                object.__setattr__(self, name, text.encode("utf-8", "replace").decode())


class Job(ABC):
    """One job. Subclasses implement `run`; all else has a default that works.

    A subclass that is a dataclass is filled from the job args and kept by itself: each field is the
    job arg of its name, and a field without a default is one that must be given. Text becomes the
    number or boolean that the field's type asks for, since args from a command line are text. The
    bytes are the fields as JSON, in their order. Types: str, int, float, bool, bytes (base64), list,
    tuple, dict with text keys, dataclasses, `X | None` and Any. Fields with `field(init=False)` are
    neither filled nor kept: they are for what `run` holds while it runs.

    Attributes:
        id: Which job this is. Set by the server once the factory has made the job, thus not yet
            there in `__init__`.
    """

    id: JobId

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in get_annotations(cls):
            if name in _RESERVED:
                raise TypeError(
                    f"{cls.__name__}: a job has no field {name!r}, the name is taken; choose another"
                )

    def create(self, job_args: dict[str, Any]) -> None:
        """Takes in the job args, while the Request Manager builds the chain. May block: it runs in a thread.

        The default fills the fields of a dataclass and then calls its `__post_init__`, if there is one.

        Args:
            job_args: The args that the spec gives to the node. What is added here, the spec's
                `sets:` can pass on to later nodes.

        Raises:
            Exception: Anything; the request is then refused with its text.
        """
        if is_dataclass(self):
            _job_fields.fill(self, job_args, "job arg")

    def serialize(self) -> bytes:
        """Returns what `deserialize` needs to make the job again; kept in the database with the chain.

        The default returns the fields of a dataclass as a JSON object, and nothing for other jobs.

        Raises:
            Exception: Anything; the request is then refused with its text.
        """
        return _job_fields.dump(self) if is_dataclass(self) else b""

    def deserialize(self, data: bytes) -> None:
        """Takes in what `serialize` returned, in the Job Runner, before each try.

        The default is the reverse of the default of `serialize`: fields that the bytes lack keep their
        defaults and keys that are no fields are ignored, so that a class can change while requests wait.

        Raises:
            Exception: Anything; the try is then FAIL with its text.
        """
        if is_dataclass(self):
            _job_fields.load(self, data)

    @abstractmethod
    def run(self, job_data: dict[str, Any]) -> Return | Awaitable[Return]:
        """Does the work of one try. A plain function runs in a thread, an `async def` on the event loop.

        A try that was running when its runner died is run again: do nothing that must not happen twice.

        Args:
            job_data: What the jobs before this one put here; what this one puts here, any JSON,
                reaches the jobs right after it if it is COMPLETE.

        Raises:
            Exception: Anything; the try is then FAIL with exit 1.
        """

    def stop(self) -> Awaitable[None] | None:
        """Asks a running try to end soon, with state STOPPED. May be an `async def`, which runs on the loop.

        It may be called when `run` has just begun or just ended. A try that has not ended ten seconds
        later is given up. The default does nothing.
        """
        return None

    def status(self) -> str:
        """Returns what the running try does right now, in a few words. It must answer at once."""
        return "running"


_RESERVED = frozenset({"id", "create", "serialize", "deserialize", "run", "stop", "status"})

JobFactory = Callable[[JobId], Job]
"""Makes a new job of `job_id.type`, or raises UnknownJobTypeError. It is called from several threads."""


class JobTypes:
    """A job factory made of a table: the name of a job type to what makes such a job.

    That is a class, or a function for jobs that need more than their args (a client, say). Both are
    called without arguments, but a dataclass may have fields without a default; these are missing
    until `create` or `deserialize` has filled them.

    Raises:
        TypeError: What stands for a type is neither a function nor a subclass of Job with a `run`.
    """

    def __init__(self, makers: Mapping[str, type[Job] | Callable[[], Job]]) -> None:
        self._makers = {name: _checked_maker(name, maker) for name, maker in makers.items()}

    def __call__(self, job_id: JobId) -> Job:
        """Makes a new job. Raises UnknownJobTypeError for a type that is not in the table."""
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
    """Makes a job and tells it its id: the way in which the servers call a factory.

    Raises:
        UnknownJobTypeError: The factory does not know the type.
        JobFactoryError: The factory returned no job, or one that it had made for another id.
        Exception: Whatever else the factory raises.
    """
    job = factory(job_id)
    if not isinstance(job, Job):
        raise JobFactoryError(
            f"the job factory returned {job!r} for job type {job_id.type}, which is not a Job"
        )
    known_id = getattr(job, "id", None)
    if known_id is not None and known_id != job_id:
        raise JobFactoryError(
            f"the job factory returned the same job twice for job type {job_id.type}: make a new one"
        )
    object.__setattr__(job, "id", job_id)  # also where the job is a frozen dataclass
    return job
