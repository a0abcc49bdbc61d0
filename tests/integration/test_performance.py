from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import parquet_log
import pytest
from label_kit import LabelGateway, figure
from parquet_log import START, prediction_id, row
from sklearn import metrics

from serving.control.labels.desk import taken
from serving.recording.label import check
from serving.recording.labels import LabelStore

COUNT = 2000


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LabelGateway]:
    """A gateway that is not started."""
    made = LabelGateway(tmp_path)
    yield made
    await made.close()


def traffic(gateway: LabelGateway, **fields: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log scored rows, one a minute; scores as float32 has them, and the truth."""
    scores, true = parquet_log.scored(COUNT, seed=3)
    rows = [
        row(START + 60 * one, one, score=float(scores[one]), **fields, **{"feature.sex": one % 2})
        for one in range(COUNT)
    ]
    parquet_log.write_log(gateway.log, rows)
    return scores.astype(np.float32), true


def tell(gateway: LabelGateway, true: np.ndarray, numbers: Any) -> None:
    """Put labels into the store, an hour after each prediction, as control would."""
    model = gateway.control.publisher.current.models["demo"]  # type: ignore[union-attr]
    now = int((START + 365 * 86400) * 1e6)
    store = LabelStore(gateway.log / "labels")
    store.append(
        [
            check(
                {
                    "prediction_id": prediction_id(START + 60 * one, one),
                    "label": int(true[one]),
                    "label_time": int((START + 60 * one + 3600) * 1e3),
                },
                {"demo": taken(model)},
                now,
            )
            for one in map(int, numbers)
        ],
        actor="test",
        received=now,
    )
    store.compact()
    store.close()


async def test_figures_agree_with_scikit_learn(gateway: LabelGateway) -> None:
    """Accuracy, rates, AUC, Brier and log loss of joined rows, through SQL and back."""
    scores, true = traffic(gateway)
    await gateway.start()
    told = np.flatnonzero(np.random.default_rng(0).random(COUNT) < 0.6)
    tell(gateway, true, told)

    [group] = (await gateway.performance())["groups"]

    scores, truth = scores[told], true[told]
    decided = (scores >= 0.5).astype(int)
    expected = {
        "accuracy": metrics.accuracy_score(truth, decided),
        "recall": metrics.recall_score(truth, decided),
        "precision": metrics.precision_score(truth, decided),
        "brier": metrics.brier_score_loss(truth, scores),
        "log_loss": metrics.log_loss(truth, scores.astype(np.float64)),
    }
    assert group["labelled"] == len(told)
    for name, value in expected.items():
        assert figure(group, name)["value"] == pytest.approx(value, abs=2e-6), name
    # Ties within a bin of 1.6 % of the odds count half.
    auc = metrics.roc_auc_score(truth, scores)
    assert figure(group, "auc")["value"] == pytest.approx(auc, abs=5e-4)
    for one in group["figures"]:
        assert one["low"] <= one["value"] <= one["high"], one


async def test_weights_undo_what_sampling_did(gateway: LabelGateway) -> None:
    """Rows that stand for five count five times; the figure is that of all traffic."""
    rows = [row(START + one, one, score=0.9, sample_weight=1.0) for one in range(50)] + [
        row(START + one, one, score=0.1, sample_weight=5.0) for one in range(50, 60)
    ]
    parquet_log.write_log(gateway.log, rows)
    await gateway.start()

    [group] = (await gateway.performance())["groups"]

    rate = figure(group, "selection_rate")
    assert rate["value"] == pytest.approx(0.5)
    assert rate["rows"] == 60
    assert rate["effective"] == pytest.approx(100**2 / (50 + 250))


async def test_one_person_asked_about_often_is_one_person(gateway: LabelGateway) -> None:
    """Rows of one entity widen the interval to what its people are worth."""
    rows = [
        row(
            START + one,
            one,
            score=0.9 if one % 100 < 40 else 0.1,
            **{"entity.person_id": one % 100},
        )
        for one in range(2000)
    ]
    parquet_log.write_log(gateway.log, rows)
    await gateway.start()

    [group] = (await gateway.performance())["groups"]

    rate = figure(group, "selection_rate")
    assert (rate["rows"], rate["effective"]) == (2000, pytest.approx(100))
    assert rate["high"] - rate["low"] > 0.18


async def test_slices_are_compared_and_only_a_proven_gap_is_an_alert(
    gateway: LabelGateway,
) -> None:
    """One group is selected half as often; the other column's groups are alike."""
    random = np.random.default_rng(5)
    rows = [
        row(
            START + one, one, score=float(random.random() * (1.0 if one % 3 else 0.75)),
            **{"feature.sex": int(one % 3 == 0), "feature.age": one // 2 % 2},
        )
        for one in range(COUNT)
    ]  # fmt: skip
    parquet_log.write_log(gateway.log, rows)
    await gateway.start({"prediction": {"score": "probabilities[1]"}, "slices": ["sex", "age"]})

    report = await gateway.performance(by="slice")

    assert {(one["column"], one["value"]) for one in report["groups"]} == {
        ("sex", "0"), ("sex", "1"), ("age", "0"), ("age", "1"),
    }  # fmt: skip
    said = [words for words in report["alerts"] if "selection rate" in words]
    assert len(said) == 1
    assert "sex=1: selection rate is 0.6" in said[0]
    states = {
        gap["state"]
        for one in report["slices"] if one["column"] == "age"
        for group in one["groups"] for gap in group["gaps"]
    }  # fmt: skip
    assert states <= {"within", "undecided", "few"}


async def test_time_is_told_in_buckets_of_the_window(gateway: LabelGateway) -> None:
    """Each bucket begins at a multiple of `monitoring.window`; rows add up."""
    traffic(gateway)
    await gateway.start({"prediction": {"score": "probabilities[1]"}, "window": "6h"})

    report = await gateway.performance(by="time")

    assert [one["bucket"] % 21600 for one in report["groups"]] == [0] * 6
    assert sum(one["rows"] for one in report["groups"]) == COUNT


async def test_versions_that_are_labelled_differently_are_told_of(
    gateway: LabelGateway,
) -> None:
    """Every row of v1 has a label and half of v2's: their figures are of different rows."""
    scores, true = parquet_log.scored(COUNT)
    versions = [("v1", "production") if one % 2 else ("v2", "canary") for one in range(COUNT)]
    rows = [
        row(START + 60 * one, one, score=float(scores[one]), version=version, role=role)
        for one, (version, role) in enumerate(versions)
    ]
    parquet_log.write_log(gateway.log, rows)
    await gateway.start()
    tell(gateway, true, [one for one in range(COUNT) if one % 4])

    report = await gateway.performance()

    assert {one["name"]: one["value"] for one in report["coverage"]} == {
        "v1 (production)": 1.0, "v2 (canary)": 0.5,
    }  # fmt: skip
    assert any("label coverage of v1, v2 differs" in words for words in report["alerts"])


async def test_the_delay_curve_counts_rows_that_are_old_enough(gateway: LabelGateway) -> None:
    """Every third row is labelled after an hour; nothing is labelled earlier."""
    _, true = traffic(gateway)
    await gateway.start()
    tell(gateway, true, range(0, COUNT, 4))

    points = {one["seconds"]: one["value"] for one in (await gateway.performance())["delay"]}

    assert points[600.0] == 0.0
    assert points[3600.0] == points[604800.0] == 0.25


async def test_regression_and_words_as_labels(gateway: LabelGateway) -> None:
    """Errors of a number; a class's name stands for its place."""
    parquet_log.write_log(
        gateway.log,
        [row(START + one, one, **{"output.probabilities": [0.0, one]}) for one in range(40)],
    )
    await gateway.start({"prediction": {"task": "regression", "decision": "probabilities[1]"}})
    tell_later = [
        {
            "prediction_id": prediction_id(START + one, one),
            "label": one + (1 if one % 2 else -1),
            "label_time": int((START + 60) * 1e3),
        }
        for one in range(40)
    ]
    answer = await gateway.send(*tell_later)

    [group] = (await gateway.performance())["groups"]

    assert answer.status_code == 200, answer.text
    assert figure(group, "absolute_error")["value"] == 1.0
    assert figure(group, "rmse")["value"] == 1.0
    assert figure(group, "bias")["value"] == 0.0


async def test_what_is_not_there_is_named(gateway: LabelGateway) -> None:
    """An output that the log has not, an unknown model, a bad question, no traffic."""
    await gateway.start({"prediction": {"score": "probabilities[1]", "decision": "label"}})
    read = {"authorization": "Bearer labeller-token"}

    empty = await gateway.performance()
    without = row(START, 1)
    del without["output.label"]
    parquet_log.write_log(gateway.log, [without])
    lacking = await gateway.http.get("/api/v1/performance/demo", headers=read)
    unknown = await gateway.http.get("/api/v1/performance/nobody", headers=read)
    by = await gateway.http.get("/api/v1/performance/demo?by=mood", headers=read)
    last = await gateway.http.get("/api/v1/performance/demo?last=7", headers=read)
    sliced = await gateway.http.get("/api/v1/performance/demo?by=slice", headers=read)

    assert empty["notes"] == ["no prediction of this model is in the log for this time"]
    assert lacking.status_code == 400
    assert "has no output 'label'; it has probabilities" in lacking.json()["error"]
    assert unknown.status_code == 404
    assert "not one of version, role, slice, time" in by.json()["error"]
    assert "such as 50ms" in last.json()["error"]
    assert "`monitoring.slices` of 'demo' names no column" in sliced.json()["error"]
