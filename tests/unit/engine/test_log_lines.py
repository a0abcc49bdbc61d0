import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.log_lines import LONGEST_LINE_BYTES, LineQueue, LineSplitter, prefixed


@given(st.text(alphabet="ab\ré", max_size=40), st.integers(1, 7))
def test_lines_do_not_depend_on_how_the_bytes_arrive(text: str, step: int) -> None:
    """Any cutting of the stream into pieces yields the same lines."""
    data = (text + "\nlast\n").encode()
    splitter = LineSplitter()

    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    lines = [line for piece in pieces for line in splitter.feed(piece)]

    assert lines == [text.rstrip("\r"), "last"]
    assert splitter.finish() == []


def test_a_last_line_without_an_end_is_not_lost() -> None:
    """What a dying process wrote last comes out when its stream ends."""
    splitter = LineSplitter()
    splitter.feed(b"one\ntw")
    splitter.feed(b"o")

    assert splitter.finish() == ["two"]


def test_an_endless_line_is_cut_and_the_next_one_is_whole() -> None:
    """A line without bound keeps its beginning, says so, and costs no more memory."""
    splitter = LineSplitter()
    for _ in range(10):
        assert splitter.feed(b"x" * LONGEST_LINE_BYTES) == []

    [cut, following] = splitter.feed(b"tail\nnext\n")

    assert cut == "x" * LONGEST_LINE_BYTES + " [cut]"
    assert following == "next"


def test_bytes_that_are_not_utf8_do_not_stop_the_log() -> None:
    """Broken bytes are replaced."""
    assert LineSplitter().feed(b"a\xffb\n") == ["a�b"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [("hello", "worker-0 | hello"), ('{"process": "worker-0"}', '{"process": "worker-0"}')],
)
def test_a_text_line_names_its_process_and_json_stays_json(line: str, shown: str) -> None:
    """A machine-readable line already names its process, and a prefix would break it."""
    assert prefixed("worker-0", line) == shown


def test_lines_are_written_in_order_before_close_returns() -> None:
    """Nothing queued is lost by closing."""
    stream = io.StringIO()
    queue = LineQueue(stream)
    for n in range(100):
        queue("store", str(n))

    queue.close(10)

    assert stream.getvalue().splitlines() == [f"store    | {n}" for n in range(100)]


class BlockedStream(io.StringIO):
    """A paused terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.resume = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        """Block until resumed."""
        self.entered.set()
        assert self.resume.wait(30)
        return super().write(text)


def test_a_blocked_terminal_drops_lines_and_counts_them() -> None:
    """Callers are never blocked; past the bound lines are dropped and the number is told."""
    stream = BlockedStream()
    queue = LineQueue(stream, capacity=5)
    queue("a", "first")
    assert stream.entered.wait(30)

    for n in range(8):
        queue("a", str(n))
    stream.resume.set()
    queue.close(30)

    lines = stream.getvalue().splitlines()
    assert lines[1:6] == [f"a        | {n}" for n in range(5)]
    assert lines[6] == "engine   | 3 log lines dropped: output was blocked"


def test_a_closed_terminal_does_not_end_the_log_thread() -> None:
    """Writing to a stream that is gone is ignored, so close still returns."""
    stream = io.StringIO()
    stream.close()
    queue = LineQueue(stream)
    queue("a", "unheard")

    queue.close(30)

    assert not queue._thread.is_alive()
