from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.schema import ModelConfig
from serving.errors import InvalidRequest, ModelNotFound
from serving.traffic.split import LINE, threshold
from serving.traffic.table import ModelRoute, RouteTable

DIGEST = "0" * 64


def route(**traffic: Any) -> ModelRoute:
    """Compile a plan over the versions v1 (production), v2 and v3."""
    versions = {name: {"path": f"{name}.onnx", "sha256": DIGEST} for name in ("v1", "v2", "v3")}
    return ModelRoute(
        msgspec.convert(
            {"model": "m", "versions": versions, "traffic": {"production": "v1", **traffic}},
            ModelConfig,
        )
    )


def test_without_a_plan_everybody_gets_production() -> None:
    """One version, no draw, probability one."""
    decision = route().assign(b"42", 0)

    assert (decision.version, decision.role, decision.probability) == ("v1", "production", 1.0)
    assert decision.reason == "only"


def test_a_key_sticks_to_its_version() -> None:
    """The draw plays no part where there is a key."""
    plan = route(canary={"version": "v2", "weight": 50})

    assert {plan.assign(b"42", draw).version for draw in (0, LINE // 2, LINE - 1)} == {
        plan.assign(b"42", 1).version
    }


def test_a_canary_gets_its_share_of_keys() -> None:
    """At 10 percent, 20,000 keys fall within five standard deviations of 2,000."""
    plan = route(canary={"version": "v2", "weight": 10})

    taken = sum(plan.assign(str(n).encode(), 0).role == "canary" for n in range(20_000))

    assert abs(taken - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5


@given(st.integers(0, LINE - 1))
def test_a_missing_key_is_drawn_at_the_same_odds(draw: int) -> None:
    """Random assignment compares the draw with the very same threshold."""
    plan = route(canary={"version": "v2", "weight": 25})

    decision = plan.assign(None, draw)

    assert (decision.role == "canary") == (draw < threshold(25))
    assert decision.reason == "random"


@pytest.mark.parametrize(("canary", "probability"), [(True, 0.25), (False, 0.75)])
def test_the_assignment_probability_is_told(canary: bool, probability: float) -> None:
    """Analysis needs the odds each request was assigned with."""
    plan = route(canary={"version": "v2", "weight": 25})

    assert plan.assign(None, 0 if canary else LINE - 1).probability == pytest.approx(probability)


def test_a_missing_key_can_mean_production() -> None:
    """`on_missing_key: production` never sends a keyless request to the canary."""
    plan = route(
        canary={"version": "v2", "weight": 100}, assignment={"on_missing_key": "production"}
    )

    assert (plan.assign(None, 0).version, plan.assign(None, 0).reason) == ("v1", "missing_key")


def test_a_missing_key_can_be_refused_by_name() -> None:
    """`on_missing_key: reject` names the key that is missing."""
    plan = route(
        canary={"version": "v2", "weight": 5},
        assignment={"key": "person_id", "on_missing_key": "reject"},
    )

    with pytest.raises(InvalidRequest, match="'person_id'"):
        plan.assign(None, 0)


def test_shadows_get_their_share_independent_of_the_canary() -> None:
    """Copies are sampled by another salt: as many among canary keys as among the others."""
    plan = route(canary={"version": "v2", "weight": 50}, shadow=[{"version": "v3", "percent": 50}])
    counts = {(role, mirrored): 0 for role in ("canary", "production") for mirrored in (0, 1)}

    for number in range(8000):
        decision = plan.assign(str(number).encode(), 0)
        counts[decision.role, len(decision.mirrors)] += 1

    assert all(abs(count - 2000) < 5 * (8000 * 0.25 * 0.75) ** 0.5 for count in counts.values())


def test_a_version_never_shadows_itself() -> None:
    """A canary that is also a shadow gets no copy of what it answered."""
    plan = route(canary={"version": "v2", "weight": 100}, shadow=[{"version": "v2"}])

    assert plan.assign(b"1", 0).mirrors == ()


def test_a_pinned_version_is_outside_the_lottery() -> None:
    """Probability 0.0 marks what analysis must leave out."""
    decision = route().pin("v3", "override")

    assert (decision.version, decision.role, decision.probability) == ("v3", "pinned", 0.0)


def test_an_unknown_version_is_named() -> None:
    """The message starts with the words Triton's clients match."""
    with pytest.raises(ModelNotFound, match=r"^Request for unknown model: 'm' has no version 'v9'"):
        route().pin("v9", "version")


def test_an_unknown_model_is_named() -> None:
    """So does the table's."""
    with pytest.raises(ModelNotFound, match=r"^Request for unknown model: 'x' is not found"):
        RouteTable.compile({}, revision=1).model("x")
