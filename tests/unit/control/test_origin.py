"""Where a configuration comes from."""

import os
import subprocess
from pathlib import Path

import pytest

from serving.config.load import content_digest, load_directory
from serving.control.publishing.origin import Origin, origin_of

DIGEST = "0" * 64


def git(directory: Path, *arguments: str) -> str:
    """Run git there, as somebody."""
    done = subprocess.run(
        ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
    )
    return done.stdout.strip()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A configuration inside a work tree, committed."""
    made = tmp_path / "repository" / "serving"
    (made / "models").mkdir(parents=True)
    (made / "gateway.yaml").write_text("schema_version: 1\n")
    git(made.parent, "init", "--quiet")
    git(made.parent, "add", ".")
    git(made.parent, "commit", "--quiet", "-m", "Begin")
    return made


def test_a_work_tree_tells_commit_and_author(directory: Path) -> None:
    """Of what is checked out."""
    found = origin_of(directory, DIGEST)

    assert found == Origin(
        digest=DIGEST, commit=git(directory, "rev-parse", "HEAD"), author="Ada <ada@example.org>"
    )
    assert str(found) == f"commit {found.commit[:12]} by Ada <ada@example.org>"


@pytest.mark.parametrize("file", ["gateway.yaml", "models/new.yaml"])
def test_a_file_that_is_not_committed_makes_it_dirty(directory: Path, file: str) -> None:
    """Whether it was changed or is new."""
    (directory / file).write_text("schema_version: 1\n# changed\n")

    assert origin_of(directory, DIGEST).dirty
    assert str(origin_of(directory, DIGEST)).endswith(" with changes")


def test_changes_elsewhere_and_own_state_do_not_count(directory: Path) -> None:
    """Only the directory's configuration is meant."""
    (directory.parent / "notes.txt").write_text("not committed")
    (directory / ".sluice").mkdir()
    (directory / ".sluice" / "state").write_text("of the gateway")

    assert not origin_of(directory, DIGEST).dirty


def test_outside_a_work_tree_only_the_digest_is_known(tmp_path: Path) -> None:
    """That is no error."""
    found = origin_of(tmp_path, DIGEST)

    assert found == Origin(digest=DIGEST)
    assert str(found) == "files 000000000000"


def test_without_git_only_the_digest_is_known(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not be installed."""
    monkeypatch.setenv("PATH", "")

    assert origin_of(directory, DIGEST) == Origin(digest=DIGEST)


def test_the_digest_is_of_the_files_that_are_read(directory: Path) -> None:
    """By name and content; other files and a backup of an editor do not count."""
    before = content_digest(directory)
    (directory / "README.md").write_text("words")
    (directory / "models" / ".demo.yaml.swp").write_text("of an editor")
    beside = content_digest(directory)
    (directory / "gateway.yaml").write_text("schema_version: 1\n# changed\n")

    assert before == beside
    assert content_digest(directory) not in {"", before}
    assert load_directory(directory).digest == content_digest(directory)


def test_a_file_that_cannot_be_read_is_part_of_the_digest(directory: Path) -> None:
    """So that it changes when it can be read again."""
    before = content_digest(directory)
    (directory / "gateway.yaml").unlink()

    assert content_digest(directory) != before
