"""What labels say of a rollout: from a log and its labels, in the child process and outside it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import parquet_log
import pytest
from parquet_log import START, prediction_id, row

from serving.clock import ManualClock
from serving.config.schema import GatewayConfig, ModelConfig
from serving.config.snapshot_codec import dec_hook
from serving.control.labels.joiner import answer, connect
from serving.control.labels.joiner_orders import RolloutLossesTold
from serving.control.labels.joiner_process import TooLarge
from serving.control.rollouts.labels import (
    LabelEvidence,
    RolloutLabels,
    needs_labels,
    order_of,
)
from serving.errors import InvalidRequest, Overloaded
from serving.recording.label import Label
from serving.recording.labels import LabelStore
from serving.rollout.judge import judge
from serving.rollout.judged.labels import RuleResult
from serving.rollout.standing import RuleStanding

QUALITY = {"name": "quality", "metric": "label_loss", "loss": "error", "abs_tolerance": 0.02}
NOW = START + 86400.0


def model(*rules: dict[str, Any], **more: Any) -> ModelConfig:
    """A binary model `demo` whose canary v2 is judged by these rules."""
    body = {
        "model": "demo",
        "versions": {name: {"path": f"{name}.onnx", "sha256": name * 32} for name in ("a1", "a2")},
        "entity": {"person_id": "INT64"},
        "traffic": {"production": "a1", "assignment": {"key": "person_id"}},
        "rollout": {
            "canary": "a2",
            "steps": [{"weight": 25}, {"weight": 100}],
            "guardrails": {"rules": list(rules)},
        },
        "monitoring": {
            "prediction": {"task": "binary", "score": "probabilities[1]"}, "slices": ["sex"],
        },
    }  # fmt: skip
    return msgspec.convert({**body, **more}, ModelConfig, dec_hook=dec_hook)


def write(log: Path, rows: list[Any], labels: dict[int, float], *, late: float = 60.0) -> None:
    """Rows, and labels of requests in the order given, `late` seconds after the prediction."""
    parquet_log.write_log(log, rows)
    store = LabelStore(log / "labels")
    given = [
        Label(
            model="demo", prediction_id=prediction_id(START + number / 10, number), row=0,
            entity="", time=0, tolerance=0.0, number=value, text="",
            label_time=int((START + number / 10 + late) * 1e6), source="test",
        )
        for number, value in labels.items()
    ]  # fmt: skip
    store.append(given, actor="test", received=1)
    store.close()


def drawn(people: int, wrong: tuple[float, float], *, told: tuple[float, float] = (1, 1)) -> Any:
    """Rows of people drawn at a quarter, and labels.

    Args:
        people: how many, one request each.
        wrong: share of the canary's, of production's predictions that are.
        told: share of the canary's, of production's predictions that have a label.
    """
    chance = np.random.default_rng(1)
    rows, labels = [], {}
    for number in range(1, people + 1):
        canary = bool(chance.random() < 0.25)
        arm = 0 if canary else 1
        rows.append(
            row(
                START + number / 10, number,
                version="a2" if canary else "a1", role="canary" if canary else "production",
                score=0.9, assignment_reason="assigned",
                assignment_probability=0.25 if canary else 0.75,
                **{"feature.sex": 1.0 + number % 2},
            )
        )  # fmt: skip
        if chance.random() < told[arm]:
            labels[number] = float(chance.random() >= wrong[arm])
    return rows, labels


def asked(log: Path, config: ModelConfig) -> RolloutLossesTold:
    """What the child answers."""
    order = order_of(config, production="a1", began=START, now=NOW)
    assert order is not None
    told = answer(connect(log), log, order)
    assert isinstance(told, RolloutLossesTold), told
    return msgspec.json.decode(msgspec.json.encode(told), type=RolloutLossesTold)


def standing(config: ModelConfig, results: dict[str, RuleResult]) -> RuleStanding:
    """Of the one rule."""
    from rollout_judge_kit import Counted

    assert config.rollout is not None
    [found] = judge(config.rollout, Counted(), looks={}, labels=results)
    return found


def test_a_canary_that_is_wrong_more_often_is_regressed(tmp_path: Path) -> None:
    """A tenth more, known of 3,000 people."""
    config = model(QUALITY)
    write(tmp_path, *drawn(3000, (0.3, 0.15)))

    told = asked(tmp_path, config)
    found = standing(config, told.results)

    assert found.verdict == "regressed"
    assert found.value == pytest.approx(0.15, abs=0.05)
    assert found.canary_units + found.production_units == 3000
    assert told.labels == found.canary_units


def test_a_canary_that_is_as_good_is_not(tmp_path: Path) -> None:
    """Nothing is proven against it."""
    config = model(QUALITY)
    write(tmp_path, *drawn(3000, (0.15, 0.15)))

    assert standing(config, asked(tmp_path, config).results).verdict == "ok"


def test_labels_that_come_for_production_above_all_are_biased(tmp_path: Path) -> None:
    """Then the difference may be one of who was labelled: never fine, never a breach."""
    config = model(QUALITY)
    write(tmp_path, *drawn(3000, (0.3, 0.15), told=(0.4, 0.9)))

    found = standing(config, asked(tmp_path, config).results)

    assert found.verdict == "undecided"
    assert "biased: 38% of the canary's predictions have a label and 90%" in found.words
    assert "of production's, so that those labelled are not alike" in found.words


def test_labels_after_the_horizon_are_left_out_of_both_sides(tmp_path: Path) -> None:
    """A rule without one takes them whenever they come."""
    config = model(QUALITY | {"horizon": "30s"}, QUALITY | {"name": "patient"})
    write(tmp_path, *drawn(1000, (0.15, 0.15)), late=60.0)

    results = asked(tmp_path, config).results

    assert results["quality"].canary_labels == results["quality"].production_labels == 0
    assert results["patient"].canary_labels + results["patient"].production_labels == 1000


def test_predictions_before_the_rollout_do_not_count(tmp_path: Path) -> None:
    """Those of an earlier rollout of the same version."""
    write(tmp_path, *drawn(1000, (0.15, 0.15)))
    order = order_of(model(QUALITY), production="a1", began=START + 50.05, now=NOW)
    assert order is not None
    told = answer(connect(tmp_path), tmp_path, order)

    assert isinstance(told, RolloutLossesTold)
    result = told.results["quality"]
    assert result.canary_labels + result.production_labels == 500


def test_shadow_copies_are_compared_in_pairs(tmp_path: Path) -> None:
    """A few hundred are enough where thousands of drawn requests would be needed."""
    chance = np.random.default_rng(2)
    rows, labels = [], {}
    for number in range(1, 501):
        given = {"assignment_reason": "only", "assignment_probability": 1.0}
        at, wrong = START + number / 10, chance.random() < 0.15
        rows.append(row(at, number, version="a1", score=0.9, **given))
        rows.append(
            row(at, number, version="a2", role="shadow", score=0.1 if wrong else 0.9, **given)
        )
        labels[number] = 1.0
    write(tmp_path, rows, labels)
    config = model(QUALITY)

    told = asked(tmp_path, config)
    found = standing(config, told.results)

    assert (found.verdict, told.labels) == ("regressed", 500)
    assert found.canary_units == found.production_units == 500


def test_the_slice_in_which_it_is_worse_is_named(tmp_path: Path) -> None:
    """Twice as often wrong for one sex, as good for the other."""
    chance = np.random.default_rng(3)
    rows, labels = drawn(4000, (0.15, 0.15))
    for one in rows:
        number = int(one["request_id"][1:])
        if one["role"] == "canary" and one["feature.sex"] == 2.0:
            labels[number] = float(chance.random() >= 0.5)
    write(tmp_path, rows, labels)
    config = model(QUALITY | {"metric": "slice_gap"})

    found = standing(config, asked(tmp_path, config).results)

    assert found.verdict == "regressed"
    assert found.words.startswith("sex 2: mean loss +0.3")


def test_a_loss_that_the_model_cannot_have_is_told_in_words(tmp_path: Path) -> None:
    """The other rules are answered all the same."""
    config = model(QUALITY, QUALITY | {"name": "far", "loss": "squared_error"})
    write(tmp_path, *drawn(300, (0.15, 0.15)))

    results = asked(tmp_path, config).results

    assert "`squared_error` cannot be told of `binary`" in results["far"].missing
    assert not results["quality"].missing


def test_a_slice_that_the_log_does_not_have_costs_its_rule_alone(tmp_path: Path) -> None:
    """Words for that one, losses for the other."""
    config = model(QUALITY, QUALITY | {"name": "gap", "metric": "slice_gap"})
    rows, labels = drawn(300, (0.15, 0.15))
    for one in rows:
        del one["feature.sex"]
    write(tmp_path, rows, labels)

    results = asked(tmp_path, config).results

    assert results["gap"].missing == "the log of 'demo' has no column 'sex' to tell slices by"
    assert results["quality"].bounds.mean is None
    assert results["quality"].canary_labels > 0


def test_rules_share_alpha_with_all_that_decide() -> None:
    """Also with those that are not about labels."""
    errors = {"name": "errors", "metric": "error_rate"}
    order = order_of(model(QUALITY, errors), production="a1", began=START, now=NOW)

    assert order is not None
    assert [rule.share for rule in order.rules] == [pytest.approx(0.025)]
    assert order.rules[0].alpha == pytest.approx(0.05)


def test_a_plan_without_labels_asks_for_nothing() -> None:
    """Rules about labels and `require_labels` do."""
    steps = [{"weight": 50, "bake": {"require_labels": 9}}, {"weight": 100}]

    assert order_of(model(), production="a1", began=START, now=NOW) is None
    assert needs_labels(model(QUALITY).rollout)
    assert needs_labels(model(rollout={"canary": "a2", "steps": steps}).rollout)
    assert not needs_labels(None)


@pytest.fixture
async def labels(tmp_path: Path) -> AsyncIterator[RolloutLabels]:
    """Over a log in the data directory `tmp_path`."""
    gateway = msgspec.convert({"log": {}}, GatewayConfig, dec_hook=dec_hook)
    made = RolloutLabels(gateway=lambda: gateway, data=tmp_path, clock=ManualClock(wall=NOW))
    yield made
    await made.close()


async def known(labels: RolloutLabels, config: ModelConfig) -> LabelEvidence:
    """What is known once the question that `latest` has put is answered."""
    labels.latest("demo-r1", config, production="a1", began=START)
    await asyncio.gather(*labels._asking.values())
    return labels.latest("demo-r1", config, production="a1", began=START)


async def test_it_is_asked_in_the_background_and_not_again_for_a_while(
    labels: RolloutLabels, tmp_path: Path
) -> None:
    """The first look knows nothing, the next one has the answer of the child process."""
    config = model(QUALITY)
    write(tmp_path / "predictions", *drawn(500, (0.15, 0.15)))

    first = labels.latest("demo-r1", config, production="a1", began=START)
    later = await known(labels, config)

    assert (first.at, first.problem) == (0, "not asked yet")
    assert (later.at, later.problem) == (NOW, "")
    assert later.labels == later.rules["quality"].canary_labels > 0
    assert not labels._asking  # not due


async def test_what_was_known_stays_known_when_the_child_fails(
    labels: RolloutLabels, tmp_path: Path
) -> None:
    """With the reason why it is not newer."""
    config = model(QUALITY)
    write(tmp_path / "predictions", *drawn(500, (0.15, 0.15)))
    before = await known(labels, config)
    labels._clock.advance(1000)  # type: ignore[attr-defined]

    after = await known(
        labels,
        model(QUALITY, entity={}, traffic={"production": "a1", "assignment": {"key": "household"}}),
    )

    assert after.rules == before.rules
    assert "no key 'household'" in after.problem


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"traffic": {"production": "a1", "assignment": {"header": "x-user"}}},
            "drawn by the header `x-user`",
        ),
        ({"log": {"fields": {"person_id": "drop"}}}, "`person_id`, which the log drops"),
    ],
)
async def test_without_units_labels_are_counted_and_not_compared(
    labels: RolloutLabels, tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    """Requests of one user are no independent draws; the rule says what it lacks."""
    config = model(QUALITY, **more)
    write(tmp_path / "predictions", *drawn(500, (0.15, 0.15)))

    found = await known(labels, config)

    assert found.labels > 0
    assert words in found.rules["quality"].missing
    assert standing(config, found.rules).verdict == "no_data"


async def test_a_rollout_that_has_ended_is_forgotten(labels: RolloutLabels, tmp_path: Path) -> None:
    """Its numbers are not the next one's."""
    config = model(QUALITY)
    write(tmp_path / "predictions", *drawn(500, (0.15, 0.15)))
    await known(labels, config)
    await labels.forget("demo-r1")

    assert labels.latest("demo-r1", config, production="a1", began=START).at == 0


async def test_of_a_log_that_is_too_large_a_part_is_joined(
    labels: RolloutLabels, tmp_path: Path
) -> None:
    """After a refusal one entity of four, of both versions alike; labels are counted up."""
    config = model(QUALITY)
    write(tmp_path / "predictions", *drawn(4000, (0.15, 0.15)))
    whole = await labels.losses(config, production="a1", began=START)
    part = await labels.losses(config, production="a1", began=START, one_of=4)

    for arm in ("canary_labels", "production_labels"):
        all_of, some = (getattr(one.rules["quality"], arm) for one in (whole, part))
        assert some == pytest.approx(all_of / 4, rel=0.15)
    assert part.labels == pytest.approx(whole.labels, rel=0.15)


async def test_a_refusal_makes_the_next_question_smaller(
    labels: RolloutLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of memory or of time; another kind of failure does not."""
    asked_for: list[int] = []
    failures = [TooLarge("512MiB"), Overloaded("too long"), InvalidRequest("no output")]

    async def refuse(_log: Path, order: Any, _kind: type) -> None:
        asked_for.append(order.plan.one_of)
        raise failures[len(asked_for) - 1]

    monkeypatch.setattr(labels._joiner, "ask", refuse)
    for _ in failures:
        await known(labels, model(QUALITY))
        labels._clock.advance(1000)  # type: ignore[attr-defined]

    assert asked_for == [1, 4, 16]
    assert labels._one_of == {"demo-r1": 16}
