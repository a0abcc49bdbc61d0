"""Whatever the pages tell people to type is there: commands, options, programs, targets, tests."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from docs_kit import PAGES, ROOT, fenced, name_of, prose, quoted

from serving.cli.app import app

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PLACEHOLDER = re.compile(r"[A-Z…\[{<(|]")


def lines(page: Path) -> list[str]:
    """What a shell could be given: code in the text, and lines of blocks."""
    return [*quoted(prose(page)), *fenced(page)]


def words_of(line: str) -> list[str]:
    """A line as a shell splits it, without a comment; nothing if it is no command."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


def wrong_use(line: str) -> Iterator[str]:
    """What `sluice` would not know of a line: a command below a group, an option."""
    before, found, rest = line.partition("sluice ")
    if not found or not re.fullmatch(r"(\w+=\S+ |time |sudo |exec )*", before):
        return
    command: click.Command = app
    known = {"--help"}
    for word in words_of(re.split(r" [|>&] |;", rest)[0]):
        if word.startswith("--"):
            option = re.split(r"[=\]]", word)[0]
            if option not in known:
                yield f"{command.name} {option}"
        elif isinstance(command, click.Group):
            if PLACEHOLDER.match(word):
                return
            try:
                below = command.resolve_command(click.Context(command), [word.rstrip(",:")])[1]
            except click.UsageError:
                below = None
            if below is None:
                yield f"{command.name} {word}"
                return
            command = below
            known |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def wrong_program(line: str) -> Iterator[str]:
    """Files, modules, tests and targets of a line that are not there."""
    words = words_of(line)
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else ""
        if re.fullmatch(r"(\S*/)?(python3?|pytest|locust)", word):
            yield from _missing_files(words[at + 1 :])
            return
        if word == "make" and at == 0 and re.fullmatch(r"[a-z][a-z-]*", following):
            if following not in TARGETS:
                yield f"make {following}"
            return


def _missing_files(words: list[str]) -> Iterator[str]:
    for at, word in enumerate(words):
        if word == "-m" and at + 1 < len(words):
            module = words[at + 1].replace(".", "/")
            ours = module.split("/")[0] in {"serving", "loadtests", "feature_cache"}
            if ours and not ((ROOT / f"{module}.py").exists() or (ROOT / module).is_dir()):
                yield words[at + 1]
        file, _, test = word.partition("::")
        if re.fullmatch(r"(loadtests|tests|configs|serving)/[\w./-]+", file):
            path = ROOT / file
            if not path.exists() or f"def {test.split('[')[0]}(" not in f"{path.read_text()}def (":
                yield word


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_whatever_is_to_be_typed_is_there(page: Path) -> None:
    """Commands with their options, our programs, tests and targets of make."""
    wrong = [words for line in lines(page) for words in (*wrong_use(line), *wrong_program(line))]

    assert wrong == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("sluice up DIR --engine ray   # or local", []),
        ("sluice up DIR --engin ray", ["up --engin"]),
        ("SLUICE_TOKEN=x sluice rollout promote m --full", []),
        ("sluice rollout advance m", ["rollout advance"]),
        ("sluice drift employment --html FILE", []),
        ("sluice status --json | jq .workers --raw", []),
        ("sluice rollout VERB MODEL --anything", []),
        ("python loadtests/bench.py --rounds 5", []),
        ("python loadtests/gone.py", ["loadtests/gone.py"]),
        (".venv/bin/python -m serving.gone DIR", ["serving.gone"]),
        ("python -m serving.config.reference configs/", []),
        ("python -m json.tool", []),
        ("pytest tests/unit/test_docs.py", []),
        ("pytest tests/unit/test_docs.py::test_gone", ["tests/unit/test_docs.py::test_gone"]),
        ("make up ARGS='--engine local'", []),
        ("make breakfast", ["make breakfast"]),
        ("words about sluice gone --by", []),
    ],
)
def test_the_search_tells_what_is_there_from_what_is_not(line: str, wrong: list[str]) -> None:
    """Placeholders, comments, pipes and other people's programs are left alone."""
    assert [*wrong_use(line), *wrong_program(line)] == wrong
