"""Which SQL is answered: one statement that only reads."""

import re
from typing import Final

import duckdb

from serving.errors import SluiceError

__all__ = ["QueryRefused", "the_query"]

_EXPLAIN: Final = re.compile(
    r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*EXPLAIN(?:\s+ANALYZE)?(?:\s*\([^)]*\))?\s",
    re.IGNORECASE | re.DOTALL,
)


class QueryRefused(SluiceError):
    """The SQL is not one that reads the log. The message says why."""


def the_query(sql: str) -> str:
    """Return the one statement of a text, or say why it is not answered.

    Raises:
        QueryRefused: there is none, more than one, one that does not only read, or nonsense.
    """
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryRefused(str(error)) from error
    if len(statements) != 1:
        raise QueryRefused(
            "there is no statement" if not statements else "one statement at a time, please"
        )
    [statement] = statements
    if statement.type == duckdb.StatementType.EXPLAIN:
        explained = _EXPLAIN.match(sql)
        if explained is not None:
            the_query(sql[explained.end() :])  # EXPLAIN ANALYZE does what it explains
            return sql
    if statement.type != duckdb.StatementType.SELECT:
        kind = statement.type.name.replace("_", " ")
        what = "a PIVOT without IN (…)" if kind == "MULTI" else kind
        raise QueryRefused(f"the log can only be read: SELECT, FROM, DESCRIBE, not {what}")
    return sql
