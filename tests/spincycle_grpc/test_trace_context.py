"""The headers of W3C Trace Context: which are valid, what they mean, and what a client sends."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spincycle_grpc.call_trace import CallTrace
from spincycle_grpc.jobs import JobId
from spincycle_grpc.trace_context import MAX_STATE, TraceContext

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
HEX = frozenset("0123456789abcdef")


def is_valid(header: str) -> bool:
    """Says, slowly and plainly, what the specification says about a traceparent."""
    if len(header) < 55 or [header[at] for at in (2, 35, 52)] != ["-"] * 3:
        return False
    version, trace_id, span_id, flags = header[:2], header[3:35], header[36:52], header[53:55]
    if not set(version + trace_id + span_id + flags) <= HEX:
        return False
    if set(trace_id) == {"0"} or set(span_id) == {"0"} or version == "ff":
        return False
    rest = header[55:]
    return not rest if version == "00" else not rest or (rest[0] == "-" and "\n" not in rest)


def hexadecimal(length: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=length, max_size=length) | st.just("0" * length)


headers = st.builds(
    "{}{}{}{}{}{}{}{}".format,
    hexadecimal(2) | st.sampled_from(["00", "ff", "cc", "0A"]),
    st.sampled_from("--- _"),
    hexadecimal(32) | st.just(TRACE_ID.upper()),
    st.just("-"),
    hexadecimal(16),
    st.just("-"),
    hexadecimal(2) | st.sampled_from(["1", "0x"]),
    st.sampled_from(["", "-", "-more", ".more", "\n", "-a\nb"]),
)


@given(headers | st.text())
@example(f"{TRACEPARENT}, {TRACEPARENT}")
@example(f" {TRACEPARENT}")
@example(TRACEPARENT.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"))
def test_a_traceparent_is_valid_as_the_specification_says(header: str) -> None:
    assert (TraceContext.parse(header) is not None) == is_valid(header)


@given(hexadecimal(32), hexadecimal(16), st.integers(0, 255), st.sampled_from(["00", "01", "fe"]))
def test_a_valid_traceparent_keeps_its_ids_and_the_flags_that_are_known(
    trace_id: str, span_id: str, flags: int, version: str
) -> None:
    trace = TraceContext.parse(f"{version}-{trace_id}-{span_id}-{flags:02x}")
    if trace is not None:
        assert (trace.trace_id, trace.span_id, trace.is_sampled) == (trace_id, span_id, flags % 2 == 1)
        assert trace.traceparent == f"00-{trace_id}-{span_id}-{flags & 3:02x}"
        assert TraceContext.parse(trace.traceparent) == trace


@pytest.mark.parametrize(
    ("given_state", "kept"),
    [
        ("", ""),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" rojo=1 ,, congo=2\t", "rojo=1,congo=2"),
        ("fw529a3039@dt=FfffffffF;a.b", "fw529a3039@dt=FfffffffF;a.b"),
        ("rojo=1,rojo=2", ""),
        ("Rojo=1", ""),
        ("rojo", ""),
        ("rojo=a=b", ""),
        ("rojo=\n", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        ("k=" + "v" * 255, "k=" + "v" * 255),
        ("k=" + "v" * 257, ""),
        (",".join(f"k{number}={'v' * 200}" for number in range(3)), ""),
    ],
)
def test_a_tracestate_is_kept_if_it_is_valid_and_not_too_long(given_state: str, kept: str) -> None:
    trace = TraceContext.parse(TRACEPARENT, given_state)
    assert trace is not None
    assert trace.state == kept
    assert len(trace.state) <= MAX_STATE
    assert dict(trace.headers()) == {"traceparent": TRACEPARENT, **({"tracestate": kept} if kept else {})}


def test_a_trace_becomes_environment_variables() -> None:
    trace = TraceContext(TRACE_ID, SPAN_ID, 1, "rojo=1")
    assert trace.variables() == {"TRACEPARENT": TRACEPARENT, "TRACESTATE": "rojo=1"}


def test_job_ids_are_equal_whatever_their_trace() -> None:
    assert JobId("a", "b", "cccc", "d") == JobId("a", "b", "cccc", "d", TRACEPARENT, "rojo=1")


def test_a_client_adds_a_trace_to_the_metadata_of_a_call() -> None:
    token = {"metadata": (("authorization", "Bearer x"),)}
    added = {"metadata": (*token["metadata"], ("traceparent", TRACEPARENT))}
    assert CallTrace(TRACEPARENT).add_to(token) == added
    assert CallTrace(lambda: TRACEPARENT).add_to(token) == added
    assert CallTrace(TraceContext(TRACE_ID, SPAN_ID, 1)).add_to({"credentials": 1}) == {
        "credentials": 1,
        "metadata": (("traceparent", TRACEPARENT),),
    }


@pytest.mark.parametrize("trace", ["", "00-x", lambda: None, lambda: "malformed"])
def test_a_client_sends_no_malformed_traceparent(trace: str) -> None:
    assert CallTrace(trace).add_to({}) == {}


def test_a_client_uses_the_current_span_and_loads_no_opentelemetry() -> None:
    program = f"""
import sys
from spincycle_grpc import Client
from spincycle_grpc.call_trace import CallTrace
assert CallTrace(None).add_to({{}}) == {{}}
assert not any(name.startswith("opentelemetry") for name in sys.modules)
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span
assert CallTrace(None).add_to({{}}) == {{}}
context = SpanContext(0x{TRACE_ID}, 0x{SPAN_ID}, False, TraceFlags(1), TraceState([("rojo", "1")]))
with use_span(NonRecordingSpan(context)):
    print(CallTrace(None).add_to({{}}), CallTrace(lambda: None).add_to({{}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    sent = {"metadata": (("traceparent", TRACEPARENT), ("tracestate", "rojo=1"))}
    assert done.stdout == f"{sent} {{}}\n"
