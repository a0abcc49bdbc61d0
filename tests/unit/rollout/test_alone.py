"""Whether the new version fails alone."""

import pytest

from serving.rollout.alone import fails_alone


@pytest.mark.parametrize(("rho", "failed"), [(0.01, 4), (0.05, 5), (0.25, 9), (0.5, 17)])
def test_so_many_failures_and_none_of_production_are_its_own(rho: float, failed: int) -> None:
    """The docstring's figures; one fewer is not enough."""
    assert fails_alone(failed, 0, rho)
    assert not fails_alone(failed - 1, 0, rho)


def test_failures_as_they_are_drawn_are_everybodys() -> None:
    """A twentieth of them is the canary's."""
    assert not fails_alone(500, 9500, 0.05)


def test_without_a_production_nothing_is_asked() -> None:
    """It has all the traffic."""
    assert fails_alone(1, 0, 1.0)
