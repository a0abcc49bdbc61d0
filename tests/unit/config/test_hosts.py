"""Which versions keep processes of their own while a rollout stands."""

from typing import Any

import msgspec
import pytest

from serving.config.hosts import HostSpec, scaling_of, wanted_hosts
from serving.config.schema import ModelConfig
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.types import Signature


def hosts(named: str = "v1", **rollout: Any) -> list[HostSpec]:
    """Versions with processes of their own, none at least; the file says `named`."""
    versions = {name: {"path": name, "sha256": name[1] * 64} for name in ("v1", "v2", "v3")}
    raw = {
        "model": "m",
        "versions": versions,
        "serve": {"placement": "dedicated", "hosts": {"min": 0, "max": 2}},
        "traffic": {"production": named},
    }
    signature = Signature(inputs=[], outputs=[], batchable=True)
    plan = RolloutTraffic(id="m-r1", revision=1, **{"canary": "v2", "production": "v1", **rollout})
    snapshot = Snapshot(
        revision=1,
        published_at=0.0,
        author="test",
        models={"m": msgspec.convert(raw, ModelConfig)},
        views={},
        staged={
            "m": {
                name: StagedVersion(path=name, sha256=name[1] * 64, signature=signature)
                for name in versions
            }
        },
        rollouts={"m": plan} if rollout else {},
    )
    return wanted_hosts(snapshot)


def busy(named: str = "v1", **rollout: Any) -> set[str]:
    """Versions whose processes run though nobody asks by name."""
    return {spec.version for spec in hosts(named, **rollout) if not spec.idle}


def test_without_a_rollout_the_plan_counts() -> None:
    """Only production has traffic."""
    assert busy() == {"v1"}


@pytest.mark.parametrize("weight", [0.0, 5.0, 100.0])
def test_both_versions_of_a_live_rollout_are_kept(weight: float) -> None:
    """An abort meets a warm production at 100 percent, and a pause a warm canary at none."""
    assert busy(weight=weight) == {"v1", "v2"}


def test_what_was_stopped_is_kept_as_long_as_it_is_named() -> None:
    """To be looked at; once `keep_warm` is over control names only who is production."""
    assert busy(canary="v2", production="v1") == {"v1", "v2"}
    assert busy(canary="v1", production="v1") == {"v1"}


def test_the_files_production_is_kept_after_a_rollout_is_done() -> None:
    """Whoever takes the rollout back meets it warm; once the file names the new one it may go."""
    assert busy("v1", canary="v2", production="v2") == {"v1", "v2"}
    assert busy("v2", canary="v2", production="v2") == {"v2"}


def test_a_version_that_is_rolled_out_never_scales_to_nothing() -> None:
    """Everybody may be sent to either within a second; without a rollout the file's bounds hold."""
    least = {spec.version: scaling_of(spec).min for spec in hosts(weight=100.0)}

    assert least == {"v1": 1, "v2": 1, "v3": 0}
    assert [scaling_of(spec).min for spec in hosts()] == [0, 0, 0]
