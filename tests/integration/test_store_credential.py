"""The store's password, which everybody who can run `ps` would like to see."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import control_kit
import gateway_kit
import onnx_models
import psutil
import pytest

from serving.config.keys import STORE_VARIABLE
from serving.control import process as control_process
from serving.worker import command_line

PASSWORD = "hush-nobody-may-read-this"


def test_no_child_shows_the_stores_password_to_other_users(tmp_path: Path) -> None:
    """A gateway on a store with a password serves, and no command line of it holds that."""
    store = control_kit.Valkey(tmp_path / "store", "--requirepass", PASSWORD)
    directory = tmp_path / "gateway"
    gateway_kit.write_gateway(directory, store=f"unix://:{PASSWORD}@{store.socket}")
    gateway_kit.write_model(directory, "m", {"v1": onnx_models.doubler()}, {})
    try:
        with gateway_kit.running(directory, "--workers", "2") as running:
            processes = psutil.Process(running.process.pid).children(recursive=True)
            commands = {process.pid: process.cmdline() for process in processes}
            answer = running.ask(f"{running.admin}/api/v1/status")
    finally:
        store.stop()

    assert answer[0] == 200
    assert answer[1]["store"]["up"]
    modules = {word for command in commands.values() for word in command if "process" in word}
    assert modules == {"serving.control.process", "serving.worker.process"}
    for command in commands.values():
        assert PASSWORD not in " ".join(command)


Read = Callable[[list[str]], argparse.Namespace]
READERS = {
    "control": (control_process.parse_arguments, ["--admin", "a:1"]),
    "worker": (command_line.parse_arguments, ["--worker", "0", "--http", "a:1", "--grpc", "a:2"]),
}


@pytest.mark.parametrize(("read", "more"), READERS.values(), ids=READERS)
def test_the_stores_address_is_taken_out_of_the_environment(
    read: Read, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that this one starts does not inherit the password."""
    monkeypatch.setenv(STORE_VARIABLE, "redis://:hush@store:6379")

    arguments = read(["--data", "d", "--config", "c", *more])

    assert arguments.store == "redis://:hush@store:6379"
    assert STORE_VARIABLE not in os.environ


@pytest.mark.parametrize(("read", "more"), READERS.values(), ids=READERS)
def test_a_process_started_by_hand_may_name_the_store(
    read: Read, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--store` goes on working, and wins over the environment."""
    monkeypatch.setenv(STORE_VARIABLE, "redis://elsewhere:6379")

    assert read(["--data", "d", "--config", "c", *more, "--store", "unix:///s"]).store == (
        "unix:///s"
    )


@pytest.mark.parametrize(("read", "more"), READERS.values(), ids=READERS)
def test_a_process_without_a_store_says_how_to_name_one(
    read: Read,
    more: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Everything else is given, so the message is about the store alone."""
    monkeypatch.delenv(STORE_VARIABLE, raising=False)

    with pytest.raises(SystemExit):
        read(["--data", "d", "--config", "c", *more])

    assert "required: --store" in capsys.readouterr().err
