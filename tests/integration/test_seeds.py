"""Seeds: loaded by `python -m serving.engine.seed` once, and never over somebody's work."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import psutil
import pytest
import store_kit
import yaml

from feature_cache.keys import KeySpace
from serving.config.keys import STORE_VARIABLE
from serving.engine.seeding import Seeding

SPACE = KeySpace("default", "profile", {"person_id": "int64"})
VIEW = {
    "view": "profile",
    "entity": {"person_id": "int64"},
    "fields": {"age": {"type": "float32", "default": 40}},
    "seed": "../people.csv",
}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration whose one view has a seed of three people, one of them unfit."""
    folder = tmp_path / "conf"
    gateway_kit.write_gateway(folder)
    (folder / "features").mkdir()
    (folder / "features" / "profile.yaml").write_text(yaml.safe_dump(VIEW))
    (folder / "people.csv").write_text("person_id,age\n1,11\n2,22\n3,old\n")
    return folder


def seed(conf: Path, valkey: store_kit.ValkeyServer) -> tuple[int, list[Any]]:
    """Run the program; its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine.seed", "--config", str(conf)],
        env={**os.environ, STORE_VARIABLE: valkey.url},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_seed_is_loaded_once(conf: Path, valkey: store_kit.ValkeyServer) -> None:
    """A second start leaves alone what is there, whatever has become of it."""
    first = seed(conf, valkey)
    valkey.client().delete(SPACE.key([1]))
    second = seed(conf, valkey)

    assert first == (
        0, [{"view": "profile", "written": 2, "rejected": 1, "known": False, "problem": ""}]
    )  # fmt: skip
    assert (second[0], second[1][0]["known"]) == (0, True)
    assert not valkey.client().exists(SPACE.key([1]))
    assert valkey.client().exists(SPACE.key([2]))


def test_a_view_that_somebody_has_written_is_left_alone(
    conf: Path, valkey: store_kit.ValkeyServer
) -> None:
    """Its field list is there, though no seed was loaded."""
    valkey.client().hset(SPACE.schemas, "00", "x")

    assert seed(conf, valkey)[1][0]["known"]


def test_a_seed_that_was_cut_short_is_loaded_again(
    conf: Path, valkey: store_kit.ValkeyServer
) -> None:
    """Ctrl-C while `sluice up` starts leaves no half-full view."""
    valkey.client().hset(SPACE.schemas, "00", "x")
    valkey.client().set(SPACE.seed, "unfinished")

    assert seed(conf, valkey)[1][0]["written"] == 2
    assert valkey.client().get(SPACE.seed) == b"finished"


async def test_what_goes_wrong_is_told_and_keeps_nothing_from_starting(
    conf: Path, valkey: store_kit.ValkeyServer
) -> None:
    """The stage is done either way; the reason is a log line."""
    (conf / "people.csv").write_text("person,age\n1,11\n")
    said: list[str] = []
    seeding = Seeding(
        conf, 1, lines=lambda name, text: said.append(f"{name}: {text}"), on_change=lambda: None
    )
    await seeding.run(valkey.url)

    assert seeding.done
    assert seeding.text == "not loaded; see above"
    assert len(said) == 1
    assert "features: the seed of profile is not loaded: people.csv has no person_id" in said[0]


async def test_a_start_that_is_given_up_ends_the_loading(conf: Path, tmp_path: Path) -> None:
    """No process is left that waits for a store for a minute."""
    seeding = Seeding(conf, 1, lines=lambda _name, _text: None, on_change=lambda: None)
    running = asyncio.create_task(seeding.run(f"unix://{tmp_path}/nobody.sock"))
    me = psutil.Process()
    before = set(me.children())
    while not (mine := set(me.children()) - before):
        await asyncio.sleep(0.01)

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert not any(child.is_running() for child in mine)
