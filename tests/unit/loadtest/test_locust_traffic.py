"""What Locust's users ask: by Zipf, by the target's metadata, by a scenario."""

import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.loadtest.scenario import Entity, RequestKind
from serving.types import TensorMetadata

ROOT = Path(__file__).parents[3]
KEY = TensorMetadata("person_id", "INT64", (-1,), optional=True)
FEATURE = TensorMetadata("AGEP", "FP32", (-1,), optional=True)
WHOLE = TensorMetadata("X", "FP32", (-1, 16), optional=True)


@pytest.fixture(scope="module")
def traffic() -> Iterator[Any]:
    """The module, which lives beside the package."""
    sys.path.insert(0, str(ROOT / "loadtests"))
    yield importlib.import_module("locust_traffic")
    sys.path.remove(str(ROOT / "loadtests"))


def by_metadata(traffic: Any, *declared: TensorMetadata, rows: int = 4) -> Any:
    """What is asked of a model with these inputs."""
    return traffic.from_metadata(
        "m", declared, ["y"], rows=traffic.Mix([(rows, 1.0)]), who=traffic.Popularity(50, 1.0)
    )


def test_popularity_follows_zipf(traffic: Any) -> None:
    """The second entity is asked for half as often as the first, the fourth a quarter."""
    who = traffic.Popularity(1000, 1.0)

    assert who.share(2) == pytest.approx(who.share(1) / 2)
    assert who.share(4) == pytest.approx(who.share(1) / 4)
    assert sum(who.share(rank) for rank in range(1, 1001)) == pytest.approx(1)


def test_draws_have_the_shares_of_their_ranks(traffic: Any) -> None:
    """Within five standard deviations of 20,000 draws, and never outside the keys."""
    who = traffic.Popularity(100, 1.1, first=500)
    drawn = np.array(who.draw(20_000, random.Random(1)))

    assert drawn.min() == 500
    assert drawn.max() <= 599
    for rank in (1, 2, 10):
        share = who.share(rank)
        spread = 5 * (share * (1 - share) / 20_000) ** 0.5
        assert np.mean(drawn == 499 + rank) == pytest.approx(share, abs=spread)


@pytest.mark.parametrize(("entities", "exponent"), [(0, 1.0), (10, -1.0), (10, float("nan"))])
def test_a_popularity_that_is_none_is_refused(traffic: Any, entities: int, exponent: float) -> None:
    """Rather than asking for nobody."""
    with pytest.raises(ValueError, match="expected at least one entity"):
        traffic.Popularity(entities, exponent)


def test_weights_are_read(traffic: Any) -> None:
    """1 where none is given."""
    assert traffic.weighted("a:9, b") == {"a": 9.0, "b": 1.0}


@pytest.mark.parametrize("text", ["a:x", "", "a,a", ":3", "a:-1", "a:inf"])
def test_weights_that_are_none_are_refused(traffic: Any, text: str) -> None:
    """With the part that is wrong."""
    with pytest.raises(ValueError, match="expected NAME or NAME:WEIGHT"):
        traffic.weighted(text)


def test_a_mix_draws_by_weight(traffic: Any) -> None:
    """And never what has none."""
    mix = traffic.Mix([("a", 3.0), ("b", 1.0), ("never", 0.0)])
    chance = random.Random(2)
    drawn = [mix.draw(chance) for _ in range(4000)]

    assert drawn.count("a") / 4000 == pytest.approx(0.75, abs=0.04)
    assert "never" not in drawn


def test_a_mix_without_weight_is_refused(traffic: Any) -> None:
    """There would be nothing to draw."""
    with pytest.raises(ValueError, match="a weight above 0"):
        traffic.Mix([("a", 0.0)])


def test_batch_sizes_go_by_what_the_model_takes(traffic: Any) -> None:
    """Powers of two up to `max_batch_size`, fewer of the large ones; one row where it is silent."""
    assert list(traffic.batch_sizes("", 8)) == [1, 2, 4, 8]
    assert list(traffic.batch_sizes("", 0)) == [1]
    sizes = traffic.batch_sizes("", 64)
    assert max(sizes) == 32
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)


def test_batch_sizes_are_read(traffic: Any) -> None:
    """And refused if they are no counts."""
    assert traffic.batch_sizes("1:9,16", 4) == {1: 9.0, 16: 1.0}
    with pytest.raises(ValueError, match="no number of rows"):
        traffic.batch_sizes("0", 4)


def test_of_optional_inputs_the_key_alone_is_sent(traffic: Any) -> None:
    """As a client of the gateway does: features come from the store."""
    asked = by_metadata(traffic, FEATURE, KEY, WHOLE)
    feed = asked.feed(random.Random(3))

    assert list(feed) == ["person_id"]
    assert feed["person_id"].dtype == np.int64
    assert feed["person_id"].shape == (4,)
    assert feed["person_id"].min() >= 1


def test_what_has_to_be_sent_is(traffic: Any) -> None:
    """In the model's datatypes and shapes; a first dimension that is fixed is no batch."""
    asked = by_metadata(
        traffic,
        TensorMetadata("X", "FP32", (-1, 3)),
        TensorMetadata("fixed", "FP64", (1, 2)),
        TensorMetadata("text", "BYTES", (-1, 1)),
        TensorMetadata("flag", "BOOL", (-1,)),
        TensorMetadata("half", "BF16", (-1,)),
        FEATURE,
    )
    feed = asked.feed(random.Random(3))

    assert {name: data.shape for name, data in feed.items()} == {
        "X": (4, 3), "fixed": (1, 2), "text": (4, 1), "flag": (4,), "half": (4,),
    }  # fmt: skip
    assert feed["X"].dtype == np.float32
    assert isinstance(feed["text"][0, 0], bytes)


def test_a_model_without_inputs_is_refused(traffic: Any) -> None:
    """It says which."""
    with pytest.raises(ValueError, match="model `m` declares no input"):
        by_metadata(traffic)


def test_a_scenarios_kind_is_asked_as_it_says(traffic: Any) -> None:
    """Keys from `first`, one of its rows, its version and headers."""
    kind = RequestKind(
        model="m", version="v2", rows=[3], entity={"person_id": Entity(keys=2, first=10)},
        headers={"x-a": "b"},
    )  # fmt: skip
    asked = traffic.from_scenario(kind, [KEY, FEATURE, WHOLE], ["y"])
    feed = asked.feed(random.Random(1))

    assert (asked.name, asked.version, asked.headers) == ("m:v2", "v2", {"x-a": "b"})
    assert set(feed["person_id"].tolist()) <= {10, 11}
    assert feed["person_id"].shape == (3,)


def test_a_scenario_that_needs_more_is_refused(traffic: Any) -> None:
    """What only `sluice loadtest` does is not done otherwise in silence."""
    with pytest.raises(ValueError, match="are for `sluice loadtest`"):
        traffic.from_scenario(RequestKind(model="m", body="b.json"), [KEY], ["y"])
    with pytest.raises(ValueError, match="has no input `persn`; it has person_id"):
        traffic.from_scenario(RequestKind(model="m", entity={"persn": Entity()}), [KEY], ["y"])
