"""Timeouts in headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.protocol.timeouts import parse_grpc_timeout, parse_request_timeout


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("0.25s", 0.25),
        ("0.25", 0.25),
        ("2", 2.0),
        ("800us", 0.0008),
        ("999999999", 999_999_999.0),
        (" 1s\t", 1.0),
    ],
)
def test_a_request_timeout_is_read_as_seconds(text: str, seconds: float) -> None:
    """A unit is optional; bare numbers are seconds."""
    assert parse_request_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0ms",
        "0.000",
        "-1",
        "-1s",
        "+1",
        "1n",
        "1h",
        "99999999H",
        "9999999999",
        "1e3",
        "nan",
        "inf",
        "Infinity",
        ".5",
        "5.",
        "1 s",
        "1_0",
        "0x10",
        "٣",  # ARABIC-INDIC DIGIT THREE, which float() reads
        "1s\n",
        "1,5",
        "ms",
    ],
)
def test_what_is_no_positive_duration_is_refused(text: str) -> None:
    """The message names the header."""
    with pytest.raises(InvalidRequest, match="x-request-timeout"):
        parse_request_timeout(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("3S", 3.0),
        ("250m", 0.25),
        ("250u", 0.00025),
        ("1n", 1e-9),
        ("0m", 0.0),
        ("99999999H", 99_999_999 * 3600.0),
    ],
)
def test_a_grpc_timeout_is_read_as_seconds(text: str, seconds: float) -> None:
    """All six units of the gRPC specification; clamping is somebody else's decision."""
    assert parse_grpc_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "1", "m", "999999999m", "-1m", "1.5S", "1s", "1 m", "1m\n", "٣m", "nanS"]
)
def test_what_is_no_grpc_timeout_is_refused(text: str) -> None:
    """The message names the header."""
    with pytest.raises(InvalidRequest, match="grpc-timeout"):
        parse_grpc_timeout(text)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_an_invalid_request(text: str) -> None:
    """Nothing else escapes, and what is read is finite and not negative."""
    for parse in (parse_request_timeout, parse_grpc_timeout):
        try:
            seconds = parse(text)
        except InvalidRequest:
            continue
        assert 0.0 <= seconds < float("inf")
