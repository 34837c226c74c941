"""Fills messages from parsed JSON, with one generated function per message type.

The functions are Python source, compiled with `exec`. They read a large job chain 26 to 31 % faster
than closures over the fields, which would miss the target of `bench/wire.py`.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from keyword import iskeyword
from operator import itemgetter
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc._json_values import (
    SCALAR_CLASSES,
    WrongTypeError,
    fill_duration,
    fill_timestamp,
    key_reader,
    scalar_reader,
    zero_value,
)
from spincycle_grpc.json_form import entry_fields, is_map, is_plain_type, json_options
from spincycle_grpc.structs import fill_struct, fill_value
from spincycle_grpc.v1 import json_pb2

Fill: TypeAlias = Callable[[Any, Any], None]
"""Fills a new message from a JSON value that is not null."""


class FillFunctions:
    """The fill functions of message types and fields. Each is generated on first use.

    Args:
        largest: Floats in args and job data must be below this.
    """

    def __init__(self, largest: float) -> None:
        self._largest = largest
        self._fills: dict[str, Fill] = {
            Timestamp.DESCRIPTOR.full_name: fill_timestamp,
            Duration.DESCRIPTOR.full_name: fill_duration,
            Struct.DESCRIPTOR.full_name: partial(self._fill_struct, "args"),
            Value.DESCRIPTOR.full_name: partial(self._fill_value, "value"),
            ListValue.DESCRIPTOR.full_name: self._fill_list_value,
        }
        self._field_fills: dict[str, Fill] = {}

    def of_message(self, descriptor: Descriptor) -> Fill:
        """Returns the function that fills a message of this type."""
        fill = self._fills.get(descriptor.full_name)
        if fill is None:
            fill = self._fills[descriptor.full_name] = self._make(descriptor)
        return fill

    def of_field(self, field: FieldDescriptor) -> Fill:
        """Returns the function that sets this field of a message."""
        fill = self._field_fills.get(field.full_name)
        if fill is None:
            fill = self._field_fills[field.full_name] = self._make_field(field)
        return fill

    def _make(self, descriptor: Descriptor) -> Fill:
        if descriptor.GetOptions().Extensions[json_pb2.json_message].unwrapped:
            return self.of_field(descriptor.fields[0])
        fields = [field for field in descriptor.fields if not json_options(field).hidden]
        names: dict[str, Any] = {"WrongTypeError": WrongTypeError}
        lines = ["def fill(message, value):", "    if value.__class__ is not dict:"]
        lines += ["        raise WrongTypeError('object', value)", "    get = value.get"]
        lines += _items_of_all_keys(fields, names)
        for number, field in enumerate(fields):
            lines += self._statements(field, f"item{number}", names)
        lines += ["    if not known.issuperset(value):", "        fill_others(message, value)"]
        names["known"] = frozenset(field.json_name for field in fields)
        names["fill_others"] = _tolerant(
            names["known"],
            {field.json_name.lower(): (field.json_name, names[f"fill_{field.name}"]) for field in fields},
        )
        exec("\n".join(lines), names)  # noqa: S102 (the source has only names from the descriptor)
        fill: Fill = names["fill"]
        return fill

    def _statements(self, field: FieldDescriptor, item: str, names: dict[str, Any]) -> list[str]:
        """Returns the lines that read one field. They call a function only for values that need one."""
        fill_field = f"fill_{field.name}"
        names[fill_field] = self.of_field(field)
        through_function = [
            "try:",
            f"    {fill_field}(message, {item})",
            "except WrongTypeError as error:",
            f"    raise error.inside({field.json_name!r}) from None",
        ]
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        # A field whose name is a Python keyword, like `try`, cannot be an attribute in source.
        if (
            field.is_repeated
            or not (is_plain_type(field) or is_bytes)
            or field.cpp_type not in SCALAR_CLASSES
            or iskeyword(field.name)
        ):
            return [f"    if {item} is not None:", *_indented(through_function, 2)]
        needed = SCALAR_CLASSES[field.cpp_type][0].__name__
        is_set = [f"message.{field.name} = {item}"]
        if is_bytes:
            names["a2b_base64"] = binascii.a2b_base64
            is_set = [f"message.{field.name} = a2b_base64({item}, strict_mode=True)"]
        if needed == "int" or is_bytes:  # The value may be out of range or not base64.
            is_set = [f"try: {is_set[0]}", "except ValueError:", *_indented(through_function, 1)]
        # The message is new, so it already has the default values.
        condition = f"{item} is not None" if field.has_presence else item
        lines = [f"    if {condition}:", f"        if {item}.__class__ is {needed}:"]
        lines += [*_indented(is_set, 3), "        else:", *_indented(through_function, 3)]
        lines += [f"    elif {item} is not None and {item}.__class__ is not {needed}:"]
        return lines + _indented(through_function, 2)

    def _make_field(self, field: FieldDescriptor) -> Fill:
        if is_map(field):
            return self._map_filler(field)
        if field.is_repeated:
            return self._list_filler(field)
        name = field.name
        if field.message_type is Struct.DESCRIPTOR:
            return self._struct_filler(field)
        if field.message_type is not None:
            fill = self._message_filler(field)

            def fill_message(message: Any, value: Any) -> None:
                part = getattr(message, name)
                part.SetInParent()  # Because the JSON object may be empty.
                fill(part, value)

            return fill_message
        read = scalar_reader(field)
        return lambda message, value: setattr(message, name, read(value))

    def _struct_filler(self, field: FieldDescriptor) -> Fill:
        """Returns the function that sets args or job data. It is fast, because they are most of a chain."""
        name, path, largest = field.name, field.json_name, self._largest

        def fill(message: Any, value: Any) -> None:
            if value.__class__ is not dict:
                raise WrongTypeError("object", value)
            struct = getattr(message, name)
            if not value:
                struct.SetInParent()
            fill_struct(struct, value, path, largest)

        return fill

    def _message_filler(self, field: FieldDescriptor) -> Fill:
        """Returns the function that fills the message in a field.

        It looks up the type's function on first use, because a type may contain itself.
        """
        descriptor = field.message_type
        assert descriptor is not None  # noqa: S101 (callers have checked)
        if descriptor.full_name == Struct.DESCRIPTOR.full_name:
            return partial(self._fill_struct, field.json_name)
        if descriptor.full_name == Value.DESCRIPTOR.full_name:
            return partial(self._fill_value, field.json_name)
        found: Fill | None = None

        def fill(message: Any, value: Any) -> None:
            nonlocal found
            if found is None:
                found = self.of_message(descriptor)
            found(message, value)

        return self._fills.get(descriptor.full_name, fill)

    def _map_filler(self, field: FieldDescriptor) -> Fill:
        name = field.name
        fill_items = self._map_items_filler(field)

        def fill(message: Any, value: Any) -> None:
            if value.__class__ is not dict:
                raise WrongTypeError("object", value)
            fill_items(getattr(message, name), value)

        return fill

    def _map_items_filler(self, field: FieldDescriptor) -> Fill:
        key_field, value_field = entry_fields(field)
        if value_field.message_type is None:
            return _scalar_map_filler(key_reader(key_field), value_field)
        descriptor = value_field.message_type
        read_key = None if key_field.type == FieldDescriptor.TYPE_STRING else key_reader(key_field)

        def fill_items(items: Any, value: dict[str, Any]) -> None:
            fill_item = self.of_message(descriptor)
            key = ""
            try:
                for key, item in value.items():
                    part = items[key if read_key is None else read_key(key)]
                    if item is not None:
                        fill_item(part, item)
            except WrongTypeError as error:
                raise error.inside(key) from None

        return fill_items

    def _list_filler(self, field: FieldDescriptor) -> Fill:
        name = field.name
        add = _scalar_adder(field) if field.message_type is None else _adder(self._message_filler(field))
        is_text = field.type == FieldDescriptor.TYPE_STRING

        def fill(message: Any, value: Any) -> None:
            if value.__class__ is not list:
                raise WrongTypeError("array", value)
            items = getattr(message, name)
            if is_text:
                try:
                    items.extend(value)
                    return
                except TypeError:  # An item is not text. The loop below finds it.
                    del items[:]
            index = 0
            try:
                for index, item in enumerate(value):  # noqa: B007 (the handler below uses it)
                    add(items, item)
            except WrongTypeError as error:
                raise error.inside(index) from None

        return fill

    def _fill_struct(self, name: str, message: Any, value: Any) -> None:
        if value.__class__ is not dict:
            raise WrongTypeError("object", value)
        fill_struct(message, value, name, largest=self._largest)

    def _fill_value(self, name: str, message: Any, value: Any) -> None:
        fill_value(message, value, name, largest=self._largest)

    def _fill_list_value(self, message: Any, value: Any) -> None:
        if value.__class__ is not list:
            raise WrongTypeError("array", value)
        for index, item in enumerate(value):
            fill_value(message.values.add(), item, f"[{index}]", largest=self._largest)


def _scalar_map_filler(read_key: Callable[[str], Any], value_field: FieldDescriptor) -> Fill:
    read = scalar_reader(value_field)
    default = value_field.default_value

    def fill_items(items: Any, value: dict[str, Any]) -> None:
        key = ""
        try:
            for key, item in value.items():
                items[read_key(key)] = default if item is None else read(item)
        except WrongTypeError as error:
            raise error.inside(key) from None

    return fill_items


def _adder(fill_item: Fill) -> Fill:
    def add(items: Any, value: Any) -> None:
        item = items.add()
        if value is not None:
            fill_item(item, value)

    return add


def _scalar_adder(field: FieldDescriptor) -> Fill:
    read = scalar_reader(field)
    default = zero_value(field)

    def add(items: Any, value: Any) -> None:
        items.append(default if value is None else read(value))

    return add


def _items_of_all_keys(fields: Sequence[FieldDescriptor], names: dict[str, Any]) -> list[str]:
    """Returns the lines that take the items of all fields from a JSON object.

    The items of fields that are always written are taken together if all are there.
    """
    numbered = [(f"item{number}", field) for number, field in enumerate(fields)]
    always = [(item, field) for item, field in numbered if not json_options(field).omit_empty]
    others = [(item, field) for item, field in numbered if json_options(field).omit_empty]
    if len(always) < 2:  # Because itemgetter of one key returns no tuple.
        always, others = [], numbered
    one_by_one = {item: f"{item} = get({field.json_name!r})" for item, field in numbered}
    lines = [one_by_one[item] for item, _ in others]
    if always:
        names["take"] = itemgetter(*(field.json_name for _, field in always))
        lines += ["try: " + ", ".join(item for item, _ in always) + " = take(value)", "except KeyError:"]
        lines += _indented([one_by_one[item] for item, _ in always], 1)
    return _indented(lines, 1)


def _indented(lines: Iterable[str], levels: int) -> list[str]:
    return ["    " * levels + line for line in lines]


def _tolerant(known: Collection[str], by_lower_case: Mapping[str, tuple[str, Fill]]) -> Fill:
    """Returns the function that reads keys with another case than the field. It ignores unknown keys."""

    def fill_others(message: Any, value: dict[str, Any]) -> None:
        for key, item in value.items():
            proper, fill_field = by_lower_case.get(key.lower(), ("", None))
            if key in known or fill_field is None or item is None:
                continue
            try:
                fill_field(message, item)
            except WrongTypeError as error:
                error = error.inside(proper)
                error.path = (key, *error.path[1:])
                raise error from None

    return fill_others
