"""What may not change under a live rollout, and what a new one cannot reach."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from control_kit import ConfigDirectory
from msgspec.structs import replace

from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.control.publishing.compile import Compiled, compile_configuration
from serving.control.publishing.rollout_changes import (
    LiveRollout,
    live_in,
    live_of,
    refused_changes,
)
from serving.control.publishing.rollout_reach import out_of_reach
from serving.rollout.forecast import Traffic
from serving.rollout.state import RolloutState

PLAN = {
    "canary": "v2",
    "steps": [{"weight": 5, "bake": {"min": "1m"}}, {"weight": 100}],
    "guardrails": {"rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}]},
}
LIVE = {"demo": LiveRollout(id="demo-r1", canary="v2", production="v1", phase="progressing")}


class Served:
    """A directory, and the snapshot of what it said first."""

    def __init__(self, folder: Path) -> None:
        self.directory = ConfigDirectory(folder / "config")
        self.data = folder / "data"
        self.directory.model(rollout=PLAN)
        self.current = self.compiled().snapshot(revision=1, author="", at=0.0)

    def compiled(self) -> Compiled:
        """What the directory says now."""
        return compile_configuration(self.directory.root, self.data)

    def refused(self) -> list[str]:
        """What is refused of it while the rollout is live."""
        return [str(one) for one in refused_changes(self.compiled(), self.current, LIVE)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Made once: checking model files takes a process."""
    return Served(tmp_path_factory.mktemp("served"))


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """With the directory as it was applied."""
    yield shared
    shared.directory.model(rollout=PLAN)


def test_the_same_again_is_let_through(served: Served) -> None:
    """Applying twice changes nothing."""
    assert served.refused() == []


def test_what_the_evidence_is_not_about_may_change(served: Served) -> None:
    """Limits of the model, say."""
    served.directory.model(rollout=PLAN, serve={"max_batch_size": 8})

    assert served.refused() == []


def test_the_plan_cannot_change(served: Served) -> None:
    """With the line, and three ways out."""
    served.directory.model(rollout={**PLAN, "steps": [{"weight": 100}]})
    [line] = served.refused()

    assert line.startswith("models/demo.yaml:")
    assert (
        "error: rollout: its plan cannot change under it: the rollout demo-r1 is progressing "
        "(put `rollout` back as it was, or end it first: `sluice rollout abort demo`; "
        "`sluice rollout pause demo` holds it where it is)"
    ) in line


def test_the_plan_cannot_be_taken_out(served: Served) -> None:
    """Nor the whole model."""
    served.directory.model()
    without_plan = served.refused()
    file = served.directory.root / "models" / "demo.yaml"
    text = file.read_text()
    file.unlink()
    without_model = served.refused()
    file.write_text(text)

    assert any("its plan cannot change under it" in line for line in without_plan)
    assert any("the model cannot be taken out now" in line for line in without_model)


def test_production_cannot_change(served: Served) -> None:
    """Evidence is about canary and production together."""
    traffic = {"production": "v2", "assignment": {"key": "person_id"}}
    served.directory.model(traffic=traffic, rollout={**PLAN, "canary": "v1"})

    assert any("traffic.production: production stays `v1`" in line for line in served.refused())


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_files_of_both_versions_cannot_change(served: Served, version: str) -> None:
    """Another file under an old name was never compared."""
    digests = served.current.staged["demo"]
    staged = {**digests, version: replace(digests[version], sha256="f" * 64)}
    current = replace(served.current, staged={"demo": staged})
    found = refused_changes(served.compiled(), current, LIVE)

    [line] = map(str, found)
    assert f"versions.{version}.sha256: its evidence is about the file that `{version}` was" in line


def test_nothing_is_refused_without_a_live_rollout(served: Served) -> None:
    """One that is over no longer holds anything."""
    served.directory.model()

    assert refused_changes(served.compiled(), served.current, {}) == []


def test_a_snapshot_tells_which_rollouts_are_live() -> None:
    """Those that give or copy something, or count; not those that are done or aborted."""
    rollouts = {
        "at5": RolloutTraffic(id="a", revision=1, canary="v2", production="v1", weight=5.0),
        "shadow": RolloutTraffic(id="b", revision=1, canary="v2", production="v1", shadow=5.0),
        "aborted": RolloutTraffic(id="c", revision=9, canary="v2", production="v1"),
        "done": RolloutTraffic(id="d", revision=9, canary="v2", production="v2", weight=100.0),
    }
    current = Snapshot(
        revision=1, published_at=0.0, author="", models={}, views={}, staged={}, rollouts=rollouts
    )

    assert sorted(live_in(current)) == ["at5", "shadow"]
    assert live_in(None) == {}


def test_what_has_happened_in_a_rollout_counts_for_more() -> None:
    """One that waits for its first step or for a person holds; one that was stopped does not."""
    put = RolloutTraffic(id="demo-r1", revision=1, canary="v2", production="v1", weight=5.0)
    current = Snapshot(
        revision=1,
        published_at=0.0,
        author="",
        models={},
        views={},
        staged={},
        rollouts={"demo": put, "other": put},
    )
    states = [
        RolloutState(id="demo-r1", model="demo", phase="aborted"),
        RolloutState(id="new-r1", model="new", phase="awaiting_approval", canary="v2"),
        RolloutState(id="young-r1", model="young", phase="pending", canary="v2"),
    ]
    found = live_of(states, current)

    assert sorted(found) == ["new", "other", "young"]
    assert found["new"].phase == "awaiting approval"


# --- reach ----------------------------------------------------------------------------------


def test_samples_that_cannot_come_in_time_are_refused(served: Served) -> None:
    """With the line of the step, and what the busiest time brought."""
    steps = [{"weight": 5, "bake": {"min_samples": 1000, "max": "1m"}}, {"weight": 100}]
    served.directory.model(rollout={**PLAN, "steps": steps})
    compiled = served.compiled()
    [line] = map(str, out_of_reach(compiled, served.current, lambda _: Traffic(rate=10.0)))

    assert line.startswith("models/demo.yaml:")
    assert (
        "rollout.steps[0].bake: weight 5 % for at most 1 min gets about 30 requests, not the 1,000 "
        "of `min_samples`, at the 10 requests/s of the busiest time seen"
    ) in line
    assert out_of_reach(compiled, served.current, lambda _: Traffic(rate=1000.0)) == []


def test_nobody_can_tell_without_traffic(served: Served) -> None:
    """A gateway that was just started refuses no plan."""
    steps = [{"weight": 5, "bake": {"min_samples": 1000, "max": "1m"}}, {"weight": 100}]
    served.directory.model(rollout={**PLAN, "steps": steps})

    assert out_of_reach(served.compiled(), served.current, lambda _: None) == []


def test_a_rollout_that_stands_there_already_is_not_judged_again(served: Served) -> None:
    """Traffic that has fallen since keeps nobody from changing something else."""
    steps = [{"weight": 5, "bake": {"min_samples": 1000, "max": "1m"}}, {"weight": 100}]
    served.directory.model(rollout={**PLAN, "steps": steps})
    compiled = served.compiled()
    current = compiled.snapshot(revision=2, author="", at=0.0)

    assert out_of_reach(compiled, current, lambda _: Traffic(rate=10.0)) == []
