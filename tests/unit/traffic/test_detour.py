from typing import Any

import msgspec

from serving.config.schema import ModelConfig
from serving.config.snapshot_codec import dec_hook
from serving.traffic.detour import around
from serving.traffic.table import ModelRoute


def config(**traffic: Any) -> ModelConfig:
    """A model of three versions under a plan."""
    versions = {name: {"path": name, "sha256": name[1] * 64} for name in ("v1", "v2", "v3")}
    plan = {"production": "v1", **traffic}
    raw = {"model": "m", "versions": versions, "entity": {"key": "INT64"}, "traffic": plan}
    return msgspec.convert(raw, ModelConfig, dec_hook=dec_hook)


def test_production_answers_the_canarys_keys_and_gets_no_others() -> None:
    """Whoever had production has it still; on the way back everybody has what they had."""
    plan = config(canary={"version": "v2", "weight": 30}, assignment={"key": "key"})
    before, meanwhile = ModelRoute(plan), ModelRoute(around(plan, {"v2"}))
    keys = [b"%d" % number for number in range(1000)]

    assert {before.assign(key, 0).version for key in keys} == {"v1", "v2"}
    decided = {meanwhile.assign(key, 0) for key in keys}
    assert {(one.version, one.role, one.probability) for one in decided} == {
        ("v1", "production", 1.0)
    }


def test_a_shadow_gets_no_copies_and_its_neighbour_keeps_its_own() -> None:
    """Only the version that is out loses its part."""
    plan = config(shadow=[{"version": "v2", "percent": 100}, {"version": "v3", "percent": 100}])

    assert ModelRoute(around(plan, {"v2"})).assign(b"1", 0).mirrors == ("v3",)


def test_production_has_nobody_to_stand_in_for_it() -> None:
    """Its requests go where they went, and are refused there."""
    plan = config(canary={"version": "v2", "weight": 30}, assignment={"key": "key"})

    assert around(plan, {"v1"}) is plan
    assert around(plan, ()) is plan


def test_a_version_that_is_out_can_still_be_named() -> None:
    """So that the caller is told why, and not that it does not exist."""
    plan = config(canary={"version": "v2", "weight": 30})

    assert ModelRoute(around(plan, {"v2"})).pin("v2", "version").version == "v2"
