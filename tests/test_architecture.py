import importlib
import pkgutil
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


def test_every_test_module_has_a_name_of_its_own() -> None:
    """Python knows a module by its name alone: two of one name cannot be run together."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]

    assert sorted(name for name in set(names) if names.count(name) > 1) == []
