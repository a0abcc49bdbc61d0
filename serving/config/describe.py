"""Types in words: what an option accepts, and why a value is not that.

Values are echoed only where they cannot be secrets: never where a digest or a store address
is expected.
"""

import math
import re
from collections.abc import Callable
from typing import Any, Final

from msgspec import inspect

from serving.config.problems import nearest
from serving.config.units import ByteSize, Seconds
from serving.config.yaml_source import Scalar

__all__ = ["bounds", "expected", "refusal"]

_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_SHA256: Final = r"^[0-9a-f]{64}$"
_SHA256_OR_NOTHING: Final = r"^([0-9a-f]{64})?$"
_HEADER: Final = r"^[a-z0-9-]+$"
_STORE: Final = r"^(embedded$|redis://|rediss://|unix://)"

_PATTERNS: Final = {
    _NAME: "a name of up to 64 lower-case letters, digits, `.`, `_` and `-`",
    _SHA256: "64 hex digits in lower case",
    _SHA256_OR_NOTHING: "64 hex digits in lower case",
    _HEADER: "a header name in lower case",
    _STORE: "`embedded` or an address that begins with redis://, rediss:// or unix://",
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NUMERAL: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?\Z")
_SECRET: Final = frozenset({_SHA256, _SHA256_OR_NOTHING, _STORE})


def expected(info: inspect.Type) -> str:
    """What a value of this type looks like, in a few words."""
    return _EXPECTED[type(info)](info)


def bounds(info: inspect.Type) -> str:
    """The limits of a number or the length of a text, or an empty string."""
    match info:
        case inspect.IntType() | inspect.FloatType():
            low = [f"from {info.ge}"] if info.ge is not None else []
            low += [f"above {info.gt}"] if info.gt is not None else []
            high = [f"to {info.le}"] if info.le is not None else []
            high += [f"below {info.lt}"] if info.lt is not None else []
            return " ".join(low + high) if high else " ".join(low).replace("from", "of at least")
        case inspect.StrType(min_length=least, max_length=most) if least and most:
            return f"{least} to {most} characters"
    return ""


def refusal(node: Scalar, info: inspect.Type) -> tuple[str, str] | None:
    """Why a scalar is not of this (scalar) type: message and suggestion, or None if it is."""
    suggestion = _SUGGEST[type(info)](node, info)
    if suggestion is None:
        return None
    raw = node.raw
    shown = f"`{raw[:40]}{'…' * (len(raw) > 40)}`" if raw else "nothing"
    if getattr(info, "pattern", None) in _SECRET:
        shown = f"{len(raw)} characters"
    return f"expected {expected(info)}, got {shown}", suggestion


# --- types in words -------------------------------------------------------------------------


def _expected_text(info: inspect.StrType) -> str:
    if info.pattern is not None:
        return _PATTERNS.get(info.pattern, f"text that matches {info.pattern}")
    return " of ".join(filter(None, ("text", bounds(info))))


def _expected_number(info: inspect.IntType | inspect.FloatType) -> str:
    if info.ge is not None and info.ge == info.le:
        return f"{info.ge}"
    kind = "a whole number" if isinstance(info, inspect.IntType) else "a number"
    return " ".join(filter(None, (kind, bounds(info))))


def _expected_quantity(info: inspect.CustomType) -> str:
    return {
        Seconds: "a duration such as `50ms`, `5s` or `7d`",
        ByteSize: "a size such as `512KiB` or `16MiB`",
    }[info.cls]


def _expected_section(info: inspect.StructType) -> str:
    keys = [field.encode_name for field in info.fields if field.required]
    keys = keys or [field.encode_name for field in info.fields]
    return "a mapping with " + ", ".join(f"`{key}`" for key in keys)


def _expected_list(info: inspect.ListType) -> str:
    match info.item_type:
        case inspect.StructType():
            items = "mappings"
        case inspect.LiteralType(values=values):
            items = ", ".join(f"`{value}`" for value in values)
        case _:
            items = "texts"
    return f"a list of {items}" + (", at least one" if info.min_length else "")


def _expected_member(info: inspect.UnionType) -> str:
    return " or ".join(expected(kind) for kind in info.types if kind != inspect.NoneType())


_EXPECTED: Final[dict[type, Callable[[Any], str]]] = {
    inspect.StrType: _expected_text,
    inspect.IntType: _expected_number,
    inspect.FloatType: _expected_number,
    inspect.BoolType: lambda _: "true or false",
    inspect.NoneType: lambda _: "nothing",
    inspect.LiteralType: lambda info: "one of " + ", ".join(f"`{one}`" for one in info.values),
    inspect.CustomType: _expected_quantity,
    inspect.StructType: _expected_section,
    inspect.DictType: lambda info: "a mapping" + " with an entry" * bool(info.min_length),
    inspect.ListType: _expected_list,
    inspect.UnionType: _expected_member,
}

# --- values that are not: a suggestion (perhaps empty), or None for a good value ------------


def _suggest_text(node: Scalar, info: inspect.StrType) -> str | None:
    raw = node.raw
    # Digits are text where text is expected; `true` and nothing at all are slips.
    if node.value is None or isinstance(node.value, bool):
        return "put it in quotes" if raw else ""
    if _CONTROL.search(raw):  # `$` in a pattern lets a line end pass
        return "leave out control characters"
    if len(raw) < (info.min_length or 0) or len(raw) > (info.max_length or len(raw)):
        return ""
    if info.pattern is None or re.search(info.pattern, raw):
        return None
    if info.pattern == _SHA256:
        return "`sha256sum FILE` prints it"
    lower = raw.lower()
    usable = info.pattern not in _SECRET and re.search(info.pattern, lower)
    return f"use `{lower}`" if usable else ""


def _suggest_number(node: Scalar, info: inspect.IntType | inspect.FloatType) -> str | None:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "leave out the quotes" if _NUMERAL.match(node.raw) else ""
    inside = (
        (info.ge is None or value >= info.ge)
        and (info.gt is None or value > info.gt)
        and (info.le is None or value <= info.le)
        and (info.lt is None or value < info.lt)
        and (isinstance(value, float) or abs(value) < 2**63)  # no snapshot could carry more
    )
    whole = isinstance(value, int) or isinstance(info, inspect.FloatType)
    return None if inside and whole else ""


def _suggest_quantity(node: Scalar, info: inspect.CustomType) -> str | None:
    kind: Any = info.cls
    try:
        return None if math.isfinite(kind.parse(node.value)) else ""
    except (ValueError, OverflowError):
        bare = isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
        unit = "s" if kind is Seconds else "MiB"
        return f"say the unit, such as `{node.raw[:20]}{unit}`" if bare else ""


def _suggest_boolean(node: Scalar, info: inspect.BoolType) -> str | None:
    del info
    if isinstance(node.value, bool):
        return None
    meant = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}
    word = meant.get(node.raw.lower())
    return f"use `{word}`" if word else ""


def _suggest_choice(node: Scalar, info: inspect.LiteralType) -> str | None:
    known = [str(value) for value in info.values]
    if node.value in info.values:
        return None
    near = nearest(node.raw.lower(), known)
    return f"did you mean `{near}`?" if near else ""


def _suggest_member(node: Scalar, info: inspect.UnionType) -> str | None:
    suggestions = [
        _SUGGEST[type(kind)](node, kind) for kind in info.types if type(kind) in _SUGGEST
    ]
    return None if None in suggestions else ""


_SUGGEST: Final[dict[type, Callable[[Scalar, Any], str | None]]] = {
    inspect.StrType: _suggest_text,
    inspect.IntType: _suggest_number,
    inspect.FloatType: _suggest_number,
    inspect.BoolType: _suggest_boolean,
    inspect.NoneType: lambda node, _: None if node.value is None else "",
    inspect.LiteralType: _suggest_choice,
    inspect.CustomType: _suggest_quantity,
    inspect.UnionType: _suggest_member,
}
