"""A scenario from options: its text is a scenario file, and says what the options said."""

from pathlib import Path

import pytest

from serving.errors import InvalidConfig
from serving.loadtest.quick import Keys, NoEntity, Quick, entity_of, keys_of, scenario_text
from serving.loadtest.reading import scenario_of
from serving.loadtest.scenario import Scenario
from serving.types import TensorMetadata

PEOPLE = {"person_id": Keys(count=50)}


def read(quick: Quick) -> Scenario:
    """The scenario, read as its file would be."""
    return scenario_of(scenario_text(quick), "the options", Path(__file__).parent)


def test_what_the_options_say_is_in_the_scenario() -> None:
    """Each of them, by the file's own reader."""
    made = read(
        Quick(
            target="grpc://127.0.0.1:8001",
            model="employment",
            entity={"person_id": Keys(datatype="INT32", first=5, count=50)},
            rows=[1, 8],
            rate=12.5,
            seconds=90,
            connections=3,
            deadline="100ms",
            slos=[("p99.9", "50ms"), ("versions", "{v1: {at_least: 0.9}}"), ("goodput", "0.99")],
        )
    )

    [kind], [phase] = made.requests, made.phases
    keys = kind.entity["person_id"]
    assert (made.target, kind.model, kind.rows) == ("grpc://127.0.0.1:8001", "employment", [1, 8])
    assert (keys.datatype, keys.first, keys.keys) == ("INT32", 5, 50)
    assert (phase.rate, phase.length, made.connections, made.deadline) == (12.5, 90, 3, 0.1)
    assert made.slos[0].p999 == 0.05
    assert made.slos[1].versions["v1"].at_least == 0.9
    assert made.slos[2].goodput == 0.99


@pytest.mark.parametrize("rate", [1.0, 0.25, 1_000_000.0, 123_456.75])
@pytest.mark.parametrize("seconds", [0.3, 1.0, 3600.0, 12345.678])
def test_rates_and_lengths_are_read_back_as_they_were_given(rate: float, seconds: float) -> None:
    """No exponent that YAML would take for a text, no digit lost."""
    [phase] = read(
        Quick(target="http://h:1", model="m", entity=PEOPLE, rate=rate, seconds=seconds)
    ).phases

    assert phase.rate == rate
    assert phase.length == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("name", ["yes", "No", "null", "a: b", "ünï", "7", "it's", "{x}"])
def test_a_name_is_a_text_whatever_it_looks_like(name: str) -> None:
    """YAML reads some words as something else."""
    made = read(Quick(target="http://h:1", model=name, entity={name: Keys()}))

    assert made.requests[0].model == name
    assert list(made.requests[0].entity) == [name]


def test_a_mistake_in_an_slo_is_found_by_the_files_own_rules() -> None:
    """With the near name."""
    quick = Quick(target="http://h:1", model="m", entity=PEOPLE, slos=[("p98", "1s")])

    with pytest.raises(InvalidConfig) as found:
        read(quick)
    assert "did you mean `p99`?" in str(found.value.problems[0])


@pytest.mark.parametrize(
    ("text", "keys"),
    [("1..1000", Keys()), ("-3..-3", Keys(first=-3, count=1)), ("0..9", Keys(first=0, count=10))],
)
def test_a_range_of_keys_has_both_its_ends(text: str, keys: Keys) -> None:
    """As a person counts."""
    assert keys_of(text) == keys


@pytest.mark.parametrize("text", ["", "5", "5..1", "a..b", "1...5", "1..1000\n"])
def test_what_is_no_range_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match=r"such as person_id=1\.\.1000"):
        keys_of(text)


def test_the_first_list_of_keys_names_the_entity() -> None:
    """A gateway declares its entity before features and whole inputs."""
    declared = [
        TensorMetadata("X", "FP32", (-1, 16)),
        TensorMetadata("person_id", "BYTES", (-1,)),
        TensorMetadata("AGE", "INT32", (-1,)),
    ]

    assert entity_of("m", declared) == ("person_id", "BYTES")
    with pytest.raises(NoEntity, match=r"`m` takes no entity key, but X FP32 \[-1, 16\]"):
        entity_of("m", declared[:1])
