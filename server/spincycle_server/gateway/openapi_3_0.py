"""Converts an OpenAPI 3.1 document to 3.0, which many generators of clients still need."""

from __future__ import annotations

from typing import Any

_NULL = {"type": "null"}


def as_openapi_3_0(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a document as OpenAPI 3.0.

    It converts what `openapi.document` uses. Mutual TLS is left out, because 3.0 cannot describe it.
    """
    converted: dict[str, Any] = _converted(document)
    converted["openapi"] = "3.0.3"
    del converted["info"]["license"]["identifier"]
    components = converted["components"]
    components["securitySchemes"] = {
        name: scheme
        for name, scheme in components["securitySchemes"].items()
        if scheme["type"] != "mutualTLS"
    }
    converted["security"] = [
        choice for choice in converted["security"] if set(choice) <= set(components["securitySchemes"])
    ]
    return converted


def _converted(value: Any) -> Any:
    if isinstance(value, list):
        return [_converted(item) for item in value]
    if not isinstance(value, dict):
        return value
    converted = {key: _converted(item) for key, item in value.items()}
    if isinstance(value.get("type"), list):
        (kind,) = (kind for kind in value["type"] if kind != "null")
        converted |= {"type": kind, "nullable": True}
    if _NULL in value.get("anyOf", ()):
        # Beside a reference, 3.0 ignores everything, so the reference is wrapped.
        converted["allOf"] = [_converted(choice) for choice in value["anyOf"] if choice != _NULL]
        converted["nullable"] = True
        del converted["anyOf"]
    if "$ref" in value and len(value) > 1:
        converted["allOf"] = [{"$ref": converted.pop("$ref")}]
    if isinstance(value.get("const"), str):
        converted["enum"] = [converted.pop("const")]
    if value.get("contentEncoding") == "base64":
        del converted["contentEncoding"]
        converted["format"] = "byte"
    return converted
