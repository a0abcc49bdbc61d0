"""`--watch` with a real gateway: what passes is served, what does not is told of."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from gateway_kit import SLUICE, Running, running, write_gateway, write_model

VERSIONS = {"v1": onnx_models.doubler(), "v2": onnx_models.linear(1, 1)}


def write(directory: Path, production: str) -> None:
    """The whole configuration, with this version in production."""
    write_gateway(directory)
    write_model(directory, "demo", VERSIONS, {"production": production})


def until(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it comes to hold in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def status(gateway: Running) -> Any:
    """What control says of itself."""
    return gateway.ask(f"{gateway.admin}/api/v1/status")[1]


def production(gateway: Running) -> str:
    """Who answers now."""
    [model] = gateway.ask(f"{gateway.admin}/api/v1/config")[1]["models"].values()
    return str(model["traffic"]["production"])


@contextlib.contextmanager
def watching(gateway: Running, directory: Path) -> Iterator[Callable[[], str]]:
    """`sluice apply DIR --watch`; gives what it has said so far."""
    log = gateway.folder / "watch.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [SLUICE, "apply", directory, "--watch", "--data", gateway.data],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield log.read_text
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With v1 in production."""
    made = tmp_path_factory.mktemp("configuration")
    write(made, "v1")
    return made


@pytest.fixture(scope="module")
def watcher(directory: Path) -> Iterator[Running]:
    """A gateway that watches its own directory."""
    with running(directory, "--watch") as made:
        yield made


@pytest.fixture
def gateway(watcher: Running, directory: Path) -> Running:
    """The same, with v1 in production again, whatever another test has left."""
    (directory / "models" / "other.yaml").unlink(missing_ok=True)
    write(directory, "v1")
    assert watcher.apply(directory)[0] == 200
    return watcher


def test_up_applies_what_changes(gateway: Running, directory: Path) -> None:
    """And the history says of which files it was."""
    before = status(gateway)["origin"]["digest"]
    write(directory, "v2")
    served = until(lambda: production(gateway) == "v2")
    after = status(gateway)["origin"]["digest"]
    entries = gateway.ask(f"{gateway.admin}/api/v1/history")[1]["entries"]

    assert served
    assert before != after
    assert (entries[0]["origin"]["digest"], entries[0]["reason"]) == (after, "watch")


def test_up_keeps_the_last_good_one(gateway: Running, directory: Path) -> None:
    """A mistake is not served, and mending it is."""
    write(directory, "v9")
    write_model(directory, "other", VERSIONS, {"production": "v1"})
    log = gateway.folder / f"{directory.name}.log"
    told = until(lambda: "`v9` is none of `versions`" in log.read_text())
    meanwhile = gateway.ask(f"{gateway.admin}/api/v1/config")[1]["models"]
    write(directory, "v1")
    mended = until(lambda: "other" in gateway.ask(f"{gateway.admin}/api/v1/config")[1]["models"])

    assert told, log.read_text()
    assert list(meanwhile) == ["demo"]
    assert mended


def test_apply_watches_a_link_that_is_turned(gateway: Running, tmp_path: Path) -> None:
    """As git-sync does; the mistake in between is told, and not served."""
    for name, version in (("one", "v1"), ("two", "v9"), ("three", "v2")):
        write(tmp_path / name, version)
    link = tmp_path / "current"

    def turn(name: str) -> None:
        turned = tmp_path / "turned"
        turned.symlink_to(name)
        turned.replace(link)

    turn("one")
    with watching(gateway, link) as said:
        began = until(lambda: "serves this already" in said() or "published" in said())
        turn("two")
        told = until(lambda: "`v9` is none of `versions`" in said())
        meanwhile = production(gateway)
        turn("three")
        served = until(lambda: production(gateway) == "v2")

    assert began, said()
    assert told, said()
    assert meanwhile == "v1"
    assert served, said()
    assert said().count("`v9` is none of `versions`") == 1
