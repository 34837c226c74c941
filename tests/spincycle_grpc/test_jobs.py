"""The job SDK: dataclass jobs, job factories and results."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.errors import InternalError
from spincycle_grpc.jobs import (
    Job,
    JobFactoryError,
    JobId,
    JobTypes,
    Return,
    UnknownJobTypeError,
    make_job,
    output_of,
    set_output,
)
from spincycle_grpc.output import STDERR, STDOUT, KeptOutput
from spincycle_grpc.state import State

DRAIN = JobId("drain", "drain-host", "a1B2", "dc26bmb8di172h6ulnk0")


class Task(Job):
    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


@dataclass
class Limits:
    cpu: float
    tags: list[str] = field(default_factory=list)


@dataclass
class Drain(Task):
    host: str
    ports: list[int]
    limits: Limits
    force: bool = False
    grace: float = 1.5
    key: bytes = b""
    owner: str | None = None
    labels: dict[str, int] = field(default_factory=dict)
    zones: tuple[str, ...] = ()
    extra: Any = None
    seen: list[str] = field(init=False, default_factory=list)


FULL = {
    "host": "db1",
    "ports": [3306, 3307],
    "limits": {"cpu": 0.5, "tags": ["a"]},
    "force": True,
    "grace": 2.5,
    "key": "a2V5",
    "owner": "ops",
    "labels": {"x": 1},
    "zones": ["z1", "z2"],
    "extra": [1, {"a": None}],
}


def new_drain(**args: Any) -> Drain:
    job = make_job(JobTypes({"drain": Drain}), DRAIN)
    assert isinstance(job, Drain)
    job.create({"host": "db1", "ports": [], "limits": {"cpu": 1}} | args)
    return job


class TestDataclassJobs:
    def test_are_filled_from_job_args_and_restored_from_their_bytes(self) -> None:
        job = new_drain(**FULL, not_a_field="ignored")
        assert json.loads(job.serialize()) == FULL
        again = make_job(JobTypes({"drain": Drain}), DRAIN)
        again.deserialize(job.serialize())
        assert again == job
        assert isinstance(again, Drain)
        assert (again.limits, again.key, again.zones) == (Limits(0.5, ["a"]), b"key", ("z1", "z2"))

    def test_bytes_are_compact_json_in_the_order_of_the_fields(self) -> None:
        assert (
            new_drain(host="dé").serialize()
            == (
                '{"host":"dé","ports":[],"limits":{"cpu":1.0,"tags":[]},"force":false,"grace":1.5,'
                '"key":"","owner":null,"labels":{},"zones":[],"extra":null}'
            ).encode()
        )

    def test_convert_text_to_the_type_of_the_field(self) -> None:
        job = new_drain(ports=["3306", 3307.0], force="Yes", grace="0.25")
        assert (job.ports, job.force, job.grace) == ([3306, 3307], True, 0.25)

    def test_convert_numbers_to_text(self) -> None:
        assert new_drain(host=42).host == "42"

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"host": ["db1"]}, 'job arg host must be text, not ["db1"]'),
            ({"ports": "3306"}, 'job arg ports must be a list, not "3306"'),
            ({"ports": [1, "x"]}, 'job arg ports[1] must be a whole number, not "x"'),
            ({"ports": [1.5]}, "job arg ports[0] must be a whole number, not 1.5"),
            ({"ports": [True]}, "job arg ports[0] must be a whole number, not true"),
            ({"force": "maybe"}, 'job arg force must be true or false, not "maybe"'),
            ({"grace": "nan"}, 'job arg grace must be a number, not "nan"'),
            ({"grace": True}, "job arg grace must be a number, not true"),
            ({"key": "not base64"}, 'job arg key must be bytes in base64, not "not base64"'),
            ({"labels": []}, "job arg labels must be a map, not []"),
            ({"labels": {"x": None}}, "job arg labels.x must be a whole number, not null"),
            ({"limits": {}}, "job arg limits.cpu is missing"),
            ({"limits": {"cpu": "much"}}, 'job arg limits.cpu must be a number, not "much"'),
            ({"limits": 5}, "job arg limits must be a map, not 5"),
            ({"owner": {}}, "job arg owner must be text, not {}"),
        ],
    )
    def test_say_which_arg_is_wrong(self, args: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match="job arg") as caught:
            new_drain(**args)
        assert str(caught.value) == message

    def test_cut_long_values_in_errors(self) -> None:
        with pytest.raises(ValueError, match="must be a list") as caught:
            new_drain(ports="x" * 10_000)
        assert len(str(caught.value)) < 120

    def test_say_which_arg_is_missing(self) -> None:
        with pytest.raises(ValueError, match=r"^job arg host is missing$"):
            make_job(JobTypes({"drain": Drain}), DRAIN).create({})

    def test_lists_of_fields_are_not_shared(self) -> None:
        new_drain().labels["x"] = 1
        assert new_drain().labels == {}

    def test_call_post_init_after_their_fields_are_set(self) -> None:
        @dataclass
        class Upper(Task):
            name: str
            shown: str = field(init=False)

            def __post_init__(self) -> None:
                self.shown = self.name.upper()

        created, run = (make_job(JobTypes({"drain": Upper}), DRAIN) for _ in range(2))
        created.create({"name": "a"})
        run.deserialize(created.serialize())
        assert isinstance(run, Upper)
        assert run.shown == "A"
        assert created.serialize() == b'{"name":"a"}'

    @pytest.mark.parametrize("options", [{"frozen": True}, {"slots": True}, {"kw_only": True}])
    def test_may_be_frozen_slotted_or_keyword_only(self, options: dict[str, Any]) -> None:
        job_class = dataclasses.make_dataclass("Any", [("host", str)], bases=(Task,), **options)
        created, run = (make_job(JobTypes({"drain": job_class}), DRAIN) for _ in range(2))
        created.create({"host": "db1"})
        run.deserialize(created.serialize())
        assert run == created
        assert run.id == DRAIN

    def test_keep_the_values_of_their_factory(self) -> None:
        @dataclass
        class Tuned(Task):
            host: str = ""
            grace: int = 30

        job = make_job(JobTypes({"drain": lambda: Tuned(grace=5)}), DRAIN)
        job.create({"host": "db1"})
        assert job == Tuned("db1", 5)

    def test_survive_a_change_of_their_class(self) -> None:
        job = make_job(JobTypes({"drain": Drain}), DRAIN)
        job.deserialize(b'{"host":"db1","ports":[],"limits":{"cpu":1,"gone":1},"gone":1}')
        assert job == new_drain()

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"{", "the bytes of the job are not JSON"),
            (b"\xff", "the bytes of the job are not JSON"),
            (b"[]", "the bytes of the job are not a JSON object"),
            (b"", "field host is missing"),
            (b'{"host":[]}', "field host must be text"),
        ],
    )
    def test_refuse_the_bytes_of_another_job(self, data: bytes, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_job(JobTypes({"drain": Drain}), DRAIN).deserialize(data)

    @pytest.mark.parametrize("hint", [set, int | str, dict[int, str], tuple[int, str], object()])
    def test_refuse_field_types_that_json_lacks(self, hint: Any) -> None:
        job_class = dataclasses.make_dataclass("Odd", [("odd", hint)], bases=(Task,))
        with pytest.raises(
            TypeError, match=r"job arg odd has type .* write create, serialize and deserialize"
        ):
            make_job(JobTypes({"drain": job_class}), DRAIN).create({"odd": {}})

    def test_refuse_field_types_that_do_not_exist_at_run_time(self) -> None:
        job_class = dataclasses.make_dataclass("Odd", [("odd", "Client")], bases=(Task,))
        with pytest.raises(
            TypeError, match="field odd of Odd: name 'Client' is not defined; import the type"
        ):
            make_job(JobTypes({"drain": job_class}), DRAIN).create({"odd": {}})

    def test_ignore_fields_with_init_false(self) -> None:
        own = ("client", "Client", field(init=False))
        job_class = dataclasses.make_dataclass("Odd", [("host", "str"), own], bases=(Task,))
        job = make_job(JobTypes({"drain": job_class}), DRAIN)
        job.create({"host": "db1", "client": "ignored"})
        assert job.serialize() == b'{"host":"db1"}'

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
    def test_refuse_values_that_json_lacks(self, value: Any) -> None:
        job = new_drain()
        job.extra = value
        with pytest.raises((TypeError, ValueError)):
            job.serialize()

    @given(
        st.builds(
            Drain,
            host=st.text(st.characters(codec="utf-8")),
            ports=st.lists(st.integers()),
            limits=st.builds(Limits, st.floats(allow_nan=False, allow_infinity=False), st.just([])),
            force=st.booleans(),
            grace=st.floats(allow_nan=False, allow_infinity=False),
            key=st.binary(),
            owner=st.none() | st.text(st.characters(codec="utf-8")),
            labels=st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers()),
            zones=st.lists(st.text(st.characters(codec="utf-8"))).map(tuple),
        )
    )
    def test_any_job_survives_its_bytes(self, job: Drain) -> None:
        again = make_job(JobTypes({"drain": Drain}), DRAIN)
        again.deserialize(job.serialize())
        assert again == job


class TestJob:
    def test_has_defaults_for_all_methods_except_run(self) -> None:
        job = Task()
        args = {"host": "db1"}
        job.create(args)
        assert args == {"host": "db1"}
        assert job.serialize() == b""
        job.deserialize(b"")
        assert job.stop() is None
        assert job.status() == "running"

    @pytest.mark.parametrize("name", ["id", "status", "run"])
    def test_refuses_fields_with_reserved_names(self, name: str) -> None:
        with pytest.raises(TypeError, match=f"the field name '{name}' is reserved"):
            dataclasses.make_dataclass("Bad", [(name, str)], bases=(Task,))


class TestJobTypes:
    def test_refuse_unknown_types(self) -> None:
        with pytest.raises(UnknownJobTypeError, match=r"^unknown job type: drain$") as caught:
            JobTypes({})(DRAIN)
        assert isinstance(caught.value, InternalError)
        assert (caught.value.reason, caught.value.job_type) == ("UNKNOWN_JOB_TYPE", "drain")

    @pytest.mark.parametrize(
        ("maker", "message"),
        [
            (Job, "job type drain: Job does not implement run"),
            (dict, "job type drain: dict is not a subclass of Job"),
            ("Drain", "job type drain: 'Drain' is neither a subclass of Job nor a function"),
        ],
    )
    def test_refuse_entries_that_cannot_create_jobs(self, maker: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            JobTypes({"drain": maker})


class TestMakeJob:
    def test_sets_the_id_of_the_job(self) -> None:
        assert make_job(lambda _: Task(), DRAIN).id == DRAIN

    def test_requires_a_job(self) -> None:
        def factory(job_id: JobId) -> Any:
            return None

        with pytest.raises(JobFactoryError, match="returned None for job type drain, which is not a Job"):
            make_job(factory, DRAIN)

    def test_requires_a_new_job_each_time(self) -> None:
        only = Task()
        make_job(lambda _: only, DRAIN)
        with pytest.raises(JobFactoryError, match="returned the same job twice"):
            make_job(lambda _: only, dataclasses.replace(DRAIN, id="zzzz"))


class TestReturn:
    def test_is_complete_by_default(self) -> None:
        assert Return() == Return(State.COMPLETE, 0, "", "", "")

    def test_accepts_the_number_of_a_state(self) -> None:
        wrong: Any = 4
        assert Return(wrong).state is State.FAIL

    @pytest.mark.parametrize(
        ("values", "error"),
        [
            ({"state": "FAIL"}, ValueError),
            ({"state": 99}, ValueError),
            ({"exit": "1"}, TypeError),
            ({"exit": None}, TypeError),
            ({"exit": True}, TypeError),
            ({"exit": 1 << 63}, ValueError),
            ({"exit": -(1 << 63) - 1}, ValueError),
            ({"error": ValueError("x")}, TypeError),
            ({"stdout": b"bytes"}, TypeError),
            ({"stderr": None}, TypeError),
        ],
    )
    def test_refuses_values_of_other_types(self, values: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            Return(**values)

    def test_replaces_lone_surrogates(self) -> None:
        assert Return(stdout="é\ud800!").stdout == "é?!"


@dataclass(frozen=True)
class Frozen(Job):
    def run(self, job_data: dict[str, Any]) -> Return:
        return Return()


@pytest.mark.parametrize("job_class", [Task, Frozen])
def test_a_job_writes_where_its_runner_says(job_class: type[Job]) -> None:
    job, sink = job_class(), KeptOutput(1000)
    assert output_of(job) is None
    set_output(job, sink)
    assert output_of(job) is sink
    job.write("out \ud800é\n")
    job.write("err", stream="stderr")
    assert (sink.text(STDOUT), sink.text(STDERR)) == ("out ?é\n", "err")


def test_without_a_runner_a_job_writes_to_the_streams_of_the_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Task().write("out")
    Task().write("err\n", stream="stderr")
    assert capsys.readouterr() == ("out", "err\n")


def test_write_takes_text_and_one_of_two_streams() -> None:
    wrong: Any = b"bytes"
    with pytest.raises(TypeError, match="write takes text, not bytes"):
        Task().write(wrong)
    stream: Any = "stdlog"
    with pytest.raises(ValueError, match="must be stdout or stderr, not 'stdlog'"):
        Task().write("text", stream=stream)


def test_a_field_named_write_is_kept() -> None:
    @dataclass
    class Disk(Job):
        write: int = 0  # type: ignore[assignment]

        def run(self, job_data: dict[str, Any]) -> Return:
            return Return()

    job = Disk()
    job.create({"write": "5"})
    assert job.write == 5
