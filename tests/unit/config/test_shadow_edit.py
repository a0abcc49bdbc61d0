"""A version is added as a shadow, and nothing else in the file is touched."""

from pathlib import Path

import pytest
import yaml

from serving.config.shadow_edit import CannotEdit, add_shadow

CONFIGS = Path(__file__).parents[3] / "configs"
SOURCE = {"path": "../v9.onnx", "sha256": "0" * 64, "candidate": True}
FILES = sorted(CONFIGS.glob("*/models/*.yaml")) + sorted(CONFIGS.glob("*/*/models/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_configuration_here_can_be_edited(file: Path) -> None:
    """Every old line is still there, in its order, and the new version is a shadow."""
    before = file.read_text()

    after = add_shadow(before, "v9", SOURCE, 25.0)

    told = yaml.safe_load(after)
    assert told["versions"]["v9"] == SOURCE
    assert told["traffic"]["shadow"][-1] == {"version": "v9", "percent": 25.0}
    assert told["traffic"]["production"] == yaml.safe_load(before)["traffic"]["production"]
    rest = iter(after.splitlines())
    assert all(line in rest for line in before.splitlines())


def test_a_second_candidate_finds_what_the_first_wrote() -> None:
    """A list that was added is one that can be added to."""
    text = "model: m\nversions:\n  v1: {path: a}\ntraffic:\n  production: v1  # the one\n"

    after = add_shadow(add_shadow(text, "v2", {"path": "b"}, 100), "v3", {"path": "c"}, 50)

    assert after == (
        "model: m\nversions:\n  v1: {path: a}\n  v2: {path: b}\n  v3: {path: c}\n"
        "traffic:\n  production: v1  # the one\n  shadow:\n"
        "    - {version: v2, percent: 100}\n    - {version: v3, percent: 50}\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "versions: {v1: {path: a}}\ntraffic:\n  production: v1\n",
        "versions:\n  v1: {path: a}\ntraffic: {production: v1}\n",
        "versions:\n  v1: {path: a}\ntraffic:\n  production: v1\n  shadow: [{version: v1}]\n",
    ],
)
def test_what_cannot_be_edited_is_told_to_be_written_by_hand(text: str) -> None:
    """With the very words to write."""
    with pytest.raises(CannotEdit, match=r"write by hand under `versions`: `v2: {path: b}`"):
        add_shadow(text, "v2", {"path": "b"}, 100)
