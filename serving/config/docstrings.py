"""The text under a field, which Python itself does not keep."""

import ast
import functools
import importlib
import inspect
import itertools

__all__ = ["field_docs"]


def field_docs(cls: type) -> dict[str, str]:
    """Each field's text in a struct's source, white space made plain.

    Raises:
        LookupError: a field has no text; an option without words is not an option.
    """
    documented = _documented(cls.__module__).get(cls.__name__, {})
    missing = [name for name in getattr(cls, "__struct_fields__", ()) if name not in documented]
    if missing:
        raise LookupError(f"{cls.__name__} has undocumented options: {', '.join(missing)}")
    return documented


@functools.cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {
        node.name: dict(_pairs(node.body)) for node in tree.body if isinstance(node, ast.ClassDef)
    }


def _pairs(body: list[ast.stmt]) -> list[tuple[str, str]]:
    """Each annotated name that a bare text follows directly."""
    pairs = []
    for field, text in itertools.pairwise(body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as words)),
            ):
                pairs.append((name, " ".join(words.split())))
    return pairs
