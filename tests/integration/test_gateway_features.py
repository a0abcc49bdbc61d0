"""Features from the store, through a whole gateway: a client sends who, and nothing else."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import feature_kit
import gateway_kit
import httpx
import numpy as np
import pytest
from ray_kit import ON_RAY

from feature_cache.views import FeatureView
from serving.config.load import load_directory

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo"
PERSON_42 = json.loads((DEMO / "example-request-features.json").read_text())["inputs"]
SENT = {tensor["name"]: tensor["data"][0] for tensor in PERSON_42}
VIEWS = load_directory(DEMO).configuration.views


@pytest.fixture(scope="module", params=["local", ON_RAY])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """The demo on free ports, every request copied to v2; with each engine."""
    folder = tmp_path_factory.mktemp("features") / "demo"
    for part in ("models", "features", "artifacts"):
        shutil.copytree(DEMO / part, folder / part)
    for view in (folder / "features").iterdir():
        view.write_text(view.read_text().replace("seed: ../data/people.parquet\n", ""))
    model = folder / "models" / "employment.yaml"
    model.write_text(
        model.read_text()
        .replace("percent: 25", "percent: 100")
        .replace("shadow: 25", "shadow: 100")
    )
    engine = {"kind": request.param, "worker_cpus": 0.5}
    gateway_kit.write_gateway(folder, engine=engine, features={"timeout": "2s"})
    with gateway_kit.running(folder) as running:
        yield running


def write(running: gateway_kit.Running, person: int, *, ago: float = 0.0, **more: Any) -> None:
    """Put person 42's features, or others, under another number."""
    values = {**SENT, **more}
    views: list[FeatureView] = list(VIEWS.values())

    async def load() -> None:
        url = f"unix://{running.data / 'store' / 'store.sock'}"
        async with feature_kit.over_server(url, views) as bench:
            for view in views:
                await bench.cache.write(
                    view.view,
                    {"person_id": [person]},
                    {name: [values[name]] for name in view.fields},
                    np.array([round((time.time() - ago) * 1e3)]),
                )

    asyncio.run(load())


def ask(running: gateway_kit.Running, *people: int, **sent: list[Any]) -> Any:
    """The answer for these people."""
    inputs: list[dict[str, Any]] = [
        {"name": "person_id", "datatype": "INT64", "shape": [len(people)], "data": list(people)}
    ]
    for name, data in sent.items():
        inputs.append({"name": name, "datatype": "FP32", "shape": [len(data)], "data": data})
    status, answer = running.infer("employment", inputs)
    assert status == 200, answer
    return answer


def score(answer: Any) -> list[float]:
    """The outputs' probabilities, flat."""
    return list(next(o["data"] for o in answer["outputs"] if o["name"] == "probabilities"))


def test_who_is_enough(demo: gateway_kit.Running) -> None:
    """The same answer as with every feature sent, and word of where they came from."""
    write(demo, 42, ago=5)
    _, whole = demo.infer("employment", PERSON_42)

    answer = ask(demo, 42)

    assert score(answer) == score(whole)
    assert answer["parameters"]["feature_status"] == "OK"
    assert answer["parameters"]["feature_age_ms"] >= 5000
    assert "feature_status" not in whole["parameters"]


def test_somebody_unknown_gets_the_defaults_and_is_told(demo: gateway_kit.Running) -> None:
    """Per view, in words."""
    answer = ask(demo, 999_999)

    status = answer["parameters"]["feature_status"]
    assert "person_profile=DEFAULTED|NOT_FOUND" in status
    assert "person_household=DEFAULTED|NOT_FOUND" in status
    assert "feature_age_ms" not in answer["parameters"]


def test_a_feature_sent_along_wins(demo: gateway_kit.Running) -> None:
    """One feature from the request, fifteen from the store."""
    write(demo, 43)
    write(demo, 44, AGEP=80.0)

    assert score(ask(demo, 43, AGEP=[80.0])) == score(ask(demo, 44))
    assert score(ask(demo, 43)) != score(ask(demo, 44))


def test_a_batch_of_people_is_answered_like_each_alone(demo: gateway_kit.Running) -> None:
    """Known and unknown side by side."""
    write(demo, 45, AGEP=30.0)
    write(demo, 46, AGEP=70.0)

    together = score(ask(demo, 45, 888_888, 46))

    alone = [score(ask(demo, person)) for person in (45, 888_888, 46)]
    assert together == pytest.approx([value for one in alone for value in one], abs=1e-6)


def test_stale_features_are_served_and_marked(demo: gateway_kit.Running) -> None:
    """Two days old: too old for the household, not for the person."""
    write(demo, 47, ago=2 * 86400)

    status = ask(demo, 47)["parameters"]["feature_status"]

    assert "person_household=OK|STALE" in status
    assert "person_profile=OK" in status


def test_a_changed_feature_is_seen_though_it_was_kept(demo: gateway_kit.Running) -> None:
    """The near cache is told by the store."""
    write(demo, 48, ago=60, AGEP=30.0)
    before = score(ask(demo, 48))
    write(demo, 48, AGEP=80.0)
    give_up = time.monotonic() + 10

    while score(ask(demo, 48)) == before:
        assert time.monotonic() < give_up, "the old value is still served"


def test_the_shadow_is_given_what_production_was_given(demo: gateway_kit.Running) -> None:
    """Its copies are joined with the same rows and answered.

    The first ones are tried by one worker alone; those that another worker takes are dropped
    meanwhile. So it is asked until one is answered.
    """
    write(demo, 49)
    metrics = f"http://{demo.admin}/metrics"
    give_up = time.monotonic() + 20
    wanted = {
        'sluice_mirrored_total{model="employment",outcome="answered",version="v2"}',
        'sluice_feature_rows_total{status="OK",view="person_profile"}',
        'sluice_feature_age_seconds_count{view="person_household"}',
    }
    while True:
        ask(demo, 49)
        text = httpx.get(metrics).text
        if not (missing := {one for one in wanted if one not in text}):
            break
        assert time.monotonic() < give_up, missing
        time.sleep(0.05)

    assert 'outcome="failed",version="v2"' not in text


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("INT32", [1], [1], "'person_id' has datatype INT32"),
        ("INT64", [1, 2], [1, 2], "one value a row"),
        ("INT64", [0], [], "has no rows"),
    ],
)
def test_a_key_that_cannot_be_one_is_named(
    demo: gateway_kit.Running, datatype: str, shape: list[int], data: list[int], words: str
) -> None:
    """400, and the next request is answered."""
    tensor = {"name": "person_id", "datatype": datatype, "shape": shape, "data": data}

    status, answer = demo.infer("employment", [tensor])

    assert (status, words in answer["error"]) == (400, True), answer


def test_with_the_store_down_the_demo_answers_from_defaults(demo: gateway_kit.Running) -> None:
    """Killed under the gateway: not one failed request until it is back, and none after."""
    write(demo, 50, AGEP=80.0)
    [pid] = demo.pids("store")
    os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + 30
    person, seen = 700_000, set()
    while time.monotonic() < give_up and not {"down", "back"} <= seen:
        person += 1
        status = ask(demo, person)["parameters"]["feature_status"]
        if "TIMEOUT" in status:
            seen.add("down")
        elif "down" in seen:
            seen.add("back")

    assert seen == {"down", "back"}
    assert ask(demo, 50)["parameters"]["feature_status"] == "OK"


def test_an_erased_person_is_forgotten_by_the_worker_too(demo: gateway_kit.Running) -> None:
    """By the command, while the worker keeps the person's rows; a replay changes nothing."""
    write(demo, 77, ago=60)
    for _ in range(2):
        assert ask(demo, 77)["parameters"]["feature_status"] == "OK"

    done = subprocess.run(
        [
            *(gateway_kit.SLUICE, "features", "erase", "--entity", "person_id=77", "--yes"),
            *("--config", demo.folder / "demo", "--data", demo.data, "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    receipt = json.loads(done.stdout)
    assert [key["held"] for view in receipt["views"] for key in view["keys"]] == [True, True]
    give_up = time.monotonic() + 10
    while "NOT_FOUND" not in ask(demo, 77)["parameters"]["feature_status"]:
        assert time.monotonic() < give_up, "the worker still serves an erased person"
        time.sleep(0.01)
    write(demo, 77, ago=60)
    assert "NOT_FOUND" in ask(demo, 77)["parameters"]["feature_status"]
