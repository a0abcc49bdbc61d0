"""What control has nodes follow: as files on its own disk, on its way, and as files on another."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.applied import (
    Applied,
    Failure,
    Orders,
    read_applied,
    read_failure,
    read_orders,
    write_applied,
    write_failure,
    write_orders,
)
from serving.config.directions import (
    Directions,
    Taken,
    begin_anew,
    decode_directions,
    decode_report,
    directions_of,
    encode_directions,
    encode_report,
    node_report,
    read_taken,
    take_over,
    write_taken,
)
from serving.config.hosts import HostSpec, read_hosts, write_hosts
from serving.config.schema import GatewayConfig, Limits, ServeConfig
from serving.config.snapshot import StagedVersion
from serving.config.units import Seconds
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.types import Signature

ENGINE = "now@here"
STORE = "redis://:secret@elsewhere:6379/0"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Control's data directory, with everything in it that nodes follow."""
    data = used(tmp_path / "control")
    gateway = GatewayConfig(store=STORE, limits=Limits(drain_timeout=Seconds(7)))
    write_applied(data, 3, Applied(gateway=gateway, directory="/etc/sluice"))
    write_orders(data, Orders(engine=ENGINE, serial=5, newest=3, workers=3))
    write_hosts(data, [host()])
    quarantine(data, "control")
    return data


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Another node's data directory, on which this start has begun."""
    node = used(tmp_path / "node")
    begin_anew(node, ENGINE)
    return node


def used(data: Path) -> Path:
    """A data directory in use."""
    (data / "run").mkdir(parents=True)
    return data


def host() -> HostSpec:
    """A dedicated version."""
    staged = StagedVersion(path="/a", sha256="a" * 64, signature=Signature((), (), True))
    return HostSpec(id="0123456789", model="m", version="v1", staged=staged, serve=ServeConfig())


def quarantine(data: Path, node: str, version: str = "v2") -> None:
    """Two crashes of a version."""
    for at in (1.0, 2.0):
        suspects = (Suspect("m", version, "b" * 64),)
        one = Crash(at=at, worker="worker-0", signal="SIGFPE", suspects=suspects, node=node)
        register.record(data, one)


def said(data: Path, revision: int = 1) -> Directions:
    """What control says, as it comes out of the store."""
    orders = read_orders(data)
    assert orders is not None
    directions = msgspec.structs.replace(directions_of(data, orders), revision=revision)
    there = decode_directions(encode_directions(directions))
    assert there is not None
    return there


def follow(node: Path, directions: Directions, engine: str = ENGINE) -> bool:
    """What a replica there does with it."""
    return take_over(node, directions, engine=engine, store=STORE)


def test_another_node_has_the_same_files_then(data: Path, node: Path) -> None:
    """Orders, the settings they name, model hosts, the quarantine."""
    assert follow(node, said(data))

    assert read_orders(node) == read_orders(data)
    assert read_applied(node, 3) == read_applied(data, 3)
    assert read_hosts(node) == read_hosts(data)
    assert register.load(node).quarantined == register.load(data).quarantined
    assert read_taken(node) == Taken(engine=ENGINE, revision=1)


def test_the_stores_own_password_is_not_put_into_it(data: Path) -> None:
    """Each node has its address from its own gateway.yaml."""
    assert b"secret" not in encode_directions(said(data))


@pytest.mark.parametrize("revision", [4, 3])
def test_a_revision_that_is_not_higher_is_ignored(data: Path, node: Path, revision: int) -> None:
    """A store that went back in time takes nobody along."""
    follow(node, said(data, 4))
    write_orders(data, Orders(engine=ENGINE, serial=9))

    assert not follow(node, said(data, revision))
    orders = read_orders(node)
    assert orders is not None
    assert orders.serial == 5


def test_what_is_meant_for_another_start_is_ignored(data: Path, node: Path) -> None:
    """Two gateways may use one store while one replaces the other."""
    assert not follow(node, said(data), "now@there")
    assert read_orders(node) is None


def test_a_new_start_forgets_the_orders_and_keeps_the_quarantine(data: Path, node: Path) -> None:
    """It reads its directory; a version that crashes is as bad as before."""
    follow(node, said(data, 7))
    (node / "run" / "gateway.json").write_text("{}")
    begin_anew(node, ENGINE)
    still = read_orders(node)

    begin_anew(node, "later@here")

    assert still is not None
    assert read_orders(node) is None
    assert read_applied(node, 3) is None
    assert not (node / "run" / "gateway.json").exists()
    assert read_taken(node) == Taken()
    assert [one.version for one in register.load(node).quarantined] == ["v2"]


def test_a_lift_reaches_the_node(data: Path, node: Path) -> None:
    """What the node quarantined itself and control has not heard of stays."""
    follow(node, said(data))
    quarantine(node, "far", "v3")
    register.lift(data, "m", "v2")

    follow(node, said(data, 2))

    assert [one.version for one in register.load(node).quarantined] == ["v3"]


def test_a_failure_elsewhere_stops_this_node_too(data: Path, node: Path) -> None:
    """And its own word about the same orders stays its own."""
    write_failure(data, Failure(serial=5, reason="far: broken", kept=2))
    follow(node, said(data))
    heard = read_failure(node)
    write_failure(node, Failure(serial=5, reason="also here", kept=1))
    follow(node, said(data, 2))
    own = read_failure(node)

    assert heard is not None
    assert own is not None
    assert (heard.reason, own.reason) == ("far: broken", "also here")


def test_a_failure_of_earlier_orders_is_not_told(data: Path) -> None:
    """New orders are a new try."""
    write_failure(data, Failure(serial=4, reason="broken"))

    assert said(data).failure is None


def test_a_node_tells_its_own_crashes_and_why_it_does_not_follow(data: Path, node: Path) -> None:
    """Not those of others, which control has heard from them."""
    follow(node, said(data))
    register.hear(node, register.load(data))
    quarantine(node, "far", "v3")
    write_failure(node, Failure(serial=5, reason="broken", kept=2))

    report = decode_report(encode_report(node_report(node, node="far", engine=ENGINE, at=9.0)))

    assert report is not None
    assert {crash.node for crash in report.known.crashes} == {"far"}
    assert [one.version for one in report.known.quarantined] == ["v2", "v3"]
    assert (report.revision, report.serial, report.newest) == (1, 5, 3)
    assert report.failure == Failure(serial=5, reason="broken", kept=2)


def test_controls_own_files_are_not_taken_for_news(data: Path) -> None:
    """It notes the revision before it publishes it."""
    write_taken(data, Taken(engine=ENGINE, revision=2, own=True))

    assert not follow(data, said(data, 2))
    assert read_taken(data).own


@given(st.binary(max_size=80))
def test_no_bytes_break_the_readers(content: bytes) -> None:
    """Whatever is in the store."""
    assert decode_directions(content) is None
    assert decode_report(content) is None
