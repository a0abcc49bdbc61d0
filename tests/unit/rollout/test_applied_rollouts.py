from typing import Any

import msgspec
import pytest

from serving.config.schema import ModelConfig
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.config.snapshot_codec import dec_hook
from serving.rollout.applied import (
    beginning,
    carried,
    number_of,
    placed,
    standing_production,
    superseded,
)
from serving.rollout.state import RolloutState
from serving.types import Signature

ROLLOUT = {"canary": "v2", "steps": [{"weight": 5}, {"weight": 100}]}
SIGNATURE = Signature(inputs=[], outputs=[], batchable=True)


def model(production: str = "v1", rollout: Any = ROLLOUT) -> ModelConfig:
    """A model of three versions, read as from YAML."""
    body = {
        "model": "demo",
        "versions": {v: {"path": f"{v}.onnx", "sha256": v[1] * 64} for v in ("v1", "v2", "v3")},
        "traffic": {"production": production},
        "rollout": rollout,
    }
    return msgspec.convert(body, ModelConfig, dec_hook=dec_hook)


def staged(**digests: str) -> dict[str, StagedVersion]:
    """Their files; `v2="9"` gives one other bytes."""
    found = {"v1": "1", "v2": "2", "v3": "3", **digests}
    return {
        version: StagedVersion(path=f"/data/{version}", sha256=digit * 64, signature=SIGNATURE)
        for version, digit in found.items()
    }


def past(
    phase: Any, number: int = 1, canary: str = "v2", production: str = "v1", **more: Any
) -> RolloutState:
    """A rollout of some time ago, ended at 1,000 if it has."""
    ended = 1_000.0 if phase in ("aborted", "done") else None
    state = RolloutState(
        id=f"demo-r{number}", model="demo", phase=phase, revision=9, canary=canary,
        production=production, canary_sha256=canary[1] * 64, production_sha256=production[1] * 64,
        file_production="v1", ended_at=ended, weight=5.0, salt=f"demo/r{number}", reason="errors",
    )  # fmt: skip
    return msgspec.structs.replace(state, **more)


def begins(config: ModelConfig, *before: RolloutState, now: float = 10_000.0, **more: Any) -> str:
    """What begins: `canary over production`, or why nothing does; empty if nothing is asked."""
    found = beginning(config, staged(), before, now, number=7, **more)
    if found is None:
        return ""
    return found.refused or f"{found.arms.canary} over {found.arms.production}"


# --- beginning ------------------------------------------------------------------------------


def test_a_file_with_a_rollout_begins_it() -> None:
    """The first time, with a salt of its own."""
    found = beginning(model(), staged(), [], 0.0, number=1)

    assert found is not None
    assert (found.arms.canary, found.arms.production, found.arms.salt) == ("v2", "v1", "demo/r1")
    assert found.arms.canary_sha256 == "2" * 64
    assert found.arms.steps == ["weight 5 %", "weight 100 %"]


@pytest.mark.parametrize(
    ("config", "before"),
    [
        (model(rollout=None), []),
        (model(production="v2"), []),
        (model(), [past("progressing")]),
        (model(), [past("paused")]),
        (model(), [past("done")]),
    ],
    ids=["no section", "is production", "live", "paused", "done"],
)
def test_nothing_begins_twice_or_unasked(config: ModelConfig, before: list[RolloutState]) -> None:
    """One per model, and none for what is production already."""
    assert begins(config, *before) == ""


def test_a_stopped_file_is_blocked_also_under_another_rollout_in_between() -> None:
    """The same bytes come again only when a person says so."""
    stopped = past("aborted")

    assert "was stopped in demo-r1 (errors)" in begins(model(), stopped)
    assert "was stopped in demo-r1" in begins(model(), stopped, past("aborted", 2, canary="v3"))
    assert begins(model(), stopped, retried=True) == "v2 over v1"


def test_a_block_can_be_switched_off_and_leaves_the_cooldown() -> None:
    """`block_same_digest: false` waits for `cooldown`, then begins by itself."""
    after_abort = {"block_same_digest": False, "cooldown": "1h"}
    config = model(rollout={**ROLLOUT, "after_abort": after_abort})

    assert "`cooldown` is over in 1m" in begins(config, past("aborted"), now=1_000 + 3_540)
    assert begins(config, past("aborted"), now=1_000 + 3_600) == "v2 over v1"


def test_another_file_waits_for_the_cooldown_only() -> None:
    """v3 was not stopped; its model was."""
    config = model(rollout={**ROLLOUT, "canary": "v3"})

    assert "cooldown" in begins(config, past("aborted"), now=1_500)
    assert begins(config, past("aborted"), now=5_000) == "v3 over v1"


def test_what_the_file_superseded_blocks_nothing() -> None:
    """Nobody found anything wrong with it."""
    assert begins(model(), past("aborted", superseded=True), now=1_001) == "v2 over v1"


def test_the_next_rollout_compares_with_what_the_last_made_production() -> None:
    """v2 is production since it was done, whatever the file still says."""
    config = model(rollout={**ROLLOUT, "canary": "v3"})

    assert begins(config, past("done")) == "v3 over v2"
    assert standing_production(config, past("done")) == "v2"
    stopped = past("aborted", 2, canary="v3", production="v2")
    assert standing_production(config, stopped) == "v2"


# --- superseded -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "reason", "file"),
    [
        (None, "not configured", True),
        (model(rollout=None), "no `rollout`", True),
        (model(production="v2"), "names v2 as production", True),
        (model(production="v3"), "is v3 now", True),
        (model(rollout={**ROLLOUT, "canary": "v3"}), "wants v3", False),
    ],
)
def test_a_file_that_says_something_else_ends_a_live_rollout(
    config: ModelConfig | None, reason: str, *, file: bool
) -> None:
    """And says whether its own plan counts again."""
    found = superseded(config, staged(), past("progressing"))

    assert found is not None
    assert reason in found.reason
    assert found.file is file


def test_other_bytes_under_a_live_rollout_end_it() -> None:
    """What was counted was about another file."""
    for changed in (staged(v2="9"), staged(v1="9")):
        found = superseded(model(), changed, past("progressing"))
        assert found is not None
        assert "another file" in found.reason


def test_a_done_rollout_stays_until_the_file_says_something_else() -> None:
    """Another canary, or new bytes of the old production, are no reason to go back."""
    done = past("done")

    assert superseded(model(), staged(), done) is None
    assert superseded(model(), staged(v1="9"), done) is None
    assert superseded(model(rollout={**ROLLOUT, "canary": "v3"}), staged(), done) is None
    assert superseded(model(production="v2"), staged(), done) is not None
    assert superseded(model(rollout=None), staged(), done) is not None
    assert superseded(model(production="v2"), staged(), past("done", superseded=True)) is None


def test_a_stopped_rollout_cannot_be_superseded() -> None:
    """It is over."""
    assert superseded(model(rollout=None), staged(), past("aborted")) is None


# --- what is put in place -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "weight", "counting"),
    [
        ("pending", 0.0, False), ("progressing", 5.0, True), ("paused", 5.0, True),
        ("awaiting_approval", 5.0, True), ("promoting", 5.0, True), ("aborting", 0.0, False),
    ],
)  # fmt: skip
def test_a_live_rollout_puts_its_step_in_place(
    phase: Any, weight: float, *, counting: bool
) -> None:
    """Nothing before the first step, nothing once it is taken back, evidence in between."""
    put = placed(past(phase), model(), 0.0)

    assert put is not None
    assert (put.canary, put.production, put.weight) == ("v2", "v1", weight)
    assert (put.counting, put.salt) == (counting, "demo/r1")


def test_a_done_rollout_puts_the_new_version_in_production() -> None:
    """The file is not asked until it says something else."""
    put = placed(past("done"), model(), 1e9)

    assert put is not None
    assert (put.production, put.weight, put.counting) == ("v2", 0.0, False)
    assert placed(past("done", superseded=True, cause="file"), model(production="v2"), 1e9) is None


def test_a_stopped_version_is_named_until_keep_warm_is_over() -> None:
    """So that its processes stay, and it can be looked at by name."""
    config = model(rollout={**ROLLOUT, "after_abort": {"keep_warm": "30m"}})
    put = placed(past("aborted"), config, 1_000 + 1_799)

    assert put is not None
    assert (put.canary, put.production, put.weight) == ("v2", "v1", 0.0)
    assert placed(past("aborted"), config, 1_000 + 1_800) is None


def test_an_abort_does_not_undo_the_rollout_before() -> None:
    """r1 made v2 production over a file that says v1; r2 was stopped: v2 it stays."""
    stopped = past("aborted", 2, canary="v3", production="v2")
    put = placed(stopped, model(rollout={**ROLLOUT, "canary": "v3"}), 1e9)

    assert put is not None
    assert (put.canary, put.production) == ("v2", "v2")


# --- carried over by an apply ---------------------------------------------------------------


def published(put: RolloutTraffic, config: ModelConfig | None = None) -> Snapshot:
    """What is served when the next file comes."""
    return Snapshot(
        revision=3, published_at=0.0, author="ann", models={"demo": config or model()}, views={},
        staged={"demo": staged()}, rollouts={"demo": put},
    )  # fmt: skip


LIVE = RolloutTraffic(
    id="demo-r1", revision=4, canary="v2", production="v1", weight=5.0, counting=True
)


def test_an_apply_that_changes_nothing_carries_rollouts_over() -> None:
    """Live, and done."""
    done = RolloutTraffic(id="demo-r1", revision=9, canary="v2", production="v2")
    for put in (LIVE, done):
        assert carried(published(put), {"demo": model()}, {"demo": staged()}) == {"demo": put}


@pytest.mark.parametrize(
    ("models", "files"),
    [
        ({}, {}),
        ({"demo": model(rollout=None)}, {"demo": staged()}),
        ({"demo": model(production="v2")}, {"demo": staged()}),
        ({"demo": model()}, {"demo": staged(v2="9")}),
        ({"demo": model()}, {"demo": {"v1": staged()["v1"]}}),
    ],
    ids=["no model", "no section", "promoted", "other bytes", "version gone"],
)
def test_what_a_file_has_ended_ends_with_that_file(
    models: dict[str, ModelConfig], files: dict[str, dict[str, StagedVersion]]
) -> None:
    """In the same revision: nothing may name what is not there any more."""
    assert carried(published(LIVE), models, files) == {}


def test_an_unwanted_canary_gets_nothing_from_the_same_revision_on() -> None:
    """The file wants another one; production stays who it is."""
    config = model(rollout={**ROLLOUT, "canary": "v3"})
    [put] = carried(published(LIVE), {"demo": config}, {"demo": staged()}).values()

    assert (put.weight, put.shadow, put.counting, put.production) == (0.0, 0.0, False, "v1")


def test_a_number_is_read_from_the_end() -> None:
    """Models may be called like rollouts."""
    assert number_of("demo-r12") == 12
    assert number_of("a-r1-r3") == 3
    assert number_of("demo") == 0
