import importlib
import pkgutil
import re
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

import feature_cache
import serving
from serving import errors
from serving.metric_families import FAMILIES
from serving.protocol.status import STATUS


def modules() -> list[ModuleType]:
    """Import every module of both packages, generated code aside."""
    return [
        importlib.import_module(found.name)
        for package in (serving, feature_cache)
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if "_generated" not in found.name
        and not found.name.endswith("__main__")
        # What runs inside Ray imports it, and Ray is an extra.
        and found.name != "serving.engine.ray_serve.deployments"
    ]


def modules_of(package: ModuleType) -> list[str]:
    """Names of the modules and packages right below a package."""
    return [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", []))]


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_exports_exist_and_are_sorted(module: ModuleType) -> None:
    """`__all__` is complete enough to import and in order."""
    exported = getattr(module, "__all__", None)
    if exported is None:
        assert module.__name__.count(".") <= 1 or module.__doc__, "a module says what it is"
        return

    assert sorted(exported) == sorted(set(exported))
    assert all(hasattr(module, name) for name in exported)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ServingError)
    ],
)
def test_every_error_has_a_status(kind: type[errors.ServingError]) -> None:
    """The one table says what each error costs on the wire, directly or by its parent."""
    assert any(ancestor in STATUS for ancestor in kind.__mro__)
    if kind is not errors.ServingError:
        nearest = next(ancestor for ancestor in kind.__mro__ if ancestor in STATUS)
        assert nearest is not errors.ServingError, "500 by accident is no decision"


def test_forbidden_words_stay_out_of_names() -> None:
    """Names say what a thing is; these say nothing."""
    banned = {
        "manager",
        "handler",
        "processor",
        "helper",
        "utils",
        "common",
        "base",
        "core",
        "misc",
    }
    names = {
        word
        for module in modules()
        for name in (
            module.__name__.rsplit(".", 1)[-1],
            *(
                name
                for name, value in vars(module).items()
                if isinstance(value, type) and value.__module__ == module.__name__
            ),
        )
        for word in "".join(f" {c}" if c.isupper() else c for c in name.replace("_", " "))
        .lower()
        .split()
    }

    assert names.isdisjoint(banned)


def test_every_metric_is_named_in_prometheus_fashion() -> None:
    """Counters end in `_total`, times in `_seconds`, sizes in `_bytes`."""
    for name, family in FAMILIES.items():
        assert name.startswith("sluice_")
        assert name.endswith("_total") == (family.kind == "counter")
        if "duration" in name or "seconds" in name or "lag" in name:
            assert "_seconds" in name


LARGE = 28
"""Modules from which on nobody finds their way in a package by its file names alone."""

PACKAGES = [one for one in modules() if modules_of(one)]


def mapped(package: ModuleType) -> list[str]:
    """Names of modules and packages in a package's docstring, perhaps with `*`."""
    return re.findall(r"(?<![\w.`/])([\w*]+)(?:\.py|/)(?=\s)", package.__doc__ or "")


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_map_of_a_package_names_only_what_is_there(package: ModuleType) -> None:
    """What a docstring says of modules is looked for by newcomers."""
    there = modules_of(package)

    assert [name for name in mapped(package) if not any(fnmatch(one, name) for one in there)] == []


@pytest.mark.parametrize(
    "package",
    # In `cli` a module is called like its command.
    [one for one in PACKAGES if len(modules_of(one)) >= LARGE and one.__name__ != "serving.cli"],
    ids=lambda package: package.__name__,
)
def test_a_large_package_has_a_map(package: ModuleType) -> None:
    """Its docstring has a place for every module."""
    names = mapped(package)

    assert [one for one in modules_of(package) if not any(fnmatch(one, n) for n in names)] == []


def test_every_test_module_has_a_name_of_its_own() -> None:
    """Python knows a module by its name alone: two of one name cannot be run together."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]

    assert sorted(name for name in set(names) if names.count(name) > 1) == []
