from typing import Any

import msgspec
import pytest

from serving.config.schema import ModelConfig
from serving.errors import ModelNotFound, PermissionDenied
from serving.traffic.rolled import rolled
from serving.traffic.table import ModelRoute
from serving.types import Principal

ANYBODY = Principal("anybody", frozenset({"infer"}))
OPERATOR = Principal("operator", frozenset({"infer", "operator"}))
ACME = Principal("shop", frozenset({"infer"}), "acme")


def route(*overrides: dict[str, Any], **traffic: Any) -> ModelRoute:
    """A plan with these overrides over v1 (production), v2 (canary, half) and v3 (shadow)."""
    versions = {name: {"path": name, "sha256": "0" * 64} for name in ("v1", "v2", "v3")}
    plan = {
        "production": "v1",
        "canary": {"version": "v2", "weight": 25},
        "shadow": [{"version": "v3"}],
        "assignment": {"key": "key"},
        "overrides": list(overrides),
        **traffic,
    }
    raw = {"model": "m", "versions": versions, "entity": {"key": "INT64"}, "traffic": plan}
    return ModelRoute(rolled(msgspec.convert(raw, ModelConfig), None))


def test_a_tenant_gets_production_and_no_copies() -> None:
    """Unless the override says otherwise; the decision says that nobody drew lots."""
    decision = route({"tenants": ["acme"]}).override({}, ACME, b"1")

    assert decision is not None
    assert (decision.version, decision.role, decision.reason) == ("v1", "pinned", "override")
    assert (decision.probability, decision.mirrors, decision.analysed) == (0.0, (), False)


def test_other_callers_are_drawn() -> None:
    """Other tenants, and callers of none."""
    plan = route({"tenants": ["acme"]})

    assert plan.override({}, Principal("x", frozenset(), "beta"), b"1") is None
    assert plan.override({}, ANYBODY, b"1") is None


@pytest.mark.parametrize("entity", [42, "42"])
def test_an_entity_is_compared_by_its_text(entity: int | str) -> None:
    """As keys are placed: an integer by its decimal text."""
    plan = route({"entities": [7, entity], "version": "v3"})

    found = plan.override({}, ANYBODY, b"42")

    assert found is not None
    assert found.version == "v3"
    assert plan.override({}, ANYBODY, b"43") is None
    assert plan.override({}, ANYBODY, None) is None


def test_texts_are_compared_as_utf_8() -> None:
    """What a client sends as bytes."""
    assert route({"entities": ["héllo"]}).override({}, ANYBODY, "héllo".encode()) is not None


def test_the_first_that_applies_wins() -> None:
    """In the order of the file, whatever their kinds."""
    entity = {"entities": [1], "version": "v2"}
    tenant = {"tenants": ["acme"], "version": "v3"}

    first = route(entity, tenant).override({}, ACME, b"1")
    other = route(tenant, entity).override({}, ACME, b"1")

    assert (first and first.version, other and other.version) == ("v2", "v3")


def test_a_header_needs_its_role() -> None:
    """Who has it gets the version that the header names; anybody else is refused."""
    plan = route({"header": "x-v", "roles": ["operator"]})

    found = plan.override({"x-v": "v3"}, OPERATOR, None)

    assert found is not None
    assert found.version == "v3"
    with pytest.raises(PermissionDenied, match="'x-v' needs one of the roles operator"):
        plan.override({"x-v": "v3"}, ANYBODY, None)
    with pytest.raises(ModelNotFound, match="no version 'v9'"):
        plan.override({"x-v": "v9"}, OPERATOR, None)


def test_a_tenant_before_a_header_may_not_use_it_and_is_not_refused() -> None:
    """What wins before it makes the header mean nothing."""
    found = route({"tenants": ["acme"]}, {"header": "x-v"}).override({"x-v": "v2"}, ACME, None)

    assert found is not None
    assert found.version == "v1"


@pytest.mark.parametrize(
    ("version", "role", "probability"),
    [("v1", "production", 0.75), ("v2", "canary", 0.25), ("v3", "pinned", 0.0)],
)
def test_what_is_analysed_has_the_role_and_odds_of_a_draw(
    version: str, role: str, probability: float
) -> None:
    """Of a version that is drawn; another one's requests cannot be compared."""
    found = route({"entities": [1], "version": version, "analysed": True}).override(
        {}, ANYBODY, b"1"
    )

    assert found is not None
    assert (found.role, found.probability, found.reason) == (role, probability, "override")
    assert found.analysed == (role != "pinned")
    assert found.fallback is None


def test_they_apply_without_a_canary() -> None:
    """A tenant's version is a matter of the file, not of a rollout."""
    plan = route({"entities": [1], "version": "v2"}, canary=None, shadow=[])

    found = plan.override({}, ANYBODY, b"1")

    assert found is not None
    assert found.version == "v2"
