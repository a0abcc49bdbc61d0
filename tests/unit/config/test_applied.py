"""What control leaves for engines and workers to follow."""

from pathlib import Path

import pytest

from serving.config.applied import (
    Applied,
    Failure,
    Orders,
    read_applied,
    read_failure,
    read_orders,
    startable,
    write_applied,
    write_failure,
    write_orders,
)
from serving.config.schema import GatewayConfig, Limits, WorkersConfig
from serving.config.units import Seconds


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory in use."""
    (tmp_path / "run").mkdir()
    return tmp_path


def test_what_is_written_is_read(data: Path) -> None:
    """Durations and all."""
    applied = Applied(
        gateway=GatewayConfig(limits=Limits(drain_timeout=Seconds(7))), directory="/c"
    )
    orders = Orders(engine="e", serial=3, workers=2, number=WorkersConfig(min=1, max=4))
    failure = Failure(serial=3, reason="why", kept=1)
    write_applied(data, 2, applied)
    write_orders(data, orders)
    write_failure(data, failure)

    assert read_applied(data, 2) == applied
    assert read_orders(data) == orders
    assert read_failure(data) == failure


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"serial": "x"}'])
def test_what_cannot_be_read_is_not_there(data: Path, content: bytes) -> None:
    """Somebody's hand in the directory stops nobody."""
    for name in ("orders.json", "roll.json"):
        (data / "run" / name).write_bytes(content)

    assert read_orders(data) is None
    assert read_failure(data) is None
    assert read_applied(data, 1) is None


def test_generation_zero_is_what_the_directory_says(data: Path) -> None:
    """There is no file for it."""
    assert read_applied(data, 0) is None


def test_secrets_are_the_owners_and_old_generations_go(data: Path) -> None:
    """A password may be among the settings; files do not pile up."""
    applied = Applied(gateway=GatewayConfig(), directory="/c")
    for generation in range(1, 71):
        write_applied(data, generation, applied)
    files = list((data / "run" / "settings").iterdir())

    assert len(files) == 64
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_generation_that_failed_is_not_started_again() -> None:
    """A worker that is added meanwhile goes by what the others kept."""
    orders = Orders(engine="e", serial=5, workers=9)

    assert startable(None, None) == 0
    assert startable(orders, None) == 9
    assert startable(orders, Failure(serial=5, reason="x", kept=8)) == 8
    assert startable(orders, Failure(serial=4, reason="x", kept=8)) == 9
