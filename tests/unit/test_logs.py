"""Log lines: one an event, whatever is in it, in both styles."""

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest

from serving import logs

PROCESS = "worker-of-log-tests"
NASTY = {
    "a newline": "one\ntwo",
    "a carriage return": "one\rtwo",
    "an escape sequence": "\x1b[31mred\x1b[0m",
    "an eight-bit escape": "\x9b31mred",
    "a null": "a\x00b",
    "a deletion": "a\x7fb",
    "a line separator": "one\u2028two\u2029three\u0085four",
    "a change of direction": "abc\u202etxt.exe",
    "half a surrogate pair": "file-\udcff",
}


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Other tests find logging as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    for name in ("sluice", PROCESS):
        logging.getLogger(name).setLevel(logging.NOTSET)


class Written:
    """What went to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def getvalue(self) -> str:
        """All of it, since the last call."""
        return self._capsys.readouterr().err


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Written:
    """Standard error, as logging writes it."""
    return Written(capsys)


def test_a_text_line_has_time_level_process_and_message(lines: Written) -> None:
    """What a person reads first is in the same columns of every line."""
    logs.configure(process=PROCESS).warning("the %s is %d", "answer", 42)

    clock, rest = lines.getvalue().split(" ", 1)
    assert rest == f"warning {PROCESS}: the answer is 42\n"
    hours, minutes, seconds = clock.split(":")
    assert len(hours) == len(minutes) == 2
    assert len(seconds) == len("59.999")


def test_a_json_line_is_one_object(lines: Written) -> None:
    """What a program reads has the fields by name, and the time in seconds since 1970."""
    logs.configure(style="json", process=PROCESS).error("it is %s", "späť")

    entry = json.loads(lines.getvalue())
    assert entry.pop("time") > 1_700_000_000
    assert entry == {"level": "error", "process": PROCESS, "message": "it is späť"}


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_a_message_cannot_forge_a_line_or_steer_a_terminal(
    lines: Written, style: Literal["text", "json"], text: str
) -> None:
    """Whatever is in a message, it is one line of printable characters that UTF-8 can carry."""
    logs.configure(style=style).warning("got %s", text)

    written = lines.getvalue()
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    assert written.encode().isascii()
    if style == "json":
        assert json.loads(written)["message"] == f"got {text}"


def test_ordinary_text_is_left_readable(lines: Written) -> None:
    """Letters of any language, quotes and backslashes stay what they are."""
    logs.configure().warning("naïve 漢字 'x' \\ \"y\"")

    assert lines.getvalue().endswith("sluice: naïve 漢字 'x' \\ \"y\"\n")


def refuse(text: str) -> None:
    """Raise what says `text`."""
    raise ValueError(text)


def fail(text: str) -> None:
    """Log an exception that says `text`."""
    try:
        refuse(text)
    except ValueError:
        logging.getLogger("sluice").exception("it failed")


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_an_exception_cannot_forge_a_line_either(lines: Written, text: str) -> None:
    """A traceback has lines of its own, all of them indented, none of them beginning an event."""
    logs.configure()

    fail(text)

    head, *traceback = lines.getvalue().removesuffix("\n").split("\n")
    assert head.endswith("error   sluice: it failed")
    assert traceback[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in traceback)
    assert "ValueError: " in "\n".join(traceback)


def test_an_exception_in_json_is_in_the_same_object(lines: Written) -> None:
    """A program that reads line by line gets event and traceback together."""
    logs.configure(style="json")

    fail("one\ntwo")

    written = lines.getvalue()
    entry = json.loads(written)
    assert written.count("\n") == 1
    assert entry["message"] == "it failed"
    assert entry["exception"].startswith("Traceback (most recent call last):\n")
    assert entry["exception"].endswith("ValueError: one\ntwo")


def test_the_level_is_the_processs_own(lines: Written) -> None:
    """Debug output of the process does not bring that of every library with it."""
    logger = logs.configure("debug", process=PROCESS)

    logger.debug("ours")
    logging.getLogger("library").info("theirs")
    logging.getLogger("library").warning("theirs, and important")

    assert [line.split(": ")[1] for line in lines.getvalue().splitlines()] == [
        "ours",
        "theirs, and important",
    ]


def test_below_the_level_nothing_is_written(lines: Written) -> None:
    """At `error`, warnings are not worth a line."""
    logger = logs.configure("error", process=PROCESS)

    logger.warning("not worth it")
    logger.error("worth it")

    assert lines.getvalue().count("\n") == 1


def test_setting_up_again_replaces(lines: Written) -> None:
    """A second set-up changes the style and doubles nothing."""
    logs.configure(process=PROCESS)
    logs.configure(style="json", process=PROCESS).warning("once")

    assert json.loads(lines.getvalue())["message"] == "once"
