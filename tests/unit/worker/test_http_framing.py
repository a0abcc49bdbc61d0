"""Heads and chunked bodies, read without a socket."""

import gc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.worker.http.framing import ChunkedBody, Head, HeadReader, Refusal, WantedHeaders

WANTED = WantedHeaders.of(frozenset({"x-cohort"}))
HEAD = (
    b"POST /v2 HTTP/1.1\r\nHost: a:1\r\nX-Cohort: \t blue \r\nX-Other: no\r\n"
    b"Accept-Encoding: gzip\r\nAccept-Encoding: br\r\nContent-Length: 3\r\n\r\n"
)


def read(*parts: bytes) -> tuple[Head, int]:
    """The head in these parts, and how much of the last was taken."""
    reader = HeadReader(WANTED, 1024)
    taken = 0
    for part in parts:
        taken = reader.take(part, 0)
    assert reader.complete
    return reader.finish(), taken


def test_a_head_that_was_read_leaves_nothing_to_the_garbage_collector() -> None:
    """Reader and parser hold each other only until the head is finished."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            read(HEAD)
        assert gc.collect() < 100
    finally:
        gc.enable()


def test_a_head_says_what_is_wanted_and_no_more() -> None:
    """Names in lower case, values stripped, lists joined, the rest forgotten."""
    head, taken = read(HEAD + b"abc")

    assert (head.method, head.target, head.minor) == (b"POST", b"/v2", 1)
    assert (head.content_length, head.chunked, head.keep_alive) == (3, False, True)
    assert taken == len(HEAD)
    assert head.values == {
        b"host": b"a:1",
        b"x-cohort": b"blue",
        b"accept-encoding": b"gzip, br",
        b"content-length": b"3",
    }


@given(cuts=st.lists(st.integers(0, len(HEAD) - 1), max_size=5))
def test_a_head_means_the_same_in_any_pieces(cuts: list[int]) -> None:
    """Cutting it anywhere changes nothing, and what follows is left alone."""
    edges = [0, *sorted(set(cuts) - {0}), len(HEAD)]
    parts = [HEAD[start:end] for start, end in pairwise(edges)]
    parts[-1] += b"abc"

    head, taken = read(*parts)

    assert head == read(HEAD)[0]
    assert taken == len(parts[-1]) - 3


@pytest.mark.parametrize("cut", [None, 100])
def test_a_head_may_have_its_limit_and_not_a_byte_more(cut: int | None) -> None:
    """The limit counts the whole head, in one piece or several."""
    rest = b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-A: \r\n\r\n"
    for size, fits in ((1024, True), (1025, False)):
        head = rest.replace(b"X-A: ", b"X-A: " + b"b" * (size - len(rest)))
        parts = [head] if cut is None else [head[:cut], head[cut:]]
        if fits:
            assert read(*parts)[0].target == b"/v2"
        else:
            with pytest.raises(Refusal, match="max_header") as refused:
                read(*parts)
            assert refused.value.status == 431


def test_an_endless_head_is_refused_before_it_ends() -> None:
    """Memory is bounded also when no blank line ever comes."""
    reader = HeadReader(WANTED, 1024)
    reader.take(b"GET /v2 HTTP/1.1\r\nX: ", 0)

    for _ in range(15):
        reader.take(b"a" * 64, 0)

    with pytest.raises(Refusal) as refused:
        reader.take(b"a" * 64, 0)
    assert refused.value.status == 431


# --- chunked bodies ---------------------------------------------------------------------------


def chunked(*parts: bytes) -> bytes:
    """A body in these chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@given(
    parts=st.lists(
        st.sampled_from([b"a", b"\r\n\r\n", b"0\r\n\r\n", b"\r", b"xyz" * 9]), max_size=6
    ),
    cut=st.integers(0, 80),
    behind=st.sampled_from([b"", b"GET", b"\r\n\r\n", b"0\r\n\r\n"]),
)
def test_a_chunked_body_ends_where_it_ends(parts: list[bytes], cut: int, behind: bytes) -> None:
    """Whatever it holds, however it is cut, and whatever follows it."""
    data = chunked(*parts)
    body = ChunkedBody(max_body=4096, max_overhead=1024)
    cut = min(cut, len(data) - 1)
    taken = body.feed(data[:cut], 0) if cut else 0
    taken += body.feed(b"*" + data[cut:] + behind, 1) - 1

    assert body.complete
    assert not body.overrun
    assert body.value() == b"".join(parts)
    assert taken == len(data)


def test_very_many_chunks_are_refused() -> None:
    """Six bytes a chunk would cost far more than they weigh."""
    body = ChunkedBody(max_body=1 << 20, max_overhead=1 << 20)

    with pytest.raises(Refusal, match="chunks") as refused:
        body.feed(chunked(*[b"a"] * 65_537), 0)
    assert refused.value.status == 400


def test_a_body_of_blank_lines_is_read_whole() -> None:
    """Past 65,536 of them its end is no longer found exactly; then that is said."""
    blank = b"\r\n\r\n" * 70_000
    for behind, overrun in ((b"", False), (b"GET / HTTP/1.1\r\n", True)):
        body = ChunkedBody(max_body=1 << 20, max_overhead=1024)
        body.feed(chunked(blank) + behind, 0)

        assert body.complete
        assert body.value() == blank
        assert body.overrun is overrun
