"""The values and the depth of JSON text are counted exactly, whatever its strings contain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.gateway import json_counting
from spincycle_server.gateway.json_counting import MAX_DEPTH, check_json
from spincycle_server.rpc.input_limits import VALUES_PER_NAME

texts = st.text(alphabet='ab\\"[]{},:u0é', max_size=8)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=30,
)


def counted(value: Any) -> int:
    """Returns how many values a value has: the slow model."""
    if isinstance(value, dict):
        return 1 + (sum(VALUES_PER_NAME + counted(item) for item in value.values()) or 1)
    if isinstance(value, list):
        return 1 + (sum(counted(item) for item in value) or 1)
    return 1


@given(value=values, step=st.integers(1, 40), is_ascii=st.booleans())
def test_values_are_counted_as_the_model_counts_them(value: Any, step: int, is_ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=is_ascii).encode()
    count = counted(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_counting, "_STEP", step)
        check_json(data, count)
        with pytest.raises(InvalidArgumentError) as caught:
            check_json(data, count - 1)
    assert caught.value.reason == "TOO_MANY_VALUES"


@pytest.mark.parametrize(
    "text",
    [b",[{:" * 1_000_000, b'\\"[,' * 1_000_000, b"\\\\" * 1_000_000],
    ids=["marks", "quotes", "escapes"],
)
def test_the_content_of_strings_does_not_count(text: bytes) -> None:
    check_json(b'{"%s":"%s"}' % (text, text), 2 + VALUES_PER_NAME)


@pytest.mark.parametrize("step", [7, 262_144])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_text_may_nest_as_deep_as_the_limit(
    opening: bytes, closing: bytes, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_counting, "_STEP", step)
    flat = b",".join([b"[]"] * 2 * MAX_DEPTH)
    check_json(b"[%s,%s0%s]" % (flat, opening * (MAX_DEPTH - 1), closing * (MAX_DEPTH - 1)), 10_000)
    with pytest.raises(InvalidArgumentError) as caught:
        check_json(b"[%s,%s0%s]" % (flat, opening * MAX_DEPTH, closing * MAX_DEPTH), 10_000)
    assert caught.value.reason == "TOO_DEEP"
