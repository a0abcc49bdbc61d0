"""The configuration's structs as JSON Schema (2020-12), with each option's words.

msgspec can write schemas itself, but neither with field texts nor with defaults of our own
unit types; this one covers exactly the types the configuration uses.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import inspect

from serving.config.docstrings import field_docs
from serving.config.units import ByteSize, Seconds

__all__ = ["json_schema"]

_SECONDS: Final = {
    "type": "string",
    "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(us|ms|s|m|h|d)\s*$",
    "examples": ["50ms", "5s", "7d"],
}
_BYTES: Final = {
    "type": "string",
    "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB)\s*$",
    "examples": ["512KiB", "16MiB"],
}


def json_schema(kinds: list[type[msgspec.Struct]]) -> dict[str, Any]:
    """One schema for several files.

    The first kind is what a file is if no other claims it; each other is recognised by its
    first required key, so that an editor shows the mistakes of that kind and no others.
    """
    sections: dict[str, Any] = {}
    for kind in kinds:
        _Writer(sections).of(inspect.type_info(kind))
    first, *others = kinds
    choice: dict[str, Any] = {"$ref": f"#/$defs/{first.__name__}"}
    for kind in reversed(others):
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        key = next(field.encode_name for field in info.fields if field.required)
        choice = {
            "if": {"required": [key]},
            "then": {"$ref": f"#/$defs/{kind.__name__}"},
            "else": choice,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sluice configuration",
        "description": "Any file of a Sluice configuration directory. Made by `make generate`.",
        **choice,
        "$defs": dict(sorted(sections.items())),
    }


class _Writer:
    def __init__(self, sections: dict[str, Any]) -> None:
        self._sections = sections

    def of(self, info: inspect.Type) -> dict[str, Any]:
        """The schema of one type; structs go to `$defs`."""
        write: Callable[[Any], dict[str, Any]] = getattr(self, f"_{type(info).__name__.lower()}")
        return write(info)

    def _structtype(self, info: inspect.StructType) -> dict[str, Any]:
        name = info.cls.__name__
        if name not in self._sections:
            self._sections[name] = {}  # claimed first: a struct may hold itself
            docs = field_docs(info.cls)
            self._sections[name] = {
                "title": name,
                "description": " ".join((info.cls.__doc__ or "").split()),
                "type": "object",
                "properties": {
                    field.encode_name: {
                        "description": docs[field.encode_name],
                        **self.of(field.type),
                        **_default(field),
                    }
                    for field in info.fields
                },
                "required": [field.encode_name for field in info.fields if field.required],
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}

    def _dicttype(self, info: inspect.DictType) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": self.of(info.value_type),
        }
        keys = self.of(info.key_type)
        if "pattern" in keys:
            schema["propertyNames"] = keys
        if info.min_length:
            schema["minProperties"] = info.min_length
        return schema

    def _listtype(self, info: inspect.ListType) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.of(info.item_type)}
        if info.min_length:
            schema["minItems"] = info.min_length
        return schema

    def _uniontype(self, info: inspect.UnionType) -> dict[str, Any]:
        return {"anyOf": [self.of(kind) for kind in info.types]}

    def _strtype(self, info: inspect.StrType) -> dict[str, Any]:
        bounds = {
            "minLength": info.min_length,
            "maxLength": info.max_length,
            "pattern": info.pattern,
        }
        return {"type": "string"} | _given(bounds)

    def _inttype(self, info: inspect.IntType) -> dict[str, Any]:
        return {"type": "integer"} | _range(info)

    def _floattype(self, info: inspect.FloatType) -> dict[str, Any]:
        return {"type": "number"} | _range(info)

    def _booltype(self, _: inspect.BoolType) -> dict[str, Any]:
        return {"type": "boolean"}

    def _nonetype(self, _: inspect.NoneType) -> dict[str, Any]:
        return {"type": "null"}

    def _literaltype(self, info: inspect.LiteralType) -> dict[str, Any]:
        return {"enum": list(info.values)}

    def _customtype(self, info: inspect.CustomType) -> dict[str, Any]:
        return dict({Seconds: _SECONDS, ByteSize: _BYTES}[info.cls])


def _range(info: inspect.IntType | inspect.FloatType) -> dict[str, Any]:
    return _given(
        {
            "minimum": info.ge,
            "exclusiveMinimum": info.gt,
            "maximum": info.le,
            "exclusiveMaximum": info.lt,
        }
    )


def _given(bounds: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in bounds.items() if value is not None}


def _default(field: inspect.Field) -> dict[str, Any]:
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    elif field.default is not msgspec.NODEFAULT:
        value = field.default
    else:
        return {}
    # A section's default is that each of its options has its own.
    return {} if isinstance(value, msgspec.Struct) else {"default": _plain(value)}


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=str)
