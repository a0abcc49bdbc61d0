"""Rules for `features/*.yaml`."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

from feature_cache.feast import collisions
from feature_cache.views import FeatureView, Field
from serving.config.facts import Facts
from serving.config.load import Loaded
from serving.config.problems import Path, Problem
from serving.config.units import Seconds

__all__ = ["check_views"]

_BITS: Final = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def check_views(loaded: Loaded, facts: Facts) -> list[Problem]:
    """Judge every view by itself, the files they name, and what no two of them may share."""
    return [
        *(
            problem
            for name in loaded.configuration.views
            for problem in _view(loaded, name, facts.seeds.get(name, ""))
        ),
        *_streams(loaded),
        *_twins(loaded),
    ]


def _twins(loaded: Loaded) -> Iterator[Problem]:
    features: dict[str, list[tuple[str, str]]] = {}
    files: dict[tuple[str, str], str] = {}
    for name, view in loaded.configuration.views.items():
        if view.source == "feast" and view.feast is not None:
            theirs = view.feast.feature_view or name
            features.setdefault(view.feast.project, []).extend(
                (theirs, field) for field in view.fields
            )
            files |= {(theirs, field): loaded.view_files[name] for field in view.fields}
    for listed in features.values():
        for (first_view, first), second in collisions(listed):
            message = f"Feast keeps it under the same name as `{first}` of `{first_view}`"
            hint = "one overwrites the other there; rename it in Feast"
            yield loaded.sources.problem(files[second], ("fields", second[1]), message, hint)


def _streams(loaded: Loaded) -> Iterator[Problem]:
    readers: dict[str, str] = {}
    for name, view in loaded.configuration.views.items():
        if view.stream is not None and (first := readers.setdefault(view.stream, name)) != name:
            message = f"`{view.stream}` is also the stream of `{first}`"
            hint = "an entry is a row of one view"
            yield loaded.sources.problem(loaded.view_files[name], ("stream",), message, hint)


def _view(loaded: Loaded, name: str, seed_refusal: str) -> Iterator[Problem]:
    view, file = loaded.configuration.views[name], loaded.view_files[name]
    sources = loaded.sources
    stem = PurePath(file).stem
    if stem != name:
        message, hint = f"the file is called `{stem}.yaml`", f"rename it to `{name}.yaml`"
        yield sources.problem(file, ("view",), message, hint, "warning")
    if not view.entity:
        message, hint = "a view is looked up by a key", "such as `entity: {person_id: int64}`"
        yield sources.problem(file, ("entity",), message, hint)
    for key in sorted(view.entity.keys() & view.fields.keys()):
        message = f"`{key}` is also a key of this view"
        yield sources.problem(file, ("fields", key), message, "rename one of them")
    if not view.fields:
        yield sources.problem(file, ("fields",), "a view needs a field")
    if seed_refusal:
        yield sources.problem(
            file, ("seed",), seed_refusal, "the path starts at this file's folder"
        )
    for path, message, hint in (*_ages(view), *_defaults(view), *_source(view)):
        yield sources.problem(file, path, message, hint)
    if view.feast is not None and view.source != "feast":
        message = "means nothing without `source: feast`"
        yield sources.problem(file, ("feast",), message, "add it, or leave this out", "warning")


def _ages(view: FeatureView) -> Iterator[tuple[Path, str, str]]:
    ages: dict[str, Seconds] = {}
    for option in ("fresh_for", "keep_for"):
        try:
            ages[option] = Seconds.parse(getattr(view, option))
        except ValueError as error:
            yield (option,), str(error), ""
    if len(ages) == 2 and ages["keep_for"] < ages["fresh_for"]:
        message = f"shorter than fresh_for, {view.fresh_for}: values would vanish while fresh"
        yield ("keep_for",), message, ""


def _source(view: FeatureView) -> Iterator[tuple[Path, str, str]]:
    if view.source == "feast" and view.feast is None:
        hint = "such as `feast: {project: my_project}`"
        yield ("source",), "Feast's project is not said", hint
    if view.source == "feast":
        for option in ("seed", "stream"):
            if getattr(view, option) is not None:
                message = "Feast writes this view; it is only read here"
                yield (option,), message, "leave it out"


def _defaults(view: FeatureView) -> Iterator[tuple[Path, str, str]]:
    needed = [option for option in ("on_missing", "on_stale") if getattr(view, option) == "default"]
    for name, field in view.fields.items():
        if field.default is None and needed:
            message = f"`{needed[0]}: default` needs a default here"
            yield ("fields", name), message, f"such as `{{type: {field.type}, default: 0}}`"
        elif field.default is not None and not _fits(field):
            message = f"`{field.default}` is no {field.type}"
            yield ("fields", name, "default"), message, ""
        if field.type not in ("float32", "float64") and view.on_missing == "nan":
            message = f"`on_missing: nan` needs a float; {field.type} has no NaN"
            yield ("fields", name, "type"), message, "use float32, or another on_missing"


def _fits(field: Field) -> bool:
    value = field.default
    if field.type == "string":
        return isinstance(value, str)
    if field.type == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if field.type in _BITS:
        limit = 2 ** (_BITS[field.type] - 1)
        return isinstance(value, int) and -limit <= value < limit
    # The largest float32; a larger default would become infinite.
    return field.type == "float64" or abs(value) <= 3.4028235e38
