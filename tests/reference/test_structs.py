"""Every field of the original's structs is in the message of the same name, with the same key."""

from __future__ import annotations

import re

import pytest

from spincycle_grpc.v1 import json_pb2
from tests.reference.structs import FILTERS, MESSAGES, STRUCTS, Field

BODIES = sorted(STRUCTS.keys() - FILTERS)
"""The structs that are JSON."""


def snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def options(message: str, field: str) -> json_pb2.JsonField:
    found = MESSAGES[message].fields_by_name[field].GetOptions()
    return found.Extensions[json_pb2.json_field]


def test_the_table_has_all_structs_of_the_original() -> None:
    assert (len(STRUCTS), sum(map(len, STRUCTS.values()))) == (15, 86)
    assert {"RequestFilter", "StatusFilter"} == FILTERS


@pytest.mark.parametrize(
    ("struct", "field"),
    [(struct, field) for struct in BODIES for field in STRUCTS[struct]],
    ids=lambda part: part.name if isinstance(part, Field) else part,
)
def test_a_field_has_the_key_of_the_original_and_is_left_out_when_the_original_does(
    struct: str, field: Field
) -> None:
    name = snake_case(field.name)
    descriptor = MESSAGES[struct].fields_by_name[name]
    declared = options(struct, name)
    assert (descriptor.json_name, declared.omit_empty) == (field.key, field.omitempty)
    assert not declared.hidden


@pytest.mark.parametrize("struct", BODIES)
def test_a_field_that_the_original_does_not_have_is_only_written_when_it_is_used(struct: str) -> None:
    originals = {snake_case(field.name) for field in STRUCTS[struct]}
    for field in MESSAGES[struct].fields:
        if field.name not in originals:
            declared = options(struct, field.name)
            assert declared.omit_empty or declared.hidden, field.full_name


@pytest.mark.parametrize("struct", sorted(FILTERS))
def test_a_filter_has_the_parameters_of_the_original(struct: str) -> None:
    for field in STRUCTS[struct]:
        name = snake_case(field.name)
        descriptor = MESSAGES[struct].fields_by_name[name]
        assert (options(struct, name).query_name or descriptor.json_name) == field.param
