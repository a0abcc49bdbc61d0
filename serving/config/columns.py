"""From `view.*` and `view.field` to columns: names and types, in the order listed."""

from collections.abc import Mapping, Sequence

import msgspec

from feature_cache.views import FeatureView
from serving.config.problems import did_you_mean

__all__ = ["Column", "UnknownFeature", "columns_of", "view_of"]


class Column(msgspec.Struct, frozen=True):
    """One feature column. `type` is the field's own word (`float32`)."""

    view: str
    field: str
    type: str


class UnknownFeature(Exception):
    """A reference to a view or field that is not there; says which is near."""

    def __init__(self, message: str, suggestion: str) -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


def view_of(reference: str, views: Mapping[str, FeatureView]) -> tuple[str, str]:
    """Split `view.field`. Names of views and fields may hold dots; the longest view wins.

    Raises:
        UnknownFeature: no view of the configuration begins this reference.
    """
    cut = reference.rfind(".")
    while cut > 0:
        if reference[:cut] in views:
            return reference[:cut], reference[cut + 1 :]
        cut = reference.rfind(".", 0, cut)
    view, dot, _ = reference.partition(".")
    if not dot:
        raise UnknownFeature(f"`{reference}` is no feature", "write `view.field` or `view.*`")
    raise UnknownFeature(f"there is no view `{view}`", did_you_mean(view, views))


def columns_of(references: Sequence[str], views: Mapping[str, FeatureView]) -> list[Column]:
    """Resolve references to columns, in order, repeated ones included.

    Raises:
        UnknownFeature: the first reference to a view or field that is not there.
    """
    columns: list[Column] = []
    for reference in references:
        view, name = view_of(reference, views)
        fields = views[view].fields
        if name != "*" and name not in fields:
            raise UnknownFeature(
                f"the view `{view}` has no field `{name}`", did_you_mean(name, fields)
            )
        chosen = fields if name == "*" else (name,)
        columns += [Column(view, field, fields[field].type) for field in chosen]
    return columns
