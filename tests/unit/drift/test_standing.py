"""What a page shows of a version: the same rows everywhere, and only what can be compared."""

import pytest
from msgspec.structs import replace
from report_kit import HOUR, MONITORING, reference, watched

from serving.config.snapshot import StagedVersion
from serving.drift.standing import foreign_outputs
from serving.types import Signature, TensorMetadata

REFERENCE = reference()
SIGNATURE = Signature(
    [TensorMetadata("X", "FP32", (-1, 3))], [TensorMetadata("score", "FP32", (-1, 2))], True
)
STAGED = {
    name: StagedVersion(path="", sha256=digest, signature=SIGNATURE)
    for name, digest in (("v1", "aa"), ("v2", "bb"), ("twin", "aa"))
}


def test_pictures_and_figures_are_of_the_same_rows() -> None:
    """A window with few rows is joined with the one before: so are its bins and its quality."""
    one = watched(REFERENCE, hours=[(2_000, 0, 0), (120, 0, 0.9)]).standing

    assert MONITORING.min_rows == 500
    assert one.drift.rows == 1_980 + 120
    assert {sum(column.window) for column in one.distributions} == {one.drift.rows}
    assert one.quality is not None
    assert {finding.rows for finding in one.quality.findings} == {one.drift.rows}
    assert [rows for _, rows in one.rows_by_window] == [1_980, 120]


def test_a_column_has_one_value_a_window() -> None:
    """Its course is told by the starts of the windows that were judged."""
    one = watched(REFERENCE, hours=[(2_000, 0, 0)] * 4).standing

    assert one.drift.starts == [0.0, HOUR, 2 * HOUR, 3 * HOUR]
    assert {len(column.course) for column in one.drift.columns} == {4}


def test_the_outputs_of_another_model_file_are_shown_and_not_judged() -> None:
    """Neither as drift nor as broken data; nor are they missing."""
    one = watched(REFERENCE, hours=[(2_000, 0, 0.5)], foreign=["town"]).standing

    assert {column.name for column in one.drift.columns} == {"age", "score"}
    assert one.drift.missing == []
    assert one.quality is not None
    assert not one.quality.findings
    assert one.not_compared == ["town"]
    assert [column.name for column in one.distributions][-1] == "town"


@pytest.mark.parametrize(("hours", "current"), [(3, True), (4, False)])
def test_a_version_without_traffic_is_soon_nobodys_concern(hours: int, current: bool) -> None:
    """After three windows; its verdict stays in the report with its time."""
    quiet = watched(REFERENCE, hours=[(2_000, 0, 0)] + [(0, 0, 0)] * hours).standing

    assert quiet.drift.end == HOUR
    assert quiet.is_current is current


@pytest.mark.parametrize(
    ("version", "found"),
    [("v1", []), ("twin", []), ("v2", ["score"]), ("gone", ["score"])],
)
def test_outputs_are_compared_with_those_of_the_same_file(version: str, found: list[str]) -> None:
    """Whatever the version is called; of one that is not there any more its name decides."""
    frozen = replace(REFERENCE, digests={"v1": "aa"})

    assert foreign_outputs(frozen, STAGED, version) == found


def test_a_reference_that_does_not_say_whose_outputs_it_has_is_believed() -> None:
    """It was made by hand."""
    assert foreign_outputs(REFERENCE, STAGED, "v2") == []
