"""What is due, what is remembered, and what is said when something is missing."""

import builtins
import sys
from pathlib import Path
from typing import Any

import log_files_kit as kit
import pyarrow as pa
import pytest
import shipping_kit

from serving.recording.layout import LogFolder
from serving.recording.shipping.address import target_of
from serving.recording.shipping.cursor import Cursor, ShippingBusy
from serving.recording.shipping.delta import fitted
from serving.recording.shipping.ship import Due, due, ship
from serving.recording.shipping.target import Consignment, ExtraMissing, ShippingFailed, required

NOTHING: dict[str, list[str]] = {}


class Fussy:
    """A target that takes so many files and then no more."""

    def __init__(self, most: int) -> None:
        self.taken: list[str] = []
        self._most = most

    def ship(self, consignment: Consignment) -> int:
        """Take a file or refuse it."""
        if len(self.taken) == self._most:
            raise ShippingFailed("full")
        self.taken.append(consignment.file)
        return 1

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def log(tmp_path: Path) -> LogFolder:
    """Two files of two hours."""
    folder = LogFolder(tmp_path)
    kit.parquet(folder.root, [kit.row(1), kit.row(2, kit.EPOCH + kit.HOUR)])
    return folder


def decide(
    files: dict[str, int], shipped: dict[str, int], sources: dict[str, list[str]] = NOTHING
) -> list[tuple[str, bool]]:
    """Files that are due, and whether they are sent. A number stands for a file's state."""
    found = due(
        [(name, (state, 0)) for name, state in files.items()],
        {name: (state, 0) for name, state in shipped.items()},
        lambda name: sources.get(name, []),
    )
    return [(one.file, one.send) for one in found]


def test_a_file_is_due_once() -> None:
    """And again when it has been written anew."""
    assert decide({"a": 1, "b": 1}, {"a": 1}) == [("b", True)]
    assert decide({"a": 2}, {"a": 1}) == [("a", True)]


def test_a_merged_file_is_due_if_one_of_its_sources_was_not_sent() -> None:
    """Otherwise it is only noted."""
    assert decide({"m": 1}, {"a": 1, "b": 1}, {"m": ["a", "b"]}) == [("m", False)]
    assert decide({"m": 1}, {"a": 1}, {"m": ["a", "b"]}) == [("m", True)]


def test_a_merged_file_that_was_noted_and_then_changed_is_sent() -> None:
    """Its rows are not those of its sources any more."""
    assert decide({"m": 2}, {"m": 1}, {"m": ["a", "b"]}) == [("m", True)]


def test_older_hours_go_first(log: LogFolder) -> None:
    """A consumer sees time go forward."""
    target = Fussy(9)
    with Cursor(log, "x") as cursor:
        ship(log, target, cursor)

    assert [one.split("/")[1] for one in target.taken] == [
        "hour=2025-10-09T09",
        "hour=2025-10-09T10",
    ]


def test_a_target_that_refuses_is_gone_on_with_where_it_stopped(log: LogFolder) -> None:
    """What it took before is not sent again."""
    with Cursor(log, "x") as cursor, pytest.raises(ShippingFailed):
        ship(log, Fussy(1), cursor)
    target = Fussy(9)
    with Cursor(log, "x") as cursor:
        done = ship(log, target, cursor)

    assert done.files == 1
    assert target.taken[0].split("/")[1] == "hour=2025-10-09T10"


def test_damaged_files_are_told_and_do_not_stop_the_rest(log: LogFolder) -> None:
    """They are due again when they are mended."""
    [bad] = log.parquet.glob("*/hour=2025-10-09T09/*.parquet")
    data = bad.read_bytes()
    bad.write_bytes(data[:200] + b"\xff" * 50 + data[250:])
    with Cursor(log, "x") as cursor:
        done = ship(log, Fussy(9), cursor)
        assert len(cursor.shipped) == 1

    assert done.damaged == [str(bad.relative_to(log.parquet))]
    assert done.files == 1


def test_one_process_ships_to_a_target_at_a_time(log: LogFolder) -> None:
    """Another target has its own cursor."""
    with Cursor(log, "x"), Cursor(log, "y"), pytest.raises(ShippingBusy):
        Cursor(log, "x")


def test_a_line_torn_by_a_crash_is_as_if_it_were_not_there(log: LogFolder) -> None:
    """That file is sent again."""
    with Cursor(log, "x") as cursor:
        cursor.note("a", (1, 2))
        cursor.note("b", (1, 2))
    [path] = log.root.glob("shipping/*.jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    with Cursor(log, "x") as cursor:
        assert cursor.shipped == {"a": (1, 2)}
        cursor.note("c", (3, 4))
    with Cursor(log, "x") as cursor:
        assert cursor.shipped == {"a": (1, 2), "c": (3, 4)}


def test_a_cursor_forgets_files_that_are_gone_and_stays_small(log: LogFolder) -> None:
    """Retention deletes files for years."""
    with Cursor(log, "x") as cursor:
        for number in range(300):
            cursor.note(f"{number}", (number, 0))
            cursor.keep({f"{number}"})
    [path] = log.root.glob("shipping/*.jsonl")

    assert len(path.read_bytes().splitlines()) <= 110
    with Cursor(log, "x") as cursor:
        assert cursor.shipped["299"] == (299, 0)


@pytest.mark.parametrize(
    "address", ["", "ftp://x", "s3://", "s3:///x", "kafka://host:1", "kafka://host:1/a/b", "delta:"]
)
def test_an_address_that_is_none_is_told_what_one_is(address: str) -> None:
    """Before anything is connected to."""
    with pytest.raises(ValueError, match="://"):
        target_of(address, {})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://b/p", r"needs boto3: pip install 'sluice-gateway\[s3\]'"),
        ("kafka://h:1/t", r"needs confluent_kafka: pip install 'sluice-gateway\[kafka\]'"),
        ("delta:x", r"needs deltalake: pip install 'sluice-gateway\[delta\]'"),
    ],
)
def test_a_missing_extra_is_told_with_the_line_that_installs_it(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no traceback."""
    for name in ("boto3", "confluent_kafka", "deltalake"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraMissing, match=words):
        target_of(address, {})


def test_a_package_that_is_broken_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing it again would not help."""
    imports = builtins.__import__

    def broken(name: str, *rest: Any) -> Any:
        if name == "deltalake":
            raise ModuleNotFoundError(name="its_own_need")
        return imports(name, *rest)

    monkeypatch.delitem(sys.modules, "deltalake", raising=False)
    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        required("deltalake")


def test_delta_gets_signed_columns_without_dots() -> None:
    """And where each row comes from."""
    rows = pa.table(
        {
            "prediction_id": ["x"],
            "feature.a.b": pa.array([1], pa.uint32()),
            "output.ids": pa.array([[2]], pa.list_(pa.uint64())),
        }
    )
    consignment = Consignment(file="f", path=Path("p"), model="m", hour="2025-10-09T09")
    made = fitted(rows, consignment)

    assert made.schema.names == [
        "source_file",
        "hour",
        "prediction_id",
        "feature_a.b",
        "output_ids",
    ]
    assert made.schema.field("feature_a.b").type == pa.int64()
    assert made.schema.field("output_ids").type == pa.list_(pa.decimal128(20, 0))


def test_kafka_that_is_away_fails_with_its_words(
    log: LogFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the file stays due."""
    shipping_kit.needed("confluent_kafka")
    monkeypatch.setattr("serving.recording.shipping.kafka._CONFIRM_SECONDS", 2.0)
    target = target_of("kafka://127.0.0.1:1/t", {"message.timeout.ms": "500", "log_level": "0"})
    with Cursor(log, "x") as cursor, pytest.raises(ShippingFailed, match="Kafka did not take"):
        ship(log, target, cursor)
    with Cursor(log, "x") as cursor:
        assert cursor.shipped == {}


def test_a_bucket_that_does_not_exist_is_told(
    log: LogFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its name."""
    with shipping_kit.target("s3", tmp_path, monkeypatch):
        target = target_of("s3://no-such-bucket/p", {})
        with Cursor(log, "x") as cursor, pytest.raises(ShippingFailed, match="no-such-bucket"):
            ship(log, target, cursor)
        target.close()


def test_what_is_due_says_how_the_file_is_now() -> None:
    """The state that is noted is the one that was read before it was sent."""
    assert due([("a", (1, 2))], {}, lambda _: []) == [Due("a", (1, 2), send=True)]
