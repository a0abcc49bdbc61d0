"""A shadow that does worse for some people is not made production."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import parquet_log
import pytest
from label_kit import LabelGateway
from parquet_log import prediction_id, row

PEOPLE = 1600


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LabelGateway]:
    """v1 in production; v2 came out of a training and is a shadow."""
    made = LabelGateway(tmp_path)
    yield made
    await made.close()


def model(gateway: LabelGateway, **traffic: Any) -> None:
    """Write the model's file: v2 is a candidate."""
    versions = {
        name: {"path": f"../artifacts/{name}.onnx", "sha256": digest}
        for name, digest in gateway.config.digests.items()
    }
    versions["v2"]["candidate"] = True
    gateway.config.model(
        versions=versions,
        inputs={"X": {"features": ["person.*"]}},
        monitoring={
            "prediction": {"decision": "label", "score": "probabilities[1]"},
            "slices": ["sex"],
        },
        traffic=traffic,
    )


async def start(gateway: LabelGateway) -> None:
    """Publish v2 as a shadow."""
    await gateway.start()
    model(gateway, production="v1", shadow=[{"version": "v2"}])
    assert (await apply(gateway)).status_code == 200


async def apply(gateway: LabelGateway) -> Any:
    """Apply what is written."""
    token = (gateway.data / "admin.token").read_text().strip()
    return await gateway.http.post(
        "/api/v1/config/apply",
        json={"directory": str(gateway.config.root), "wait_seconds": 0},
        headers={"authorization": f"Bearer {token}"},
    )


async def answered(gateway: LabelGateway, *, wrong: dict[int, float]) -> None:
    """Log people whom v1 is right about in 80 %; v2 is wrong in so many, by sex. All labelled."""
    chance = np.random.default_rng(5)
    now = time.time() + 0.5
    rows, labels = [], []
    for number in range(PEOPLE):
        at, sex, true = now + number * 0.001, 1 + number % 2, int(chance.random() < 0.5)
        for version, role, share in (("v1", "production", 0.2), ("v2", "shadow", wrong[sex])):
            said = true if chance.random() >= share else 1 - true
            more: dict[str, Any] = {"feature.sex": float(sex)}
            score = 0.9 if said else 0.1
            rows.append(row(at, number, version=version, role=role, score=score, **more))
        labels.append({"prediction_id": prediction_id(at, number), "label": true})
    parquet_log.write_log(gateway.log, rows)
    sent = [await gateway.send(*labels[at : at + 800]) for at in range(0, PEOPLE, 800)]
    assert all(one.json()["joined"] == 800 for one in sent), [one.text for one in sent]


async def test_a_slice_that_is_worse_refuses_the_candidate(gateway: LabelGateway) -> None:
    """Although it is better on the whole."""
    await start(gateway)
    await answered(gateway, wrong={1: 0.0, 2: 0.35})
    model(gateway, production="v2")

    refused = await apply(gateway)

    assert refused.status_code == 400
    assert "demo/v2 does worse than v1 as a shadow: sex=2: accuracy" in refused.json()["error"]
    assert len(refused.json()["problems"]) == 1
    assert gateway.control.publisher.current is not None
    assert gateway.control.publisher.current.models["demo"].traffic.production == "v1"


async def test_a_candidate_that_is_no_worse_for_anybody_is_taken(gateway: LabelGateway) -> None:
    """Without a warning: everything could be compared."""
    await start(gateway)
    await answered(gateway, wrong={1: 0.1, 2: 0.2})
    model(gateway, production="v2")

    taken = await apply(gateway)

    assert taken.status_code == 200, taken.text
    assert not [line for line in taken.json()["warnings"] if "slice" in line]


async def test_without_labels_it_is_taken_with_a_warning(gateway: LabelGateway) -> None:
    """Nothing says that it is worse; somebody should know that nothing could."""
    await start(gateway)
    model(gateway, production="v2")

    taken = await apply(gateway)

    assert taken.status_code == 200, taken.text
    assert [line for line in taken.json()["warnings"] if "slice" in line] == [
        "demo/v2: no slice has labels enough to be compared"
    ]
