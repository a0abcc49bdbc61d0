"""When a directory that is watched is applied, and what is said of it."""

from pathlib import Path

import pytest

from serving.cli.output import Unreachable
from serving.cli.watching import Watcher
from serving.clock import ManualClock
from serving.config.load import content_digest
from serving.errors import Conflict, InvalidConfig, SluiceError


class Watched:
    """A directory, its watcher, and what came of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = ManualClock()
        self.applied: list[str] = []
        self.tries = 0
        self.said: list[tuple[str, bool]] = []
        self.refusal: SluiceError | None = None
        self.watcher = Watcher(root, self.apply, self.hear, self.clock)

    def write(self, text: str, file: str = "gateway.yaml") -> None:
        """Write a file."""
        (self.root / file).write_text(text)

    def apply(self, digest: str) -> str:
        """Stand for control."""
        self.tries += 1
        if self.refusal is not None:
            raise self.refusal
        self.applied.append(digest)
        return "published"

    def hear(self, words: str, wrong: bool) -> None:
        """Stand for a person."""
        self.said.append((words, wrong))

    def pass_by(self, seconds: int) -> None:
        """Look every second."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            self.watcher.look()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """With a first content."""
    (tmp_path / "models").mkdir()
    made = Watched(tmp_path)
    made.write("schema_version: 1\n")
    return made


def test_what_stands_still_is_applied_once(watched: Watched) -> None:
    """With its digest, so that control can refuse others."""
    watched.pass_by(10)

    assert watched.applied == [content_digest(watched.root)]
    assert watched.said == [("published", False)]


def test_a_change_is_applied(watched: Watched) -> None:
    """And going back to what was before is one too."""
    watched.pass_by(5)
    watched.write("schema_version: 1\n# more\n")
    watched.pass_by(5)
    watched.write("schema_version: 1\n")
    watched.pass_by(5)

    assert len(watched.applied) == 3
    assert watched.applied[0] == watched.applied[2]


def test_what_still_changes_is_not_applied(watched: Watched) -> None:
    """Somebody who copies file after file is waited for."""
    for number in range(6):
        watched.write(f"model: m{number}\n", f"models/m{number}.yaml")
        watched.pass_by(1)
    meanwhile = list(watched.applied)
    watched.pass_by(5)

    assert meanwhile == []
    assert watched.applied == [content_digest(watched.root)]


def test_a_symbolic_link_that_is_turned_is_seen(tmp_path: Path) -> None:
    """As git-sync replaces the directory, and Kubernetes what is in it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gateway.yaml").write_text(f"# {name}\n")
    link, turned = tmp_path / "current", tmp_path / "turned"
    link.symlink_to("one")
    watched = Watched(link)
    watched.pass_by(5)
    turned.symlink_to("two")
    turned.replace(link)
    watched.pass_by(5)

    assert len(set(watched.applied)) == 2


def test_a_mistake_is_told_once(watched: Watched) -> None:
    """However often it is tried again; what is served goes on."""
    watched.refusal = InvalidConfig("mistakes", ("models/demo.yaml:1:1: error: x",))
    watched.pass_by(60)

    assert watched.tries > 2
    assert watched.said == [
        ("models/demo.yaml:1:1: error: x\nnot applied: what is served goes on", True)
    ]


def test_another_mistake_is_told(watched: Watched) -> None:
    """Of the same content too: a model file was missing, and now it is another one."""
    watched.refusal = InvalidConfig("mistakes", ("first",))
    watched.pass_by(20)
    watched.refusal = InvalidConfig("mistakes", ("second",))
    watched.pass_by(20)

    assert [words.splitlines()[0] for words, _ in watched.said] == ["first", "second"]


def test_what_was_refused_is_applied_once_it_fits(watched: Watched) -> None:
    """Without a change of the files: a model file has come, or a rollout has ended."""
    watched.refusal = InvalidConfig("mistakes", ("the model file is missing",))
    watched.pass_by(5)
    watched.refusal = None
    watched.pass_by(20)

    assert len(watched.applied) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            Unreachable("nobody answers", hint="start one"),
            "nobody answers (start one); tried again",
        ),
        (Conflict("the files have changed", 3), "not applied: the files have changed"),
    ],
)
def test_who_does_not_answer_is_asked_again(
    watched: Watched, error: SluiceError, words: str
) -> None:
    """Told once, and applied when it works."""
    watched.refusal = error
    watched.pass_by(40)
    watched.refusal = None
    watched.pass_by(20)

    assert [wrong for _, wrong in watched.said] == [True, False]
    assert words in watched.said[0][0]
