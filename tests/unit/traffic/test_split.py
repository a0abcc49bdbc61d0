import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.traffic.split import LINE, Splitter, threshold

VECTORS = json.loads(
    (Path(__file__).parents[3] / "docs" / "assignment-vectors.json").read_text("utf-8")
)["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['salt']}-{v['key']}")
def test_published_vectors_hold(vector: dict[str, str]) -> None:
    """Another implementation of the scheme places every published key where we do."""
    place = Splitter(vector["salt"]).place(vector["key"].encode())

    assert f"{place:016x}" == vector["h"]
    first = next(percent for percent in (1, 5, 25, 50, 100) if place < threshold(percent))
    assert first == vector["first_percent_of_1_5_25_50_100"]


@given(st.floats(0, 100), st.floats(0, 100), st.binary(max_size=40), st.text(max_size=10))
def test_raising_a_weight_never_moves_a_key_back(
    one: float, other: float, key: bytes, salt: str
) -> None:
    """A key taken at a weight is taken at every higher weight."""
    low, high = sorted((one, other))
    place = Splitter(salt).place(key)

    assert not (place < threshold(low)) or place < threshold(high)


def test_zero_takes_nothing_and_a_hundred_takes_every_key() -> None:
    """The ends of the line are exact, not nearly."""
    assert threshold(0) == 0
    assert threshold(100) > LINE - 1


@pytest.mark.parametrize("percent", [0.01, 0.1, 33.3, 99.99])
def test_decimal_weights_are_decimal(percent: float) -> None:
    """0.1 percent is a thousandth of the line, to the key."""
    assert threshold(percent) == round(percent * 100) * LINE // 10_000


@pytest.mark.parametrize("percent", [-1, 100.5])
def test_a_share_outside_the_line_is_refused(percent: float) -> None:
    """A weight is a percentage."""
    with pytest.raises(ValueError, match="between 0 and 100"):
        threshold(percent)


def test_keys_spread_evenly_and_salts_are_independent() -> None:
    """χ² over 64 cells stays below its 1 − 10⁻⁶ quantile, for one salt and for two crossed."""
    here, there = Splitter("employment/r1"), Splitter("employment/r2")
    cells = [0] * 64
    crossed = [0] * 64
    for number in range(64_000):
        key = str(number).encode()
        cells[here.place(key) >> 58] += 1
        crossed[(here.place(key) >> 61) * 8 + (there.place(key) >> 61)] += 1

    for counts in (cells, crossed):
        assert sum((count - 1000) ** 2 / 1000 for count in counts) < 132
