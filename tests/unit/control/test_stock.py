from pathlib import Path

import pytest

from serving.config.keys import WorkerReport
from serving.config.schema import GatewayConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.control.publishing.journal import Entry
from serving.control.publishing.stock import Swept, digests_of, needed_revisions, sweep
from serving.types import Signature

TEN = list(range(1, 11))


def report(revision: int, refused: int = 0) -> WorkerReport:
    """A worker that serves one revision and has refused another."""
    return WorkerReport(
        worker="worker-0",
        state="ready",
        revision=revision,
        reported_at=0.0,
        refused_revision=refused,
    )


@pytest.mark.parametrize(
    ("reports", "needed"),
    [
        ([], {6, 7, 8, 9, 10}),
        ([report(10)], {6, 7, 8, 9, 10}),
        ([report(10), report(7)], {6, 7, 8, 9, 10}),
        ([report(10), report(3)], set(range(3, 11))),
        ([report(2, refused=10)], {2, 6, 7, 8, 9, 10}),
        ([report(2, refused=5)], {2, *range(5, 11)}),
        ([report(0, refused=10)], {6, 7, 8, 9, 10}),
    ],
)
def test_the_last_five_stay_and_what_workers_serve_or_may_be_loading(
    reports: list[WorkerReport], needed: set[int]
) -> None:
    """A worker that is behind may be loading anything newer than what it last spoke of."""
    assert needed_revisions(TEN, reports) == needed


@pytest.mark.parametrize("unclear", [report(0), report(11), report(11, refused=12)])
def test_nothing_is_removed_while_it_is_unclear_what_a_worker_serves(unclear: WorkerReport) -> None:
    """It has not said, or serves a revision that the journal does not know."""
    assert needed_revisions(TEN, [report(10), unclear]) is None


def test_a_revision_that_left_the_journal_and_is_still_served_stops_the_clearing() -> None:
    """Which files it needs is not known any more."""
    assert needed_revisions(TEN[3:], [report(2)]) is None


def test_every_version_of_every_model_counts() -> None:
    """Also those that get no traffic: they can be asked for by name."""

    def staged(digit: str) -> StagedVersion:
        signature = Signature(inputs=[], outputs=[], batchable=True)
        return StagedVersion(path=f"/{digit}", sha256=digit * 64, signature=signature)

    snapshot = Snapshot(
        revision=1, published_at=0.0, author="", models={}, views={},
        staged={"a": {"v1": staged("1"), "v2": staged("2")}, "b": {"v1": staged("3")}},
    )  # fmt: skip
    entry = Entry(snapshot=snapshot, gateway=GatewayConfig(), author="", at=0.0, action="apply")

    assert digests_of([entry]) == {"1" * 64, "2" * 64, "3" * 64}


def test_only_files_of_the_stock_that_are_not_kept_are_removed(tmp_path: Path) -> None:
    """A stranger's file is none of our business."""
    for folder, suffix in (("artifacts", "onnx"), ("checked", "json")):
        (tmp_path / folder).mkdir()
        for digit in "ab":
            (tmp_path / folder / f"{digit * 64}.{suffix}").write_bytes(b"12345")
        (tmp_path / folder / "notes.txt").touch()
    (tmp_path / "artifacts" / f"{'a' * 64}.onnx").chmod(0o400)

    assert sweep(tmp_path, frozenset({"b" * 64})) == Swept(2, 10)
    assert {file.name for file in tmp_path.rglob("*.*")} == {
        f"{'b' * 64}.onnx", f"{'b' * 64}.json", "notes.txt",
    }  # fmt: skip


def test_an_unfinished_copy_goes_after_a_day(tmp_path: Path) -> None:
    """Until then somebody may be writing it."""
    (tmp_path / "artifacts").mkdir()
    copy = tmp_path / "artifacts" / ".0123456789abcdef-0123456789abcdef"
    copy.touch()
    began = copy.stat().st_mtime

    assert sweep(tmp_path, frozenset(), now=began + 80_000) == Swept()
    assert sweep(tmp_path, frozenset(), now=began + 90_000) == Swept(1, 0)


def test_a_data_directory_without_a_stock_is_no_problem(tmp_path: Path) -> None:
    """Nothing has ever been staged."""
    assert sweep(tmp_path, frozenset()) == Swept()
