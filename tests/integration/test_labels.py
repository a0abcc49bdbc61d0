import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import parquet_log
import pytest
from label_kit import LabelGateway, figure
from parquet_log import START, prediction_id, row

from serving.recording.columns import digest_with
from serving.recording.labels import LabelStore
from serving.recording.layout import LogFolder


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LabelGateway]:
    """A gateway with ten answered predictions, a minute apart, of people 0 to 9."""
    made = LabelGateway(tmp_path)
    parquet_log.write_log(made.log, [row(START + 60 * one, one) for one in range(10)])
    await made.start()
    yield made
    await made.close()


def of(number: int, label: Any, **more: Any) -> dict[str, Any]:
    """A label by id, known ten minutes after the prediction."""
    at = START + 60 * number
    return {
        "prediction_id": prediction_id(at, number),
        "label": label,
        "label_time": int((at + 600) * 1e3),
        **more,
    }


def counted(answer: Any) -> dict[str, int]:
    """The outcomes that are not zero."""
    return {name: many for name, many in answer.json().items() if isinstance(many, int) and many}


async def test_each_label_has_one_outcome_and_is_counted(gateway: LabelGateway) -> None:
    """Joined, repeated, corrected, orphan, late: in the answer and in the metrics."""
    late = of(5, 1, label_time=int((START + 9 * 86400) * 1e3))

    first = await gateway.send(of(0, 1), of(1, 0), of(0, 1), of(1, 1), of(77, 1), late)
    again = await gateway.send(of(0, 1))
    metrics = (
        await gateway.http.get("/metrics", headers={"authorization": "Bearer labeller-token"})
    ).text

    assert first.status_code == 200, first.text
    assert counted(first) == {"joined": 2, "repeated": 1, "corrected": 1, "orphan": 1, "late": 1}
    assert first.json()["unknown"] == [{"index": 4, "names": of(77, 1)["prediction_id"]}]
    assert counted(again) == {"repeated": 1}
    assert 'sluice_labels_total{model="demo",outcome="joined"} 2.0' in metrics
    assert 'sluice_labels_total{model="demo",outcome="repeated"} 2.0' in metrics
    assert 'sluice_labels_total{model="demo",outcome="late"} 1.0' in metrics


async def test_one_invalid_label_and_none_is_taken(gateway: LabelGateway) -> None:
    """400 names every such item by its index; with `partial` the others are taken."""
    items = [of(0, 1), of(1, 2), {"label": 1}, of(2, 0)]

    refused = await gateway.send(*items)
    after = (await gateway.performance())["labels"]["kept"]
    partial = await gateway.send(*items, partial=True)

    assert refused.status_code == 400
    assert "nothing was taken" in refused.json()["error"]
    assert "label 1: `label` is 2, and the model's task is binary" in refused.json()["error"]
    assert "label 2: a label needs either `prediction_id` or" in refused.json()["error"]
    assert after == 0
    assert counted(partial) == {"joined": 2}
    assert [one["index"] for one in partial.json()["invalid"]] == [1, 2]


async def test_labels_need_the_role_operator(gateway: LabelGateway) -> None:
    """Nobody writes the truth without a credential, nor with one that may only infer."""
    anonymous = await gateway.http.post("/api/v1/labels", json={"labels": []})
    app = await gateway.send(of(0, 1), who="app")

    assert anonymous.status_code == 401
    assert app.status_code == 403
    assert (await gateway.performance())["labels"]["kept"] == 0


async def test_json_lines_are_taken_too(gateway: LabelGateway) -> None:
    """One item a line; `model` and `source` come from the query; a broken line is named."""
    headers = {"authorization": "Bearer labeller-token", "content-type": "application/x-ndjson"}
    lines = b'{"entity":{"person_id":3},"time":"2026-01-01T01:00Z","label":true}\n\n'

    taken = await gateway.http.post("/api/v1/labels?model=demo", content=lines, headers=headers)
    broken = await gateway.http.post("/api/v1/labels", content=b"{}\n{", headers=headers)

    # It came ten months after the horizon, since it does not say when it was known.
    assert counted(taken) == {"late": 1}
    assert broken.status_code == 400
    assert "line 2 of the body is no JSON" in broken.json()["error"]


async def test_an_entity_and_a_time_mean_the_newest_prediction_before_it(
    gateway: LabelGateway,
) -> None:
    """Not one after it, not one older than the tolerance; shadows get the label as well."""
    person = {"entity.person_id": 500}
    shadow = {"version": "v2", "role": "shadow", "prediction_id": prediction_id(START + 20, 81)}
    parquet_log.write_log(
        gateway.log,
        [
            row(START, 80, score=0.1, **person),
            row(START + 20, 81, score=0.9, **person),
            row(START + 21, 81, score=0.2, **person, **shadow),
            row(START + 40, 82, score=0.1, **person),
        ],
        "more",
    )
    item = {
        "entity": {"person_id": 500},
        "time": int((START + 30) * 1e3),
        "label": 1,
        "label_time": int((START + 35) * 1e3),
        "model": "demo",
    }

    answer = await gateway.send(item, {**item, "time": int((START + 300) * 1e3), "tolerance": 60})
    groups = {one["role"]: one for one in (await gateway.performance())["groups"]}

    assert counted(answer) == {"joined": 1, "orphan": 1}
    assert groups["production"]["labelled"] == 1
    assert figure(groups["production"], "accuracy")["value"] == 1.0
    assert groups["shadow"]["labelled"] == 1
    assert figure(groups["shadow"], "accuracy")["value"] == 0.0


async def test_a_hidden_key_is_found_by_its_digest(tmp_path: Path) -> None:
    """Where the log keeps a digest of a key, the store of labels does too."""
    gateway = LabelGateway(tmp_path)
    digest = digest_with(LogFolder(gateway.log).hash_key())
    hidden = {"entity.person_id": digest(7)}
    parquet_log.write_log(gateway.log, [row(START, 0, **hidden)])
    await gateway.start(
        {"prediction": {"score": "probabilities[1]"}}, log={"fields": {"person_id": "hash"}}
    )
    item = {"entity": {"person_id": 7}, "time": int((START + 9) * 1e3), "label": 1, "model": "demo"}

    answer = await gateway.send({**item, "label_time": int((START + 9) * 1e3)})
    journal = (gateway.log / "labels" / "journal.jsonl").read_text()
    await gateway.close()

    assert counted(answer) == {"joined": 1}
    assert digest(7) in journal
    assert '"person_id=7"' not in journal


async def test_an_orphan_is_joined_when_its_prediction_appears(gateway: LabelGateway) -> None:
    """It is kept, told of as an orphan until then, and counts afterwards."""
    await gateway.send(of(42, 1))
    before = await gateway.performance()

    parquet_log.write_log(gateway.log, [row(START + 60 * 42, 42)], "later")
    after = await gateway.performance()

    assert (before["labels"]["orphan"], before["labelled"]) == (1, 0)
    assert (after["labels"]["orphan"], after["labelled"]) == (0, 1)


async def test_the_newest_revision_within_the_horizon_holds(gateway: LabelGateway) -> None:
    """A correction replaces a value; one that comes too late does not."""
    await gateway.send(of(0, 0))
    wrong = await gateway.performance()
    await gateway.send(of(0, 1))
    right = await gateway.performance()
    await gateway.send(of(0, 0, label_time=int((START + 8 * 86400) * 1e3)))
    still = await gateway.performance()

    values = [figure(one["groups"][0], "accuracy")["value"] for one in (wrong, right, still)]
    assert values == [0.0, 1.0, 1.0]
    assert still["labels"] == {
        "kept": 1, "joined": 1, "late": 0, "early": 0, "orphan": 0, "unreadable": 0,
    }  # fmt: skip


async def test_labels_survive_a_restart_and_a_place_that_cannot_be_read(
    gateway: LabelGateway,
) -> None:
    """What stands around the damage counts, and the report says that there is some."""
    await gateway.send(of(0, 1))
    await gateway.stop()
    journal = gateway.log / "labels" / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'00000000 {"first": 2, "act')
    await gateway.run()

    answer = await gateway.send(of(0, 1), of(1, 1))
    report = await gateway.performance()

    assert counted(answer) == {"repeated": 1, "joined": 1}
    assert report["labelled"] == 2
    assert report["labels"]["unreadable"] == 1


async def test_a_joiner_that_dies_costs_one_answer(gateway: LabelGateway) -> None:
    """Asking again starts another."""
    await gateway.performance()
    joiner = gateway.control._labels._joiner
    assert joiner._child is not None
    joiner._child.kill()
    await joiner._child.wait()

    report = await gateway.performance()

    assert report["rows"] == 10


async def test_many_at_once_are_answered_one_after_the_other(gateway: LabelGateway) -> None:
    """Each value is taken once, whoever was first."""
    answers = await asyncio.gather(*(gateway.send(of(0, 1), of(1, 0)) for _ in range(8)))

    totals = [counted(one) for one in answers]
    assert sum(one.get("joined", 0) for one in totals) == 2
    assert sum(one.get("repeated", 0) for one in totals) == 14


async def test_another_writer_of_the_store_is_noticed(gateway: LabelGateway) -> None:
    """Two control processes must not number the same revisions."""
    store = LabelStore(gateway.log / "labels")

    answer = await gateway.send(of(0, 1))
    store.close()
    after = await gateway.send(of(0, 1))

    assert answer.status_code == 503
    assert "another process writes the labels" in answer.json()["error"]
    assert counted(after) == {"joined": 1}


async def test_without_a_log_labels_are_refused(tmp_path: Path) -> None:
    """There is nothing to join them with; the message says what to do."""
    gateway = LabelGateway(tmp_path)
    await gateway.start(logs=False)

    answer = await gateway.send(of(0, 1))
    await gateway.close()

    assert answer.status_code == 400
    assert "`log` in gateway.yaml" in answer.json()["error"]
