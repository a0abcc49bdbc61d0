"""The long run is asked for by its mark alone: `make soak`, or `-m soak`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LOADTESTS = Path(__file__).parents[2] / "loadtests"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long run out unless the expression of `-m` names it."""
    if "soak" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def loadtests_on_path() -> Iterator[None]:
    """The scripts find each other as they do when they are run."""
    sys.path.insert(0, str(LOADTESTS))
    yield
    sys.path.remove(str(LOADTESTS))
