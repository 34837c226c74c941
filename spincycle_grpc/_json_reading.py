"""Parsed JSON into messages: one function a message type, made from its descriptor."""

from __future__ import annotations

import binascii
import datetime
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from keyword import iskeyword
from operator import itemgetter
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc._json_source import Path
from spincycle_grpc.json_form import entry_fields, enum_literals, is_map, is_plain_type, json_options
from spincycle_grpc.structs import fill_struct, fill_value
from spincycle_grpc.v1 import json_pb2

Fill: TypeAlias = Callable[[Any, Any], None]
"""Sets a message, in place, to a JSON value that is not null."""

_EPOCH = datetime.datetime(1970, 1, 1)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_EARLIEST, _LATEST = -62135596800, 253402300799
_JSON_TYPES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}
_CLASSES = {
    FieldDescriptor.CPPTYPE_STRING: (str, "string"),
    FieldDescriptor.CPPTYPE_BOOL: (bool, "bool"),
    FieldDescriptor.CPPTYPE_INT32: (int, "int32"),
    FieldDescriptor.CPPTYPE_INT64: (int, "int64"),
    FieldDescriptor.CPPTYPE_UINT32: (int, "uint32"),
    FieldDescriptor.CPPTYPE_UINT64: (int, "uint64"),
    FieldDescriptor.CPPTYPE_ENUM: (int, "int32"),
}


class WrongTypeError(ValueError):
    """A value cannot be that of its field.

    Attributes:
        expected: What it should be.
        got: What it is.
        path: Where it is, in the keys of the JSON text.
        names: Where it is, in the names that the fields have.
    """

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(expected)
        self.expected = expected
        self.got = _JSON_TYPES.get(value.__class__, "null")
        if self.got == "number" and expected != "string":
            self.got += f" {value!r:.40}"
        self.path: Path = ()
        self.names: Path = ()

    def inside(self, key: str | int) -> WrongTypeError:
        """Returns the error as it is one level further out."""
        self.path = (key, *self.path)
        self.names = (key, *self.names)
        return self


class Readers:
    """The functions that were made so far, by the names of their message types.

    Args:
        largest: Floats in args and data that are not below this are refused.
    """

    def __init__(self, largest: float) -> None:
        self._largest = largest
        self._fills: dict[str, Fill] = {
            Timestamp.DESCRIPTOR.full_name: fill_timestamp,
            Duration.DESCRIPTOR.full_name: _fill_duration,
            Struct.DESCRIPTOR.full_name: partial(self._fill_struct, "args"),
            Value.DESCRIPTOR.full_name: partial(self._fill_value, "value"),
            ListValue.DESCRIPTOR.full_name: self._fill_list_value,
        }
        self._field_fills: dict[str, Fill] = {}

    def of_message(self, descriptor: Descriptor) -> Fill:
        """Returns what sets a message of this type."""
        fill = self._fills.get(descriptor.full_name)
        if fill is None:
            fill = self._fills[descriptor.full_name] = self._make(descriptor)
        return fill

    def of_field(self, field: FieldDescriptor) -> Fill:
        """Returns what sets a field, in the message that has it."""
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
        exec("\n".join(lines), names)  # noqa: S102 (made of names that the descriptor holds)
        fill: Fill = names["fill"]
        return fill

    def _statements(self, field: FieldDescriptor, item: str, names: dict[str, Any]) -> list[str]:
        """Returns the lines that read one field: straight code, since this is on every request's path."""
        fill_field = f"fill_{field.name}"
        names[fill_field] = self.of_field(field)
        through_function = [
            "try:",
            f"    {fill_field}(message, {item})",
            "except WrongTypeError as error:",
            f"    raise error.inside({field.json_name!r}) from None",
        ]
        is_bytes = field.type == FieldDescriptor.TYPE_BYTES
        # `try` is a field's name and a word of Python's own: such a field is set by its function.
        if (
            field.is_repeated
            or not (is_plain_type(field) or is_bytes)
            or field.cpp_type not in _CLASSES
            or iskeyword(field.name)
        ):
            return [f"    if {item} is not None:", *_indented(through_function, 2)]
        needed = _CLASSES[field.cpp_type][0].__name__
        is_set = [f"message.{field.name} = {item}"]
        if is_bytes:
            names["a2b_base64"] = binascii.a2b_base64
            is_set = [f"message.{field.name} = a2b_base64({item}, strict_mode=True)"]
        if needed == "int" or is_bytes:  # It may be out of range, or no base64: then the function says so.
            is_set = [f"try: {is_set[0]}", "except ValueError:", *_indented(through_function, 1)]
        # The message is new, so that a value that is the default need not be set.
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
                part.SetInParent()  # all that is in it may be what a new one has
                fill(part, value)

            return fill_message
        read = _scalar_reader(field)
        return lambda message, value: setattr(message, name, read(value))

    def _struct_filler(self, field: FieldDescriptor) -> Fill:
        """Returns what sets args or data, without the steps between: they are most of a job chain."""
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
        """Returns what sets a message in a field, found at its first use: the type may contain itself."""
        descriptor = field.message_type
        assert descriptor is not None  # noqa: S101 (the caller has looked)
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
        key_field, value_field = entry_fields(field)
        read_key = _key_reader(key_field)
        is_text = key_field.type == FieldDescriptor.TYPE_STRING
        if value_field.message_type is not None:
            descriptor = value_field.message_type

            def fill_items(items: Any, value: dict[str, Any]) -> None:
                fill_item = self.of_message(descriptor)
                key = ""
                try:
                    for key, item in value.items():
                        part = items[key if is_text else read_key(key)]
                        if item is not None:
                            fill_item(part, item)
                except WrongTypeError as error:
                    raise error.inside(key) from None
        else:
            read = _scalar_reader(value_field)
            default = value_field.default_value

            def fill_items(items: Any, value: dict[str, Any]) -> None:
                key = ""
                try:
                    for key, item in value.items():
                        items[read_key(key)] = default if item is None else read(item)
                except WrongTypeError as error:
                    raise error.inside(key) from None

        def fill(message: Any, value: Any) -> None:
            if value.__class__ is not dict:
                raise WrongTypeError("object", value)
            fill_items(getattr(message, name), value)

        return fill

    def _list_filler(self, field: FieldDescriptor) -> Fill:
        name = field.name
        if field.message_type is not None:
            fill_item = self._message_filler(field)

            def add(items: Any, value: Any) -> None:
                item = items.add()
                if value is not None:
                    fill_item(item, value)
        else:
            read = _scalar_reader(field)
            default = field.enum_type.values[0].number if field.enum_type else _ZEROS.get(field.cpp_type, 0)
            if field.type == FieldDescriptor.TYPE_BYTES:
                default = b""

            def add(items: Any, value: Any) -> None:
                items.append(default if value is None else read(value))

        is_text = field.type == FieldDescriptor.TYPE_STRING

        def fill(message: Any, value: Any) -> None:
            if value.__class__ is not list:
                raise WrongTypeError("array", value)
            items = getattr(message, name)
            index = 0
            try:
                if is_text:
                    try:
                        items.extend(value)
                        return
                    except TypeError:  # One is no text: the loop below finds out which.
                        del items[:]
                for index, item in enumerate(value):  # noqa: B007 (the handler below names it)
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


_ZEROS: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_STRING: "",
    FieldDescriptor.CPPTYPE_BOOL: False,
    FieldDescriptor.CPPTYPE_DOUBLE: 0.0,
    FieldDescriptor.CPPTYPE_FLOAT: 0.0,
}


def _items_of_all_keys(fields: Sequence[FieldDescriptor], names: dict[str, Any]) -> list[str]:
    """Returns the lines that take all items; those that are always written at once, if all are there."""
    numbered = [(f"item{number}", field) for number, field in enumerate(fields)]
    always = [(item, field) for item, field in numbered if not json_options(field).omit_empty]
    others = [(item, field) for item, field in numbered if json_options(field).omit_empty]
    if len(always) < 2:  # then itemgetter makes no tuple
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
    """Returns what sets fields from keys that are known in another case, and ignores those that are not."""

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


def fill_timestamp(message: Timestamp, value: object) -> None:
    """Sets a time to an RFC 3339 text with any number of fractional digits, of which nine count.

    Raises:
        WrongTypeError: It is none, or not within the years 1 to 9999.
    """
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise WrongTypeError("RFC 3339 time", value)
    date, fraction, sign, hours, minutes = match.groups()
    try:
        since = datetime.datetime.fromisoformat(date) - _EPOCH
    except ValueError:
        raise WrongTypeError("RFC 3339 time", value) from None
    seconds = since.days * 86400 + since.seconds
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        if int(hours) > 23 or int(minutes) > 59:
            raise WrongTypeError("RFC 3339 time", value)
        seconds += offset if sign == "-" else -offset
    if not _EARLIEST <= seconds <= _LATEST:
        raise WrongTypeError("time within the years 1 to 9999", value)
    message.seconds = seconds
    message.nanos = int(f"{fraction[:9]:0<9}") if fraction else 0


def _fill_duration(message: Duration, value: object) -> None:
    try:
        message.FromJsonString(value)  # type: ignore[arg-type]  # other values give one of these errors
    except (ValueError, TypeError, AttributeError):
        raise WrongTypeError("duration in seconds, as 1.5s", value) from None


def _scalar_reader(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Returns what makes a field's value of a JSON value that is not null."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _read_bytes
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _read_float
    if field.enum_type is not None and not is_plain_type(field):
        return partial(_read_literal, {literal: number for number, literal in enum_literals(field).items()})
    needed, expected = _CLASSES[field.cpp_type]
    largest = {"int32": 2**31 - 1, "uint32": 2**32 - 1, "int64": 2**63 - 1, "uint64": 2**64 - 1}.get(expected)
    if largest is None:
        return partial(_read_as_it_is, needed, expected)
    smallest = 0 if expected.startswith("u") else -largest - 1
    return partial(_read_integer, expected, smallest, largest)


def _read_as_it_is(needed: type, expected: str, value: Any) -> Any:
    if value.__class__ is not needed:
        raise WrongTypeError(expected, value)
    return value


def _read_integer(expected: str, smallest: int, largest: int, value: Any) -> int:
    if value.__class__ is not int or not smallest <= value <= largest:
        raise WrongTypeError(expected, value)
    return int(value)


def _read_float(value: Any) -> float:
    if value.__class__ not in (int, float):
        raise WrongTypeError("number", value)
    return float(value)


def _read_bytes(value: Any) -> bytes:
    if value.__class__ is not str:
        raise WrongTypeError("string of base64", value)
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise WrongTypeError("string of base64", value) from None


def _read_literal(numbers: dict[str, int], value: Any) -> int:
    number = numbers.get(value) if value.__class__ is str else value
    if number.__class__ is not int:
        raise WrongTypeError("one of " + ", ".join(f'"{name}"' for name in sorted(numbers)), value)
    return int(number)


def _key_reader(field: FieldDescriptor) -> Callable[[str], Any]:
    """Returns what makes a map's key of a JSON object's."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return str
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return partial(_read_word, {"true": True, "false": False})
    return _read_integer_key


def _read_word(words: dict[str, bool], key: str) -> bool:
    if key not in words:
        raise WrongTypeError("true or false as a key", key)
    return words[key]


def _read_integer_key(key: str) -> int:
    try:
        return int(key[:30])
    except ValueError:
        raise WrongTypeError("a whole number as a key", key) from None
