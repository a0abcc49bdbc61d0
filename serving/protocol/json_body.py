"""JSON text to Python values, with the checks orjson leaves out.

orjson refuses NaN, Infinity, bad UTF-8 and nesting beyond 1,024 levels by itself, and never
recurses in Python. What it accepts silently are duplicate keys (the last one wins).
"""

import orjson

from serving.errors import InvalidRequest

__all__ = ["parse"]


def parse(text: bytes | memoryview) -> dict[str, object]:
    """Parse a request's JSON object. Raises InvalidRequest."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    if type(document) is not dict:
        raise InvalidRequest("the body must be a JSON object")
    return document
