from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.schema import ModelConfig
from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.traffic.detour import around
from serving.traffic.rolled import effective, rolled
from serving.traffic.split import LINE, Splitter
from serving.traffic.table import ModelRoute

KEYS = [b"%d" % number for number in range(2000)]


def config(**traffic: Any) -> ModelConfig:
    """A model of three versions under the plan of its file."""
    versions = {name: {"path": name, "sha256": name[1] * 64} for name in ("v1", "v2", "v3")}
    plan = {"production": "v1", "assignment": {"key": "key"}, **traffic}
    raw = {"model": "m", "versions": versions, "entity": {"key": "INT64"}, "traffic": plan}
    return msgspec.convert(raw, ModelConfig)


def rollout(**fields: Any) -> RolloutTraffic:
    """What a rollout of v2 makes of it."""
    given_: dict[str, Any] = {"canary": "v2", "production": "v1", "salt": "m-r1", **fields}
    return RolloutTraffic(id="m-r1", revision=1, **given_)


def served(one: RolloutTraffic, **traffic: Any) -> ModelRoute:
    """The route that workers compile."""
    return ModelRoute(rolled(config(**traffic), one))


def test_without_a_rollout_the_file_counts() -> None:
    """Nothing is copied or changed."""
    plan = config()

    assert rolled(plan, None) is plan


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=8).map(sorted),
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=50),
    st.text(max_size=20),
)
def test_no_key_goes_back_while_the_weight_rises(
    weights: list[float], keys: list[bytes], salt: str
) -> None:
    """Whoever had the new version has it under every higher weight, and when it is done."""
    routes = [served(rollout(weight=weight, salt=salt)) for weight in weights]
    routes += [served(rollout(weight=100, salt=salt)), served(rollout(production="v2", salt=salt))]

    for before, after in pairwise(routes):
        for key in keys:
            if before.assign(key).version == "v2":
                assert after.assign(key).version == "v2"


def test_each_step_takes_its_share_of_many_keys() -> None:
    """The canary's share is within five standard deviations of what the step says."""
    for weight in (1, 5, 25, 50):
        taken = sum(served(rollout(weight=weight)).assign(key).role == "canary" for key in KEYS)

        share = weight / 100
        assert abs(taken - 2000 * share) < 5 * (2000 * share * (1 - share)) ** 0.5


def test_at_the_last_step_nobody_is_left() -> None:
    """At 100 percent the canary has every key, the last place on the line too."""
    route = served(rollout(weight=100))

    assert {route.assign(key).version for key in KEYS} == {"v2"}
    assert route.pick(LINE - 1, 0).version == "v2"


def test_each_rollout_draws_a_cohort_of_its_own() -> None:
    """Who met the first rollout's canary meets the second's by chance only."""
    first, second = (served(rollout(weight=20, salt=salt)) for salt in ("m-r1", "m-r2"))
    both = sum(first.assign(k).role == second.assign(k).role == "canary" for k in KEYS)

    assert abs(both - 2000 * 0.04) < 5 * (2000 * 0.04 * 0.96) ** 0.5


def test_a_fixed_salt_keeps_its_cohort() -> None:
    """The file's salt beats the rollout's, so that two rollouts meet the same keys."""
    assignment = {"key": "key", "salt": "fixed"}
    first, second = (
        served(rollout(weight=20, salt=salt), assignment=assignment) for salt in ("m-r1", "m-r2")
    )

    assert [first.assign(k).version for k in KEYS] == [second.assign(k).version for k in KEYS]
    assert first.place_of(b"42") == Splitter("fixed").place(b"42")


def test_copies_are_drawn_apart_from_the_canary() -> None:
    """Of the canary's keys no more are copied than of the others."""
    route = served(rollout(weight=20), shadow=[{"version": "v3", "percent": 30}])
    decided = [route.assign(key) for key in KEYS]
    canary = [one for one in decided if one.role == "canary"]
    copied = sum(one.mirrors == ("v3",) for one in canary)

    assert abs(copied - 0.3 * len(canary)) < 5 * (len(canary) * 0.3 * 0.7) ** 0.5


def test_a_shadow_step_copies_and_answers_nobody() -> None:
    """Production answers everybody; the new version gets its percent of copies."""
    route = served(rollout(shadow=100))

    assert {(d.version, d.mirrors) for d in map(route.assign, KEYS)} == {("v1", ("v2",))}


def test_an_aborted_rollout_gives_the_files_production_and_nothing_else() -> None:
    """Nobody meets the version that was stopped, not as a shadow of the file either."""
    plan = rolled(config(shadow=[{"version": "v2"}], canary={"version": "v2", "weight": 50}),
                  rollout())  # fmt: skip
    route = ModelRoute(plan)

    assert {(d.version, d.role, d.mirrors) for d in map(route.assign, KEYS)} == {
        ("v1", "production", ())
    }


def test_a_rollout_that_is_done_gives_the_new_version_to_all() -> None:
    """Whatever the file still calls production."""
    route = served(rollout(production="v2"), shadow=[{"version": "v2"}, {"version": "v3"}])

    assert {(d.version, d.role, d.mirrors) for d in map(route.assign, KEYS)} == {
        ("v2", "production", ("v3",))
    }


def test_a_quarantined_canary_is_left_out_of_its_rollout() -> None:
    """`around` on top of it: production answers the canary's keys."""
    plan = around(rolled(config(), rollout(weight=50, shadow=10)), {"v2"})

    assert {ModelRoute(plan).assign(key).version for key in KEYS} == {"v1"}


@pytest.mark.parametrize("names", [{"canary": "v9"}, {"production": "v9"}])
def test_a_version_that_the_file_no_longer_has_gets_nothing(names: dict[str, str]) -> None:
    """The plan stays one that can be served."""
    versions = {served(rollout(weight=50, **names)).assign(key).version for key in KEYS}

    assert versions <= {"v1", "v2"}


def test_what_a_snapshot_serves_is_its_files_under_their_rollouts() -> None:
    """Models without a rollout are as they were."""
    plan = config()
    other = msgspec.structs.replace(plan, model="n")
    snapshot = Snapshot(
        revision=1,
        published_at=0.0,
        author="test",
        models={"m": plan, "n": other},
        views={},
        staged={},
        rollouts={"m": rollout(weight=5)},
    )

    found = effective(snapshot)

    assert found["m"].traffic.canary is not None
    assert found["n"] is other
