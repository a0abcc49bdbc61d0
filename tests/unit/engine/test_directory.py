import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.engine.directory import DataDirectory, short_alias
from serving.errors import EngineError


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A directory whose path leaves room for socket names."""
    with tempfile.TemporaryDirectory(prefix="sl") as home:
        yield Path(home)


@pytest.fixture
def deep(short_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory too deep for sockets, with temporary names kept in `short_home`."""
    runtime = short_home / "r"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    return short_home / ("d" * 60) / ("e" * 60)


def test_a_second_engine_on_one_directory_is_refused(short_home: Path) -> None:
    """Two engines would run two stores on the same files."""
    first, second = DataDirectory(short_home / "data"), DataDirectory(short_home / "data")
    first.claim()
    try:
        with pytest.raises(EngineError, match="another gateway is running"):
            second.claim()
        assert (first.run / "engine.lock").exists()
    finally:
        first.release()


def test_release_leaves_the_data_and_nothing_else(short_home: Path) -> None:
    """Sockets, report and lock go; the store's files stay; the next claim works."""
    directory = DataDirectory(short_home / "data")
    directory.claim()
    for name in ("worker-0.sock", "engine.json", "engine.json.new"):
        (directory.run / name).touch()
    (directory.store / "kept").touch()

    directory.release()

    assert list(directory.run.iterdir()) == []
    assert (directory.store / "kept").exists()
    directory.claim()
    directory.release()


def test_what_a_killed_engine_left_is_cleared(short_home: Path) -> None:
    """Stale sockets and a stale report do not survive the next claim."""
    run = short_home / "data" / "run"
    run.mkdir(parents=True)
    for name in ("worker-7.sock", "control.sock", "engine.json", "engine.lock"):
        (run / name).touch()
    directory = DataDirectory(short_home / "data")

    directory.claim()

    assert [path.name for path in run.iterdir()] == ["engine.lock"]
    directory.release()


def test_only_the_owner_may_look_inside(short_home: Path) -> None:
    """The directory holds a token and predictions."""
    directory = DataDirectory(short_home / "data")
    directory.claim()
    try:
        for path in (directory.real_path, directory.run, directory.store):
            assert path.stat().st_mode & 0o777 == 0o700
    finally:
        directory.release()


def test_a_directory_that_cannot_be_written_is_refused_by_name(short_home: Path) -> None:
    """The message names the directory and the option (a file stands in its way)."""
    (short_home / "data").touch()

    with pytest.raises(EngineError, match=r"data directory .* cannot be used: .*--data"):
        DataDirectory(short_home / "data").claim()


def test_a_short_path_needs_no_alias(short_home: Path) -> None:
    """Ordinary directories are used under their own name."""
    assert DataDirectory(short_home).path == short_home


def test_a_deep_directory_gets_sockets_that_can_be_bound(deep: Path) -> None:
    """The alias leads to the real directory and is short enough for the kernel."""
    directory = DataDirectory(deep)
    directory.claim()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory.worker_socket(255)))
            assert (deep / "run" / "worker-255.sock").exists()
    finally:
        directory.release()

    assert not directory.path.is_symlink()


def test_an_alias_is_found_again_by_readers(deep: Path) -> None:
    """Another process computes the same name."""
    assert DataDirectory(deep).path == short_alias(deep)


def test_an_alias_left_by_a_killed_engine_is_used_again(deep: Path) -> None:
    """A stale link neither stops the start nor points elsewhere afterwards."""
    directory = DataDirectory(deep)
    directory.path.parent.mkdir(mode=0o700, parents=True)
    directory.path.symlink_to("/nonexistent")

    directory.claim()

    assert directory.path.readlink() == deep
    directory.release()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_an_alias_folder_that_others_can_enter_is_refused(deep: Path, mode: int) -> None:
    """Whoever owns that folder could swap the gateway's sockets."""
    folder = short_alias(deep).parent
    folder.mkdir(parents=True)
    folder.chmod(mode)

    with pytest.raises(EngineError, match="only you can enter"):
        DataDirectory(deep).claim()


def test_an_alias_folder_that_is_a_link_is_refused(deep: Path, short_home: Path) -> None:
    """A link planted in a shared temporary directory is not followed."""
    elsewhere = short_home / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder = short_alias(deep).parent
    folder.symlink_to(elsewhere)

    with pytest.raises(EngineError, match="only you can enter"):
        DataDirectory(deep).claim()
    assert os.listdir(elsewhere) == []  # noqa: PTH208


def test_a_refused_claim_leaves_no_directory_that_was_not_there(short_home: Path) -> None:
    """Also not the ones above it; a directory that was there stays, even if it is empty."""
    (short_home / "mine").mkdir()

    with pytest.raises(EngineError, match=r"MiB free, and a start needs .*--data"):
        DataDirectory(short_home / "mine" / "a" / "data").claim(least_free=1 << 62)

    assert list(short_home.iterdir()) == [short_home / "mine"]
    assert list((short_home / "mine").iterdir()) == []


def test_a_release_without_data_leaves_no_directory_either(short_home: Path) -> None:
    """What failed right after the claim, on a port in use say, is as if it had never been."""
    directory = DataDirectory(short_home / "a" / "data")
    directory.claim()

    directory.release()

    assert list(short_home.iterdir()) == []


def test_a_node_that_nobody_claims_the_directory_on_may_use_it(tmp_path: Path) -> None:
    """Under its short name too, which otherwise only a claim makes; again and again."""
    real = tmp_path / ("d" * 90) / "data"
    directory = DataDirectory(real)
    assert directory.path != real

    directory.visit()
    directory.visit()
    (directory.run / "here").touch()

    assert (real / "run" / "here").exists()
    directory.path.unlink()
