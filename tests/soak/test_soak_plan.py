"""What the soak test asks for, and when it changes what."""

import collections
import importlib
import itertools
from pathlib import Path

import pytest

from serving.config.load import load_directory


def test_requests_come_alone_first_and_then_with_changes() -> None:
    """And a rollout that the warm-up began has two rounds to end."""
    soak = importlib.import_module("soak")
    plan = soak.Plan(warm_up=6, rounds=4)

    busy = [number for number in range(10) if soak.is_busy(plan, number)]
    assert busy == [1, 3, 8, 9]


@pytest.mark.parametrize("protocol", ["HTTP", "GRPC"])
def test_even_traffic_has_as_many_of_each_kind(protocol: str) -> None:
    """However rare a kind is otherwise, what it leaves behind counts as much."""
    requests = importlib.import_module("soak_requests")
    kinds = getattr(requests, protocol)

    drawn = itertools.islice(requests.draw(kinds, 1, even=True), 4096)
    counts = collections.Counter(one.kind for one in drawn)
    assert counts.keys() == {kind.name for kind in kinds}
    assert min(counts.values()) > 0.7 * 4096 / len(kinds)


def test_an_unknown_model_never_has_the_same_name_twice() -> None:
    """A name that is remembered anywhere adds up."""
    requests = importlib.import_module("soak_requests")
    drawn = itertools.islice(requests.draw(requests.HTTP, 1, even=False), 20_000)

    unknown = [one.content.split(b" ")[1] for one in drawn if one.kind == "unknown model"]
    assert len(set(unknown)) == len(unknown) > 50


def test_every_change_leaves_a_directory_that_can_be_applied(tmp_path: Path) -> None:
    """Releases, rollouts, shadow shares and views, round after round."""
    directory = importlib.import_module("soak_directory").Directory(
        tmp_path / "conf", workers=1, otlp="http://127.0.0.1:4317"
    )
    before = load_directory(directory.folder).digest
    kinds = []
    for number in range(1, 9):
        kinds.append(directory.change(number, rollout_over=True))
        after = load_directory(directory.folder).digest
        assert after != before, kinds
        before = after

    assert kinds == 2 * ["release", "rollout", "shadow", "view"]


def test_a_rollout_waits_for_the_one_before(tmp_path: Path) -> None:
    """While one is under way, its turn changes something else."""
    directory = importlib.import_module("soak_directory").Directory(
        tmp_path / "conf", workers=1, otlp="http://127.0.0.1:4317"
    )
    assert directory.change(2, rollout_over=True) == "rollout"

    assert directory.change(6, rollout_over=False) == "shadow"
    assert directory.candidate == "r2"
