"""What Serve is to run, followed through a Ray that stands still: whose nodes, how many workers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.config.applied import Orders, read_failure, write_orders
from serving.config.hosts import HostSpec, write_hosts
from serving.config.schema import EngineConfig, ServeConfig
from serving.config.snapshot import StagedVersion
from serving.engine.programs import Options
from serving.engine.ray_serve.applications import Applications
from serving.engine.ray_serve.keeper import Site, in_session
from serving.engine.ray_serve.ray_thread import RayThread
from serving.errors import EngineError
from serving.tasks import end
from serving.types import Signature

SITE = Site(configuration="/c", data="/d", http="h", grpc="g", admin="a", incarnation="start")


class StandIn:
    """Stands for `Cluster`: nodes with CPUs, and what was deployed last."""

    def __init__(self, **nodes: float) -> None:
        self.machines = nodes
        self.deployed: dict[str, dict[str, Any]] = {}
        self.states: dict[str, tuple[str, str]] = {}

    def nodes(self) -> dict[str, float]:
        """By address, their CPUs."""
        return dict(self.machines)

    def cpus(self) -> float:
        """Of all."""
        return sum(self.machines.values())

    def deploy(self, applications: list[dict[str, Any]]) -> None:
        """Remember them."""
        self.deployed = {one["name"]: one for one in applications}

    def state(self, application: str) -> tuple[str, str]:
        """As a test has it."""
        return self.states.get(application, ("DEPLOYING", ""))


class Kit:
    """Applications on a data directory, with a log of what people are told."""

    def __init__(self, data: Path, cluster: StandIn, **engine: Any) -> None:
        (data / "run").mkdir()
        self.data, self.cluster, self.said = data, cluster, []  # type: ignore[var-annotated]
        self.applications = Applications(
            Options(configuration=Path("/c"), data=data, store=engine.pop("store", "redis://s")),
            EngineConfig(kind="ray", **engine),
            SITE,
            data,
            cluster=cluster,  # type: ignore[arg-type]
            ray=RayThread(),
            lines=lambda _, line: self.said.append(line),
        )

    def list_hosts(self, number: int = 1) -> None:
        """As control does for a dedicated version."""
        staged = StagedVersion(path="/a", sha256="a" * 64, signature=Signature((), (), True))
        serve = ServeConfig(placement="dedicated", hosts=number)
        spec = HostSpec(id="0123456789", model="m", version="v1", staged=staged, serve=serve)
        write_hosts(self.data, [spec])


async def test_each_node_with_room_for_a_worker_has_hosts(tmp_path: Path) -> None:
    """Not the head, which has no CPUs; the gateway ends first."""
    kit = Kit(tmp_path, StandIn(head=0.0, near=4.0, far=4.0), address="head:6379")
    kit.list_hosts()
    await kit.applications.begin()
    await kit.applications.follow_hosts()

    names = ["sluice", "sluice-host-0123456789-far", "sluice-host-0123456789-near"]
    assert kit.applications.names == sorted(kit.cluster.deployed) == names


async def test_a_ray_of_our_own_has_one_node(tmp_path: Path) -> None:
    """Nobody else can join it."""
    kit = Kit(tmp_path, StandIn(here=4.0))
    kit.list_hosts()
    await kit.applications.follow_hosts()

    assert kit.applications.names == ["sluice", "sluice-host-0123456789"]


async def test_a_node_that_goes_takes_its_hosts_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has them again when it is back, although control lists the same."""
    monkeypatch.setattr("serving.engine.ray_serve.applications._NODES_SECONDS", 0.0)
    kit = Kit(tmp_path, StandIn(near=4.0, far=4.0), address="head:6379")
    kit.list_hosts()
    seen = []
    for machines in ({"near": 4.0, "far": 4.0}, {"near": 4.0}, {"near": 4.0, "far": 4.0}):
        kit.cluster.machines = machines
        await kit.applications.follow_hosts()
        seen.append(len(kit.cluster.deployed))

    assert seen == [3, 2, 3]


async def test_what_does_not_fit_on_every_node_is_refused_at_the_start(tmp_path: Path) -> None:
    """It says on how many nodes, and what to lower."""
    kit = Kit(tmp_path, StandIn(near=2.0, far=2.0), address="head:6379", workers=2)
    kit.list_hosts(number=2)
    await kit.applications.begin()

    with pytest.raises(EngineError, match=r"each of 2 nodes need 6 CPUs.*has 4; lower"):
        await kit.applications.follow_hosts()


async def test_what_does_not_fit_later_is_said(tmp_path: Path) -> None:
    """The gateway runs on."""
    kit = Kit(tmp_path, StandIn(here=2.0))
    kit.cluster.states["sluice"] = ("RUNNING", "")
    await kit.applications.begin()
    assert await kit.applications.are_up()
    kit.list_hosts(number=4)

    await kit.applications.follow_hosts()

    assert "sluice-host-0123456789" in kit.cluster.deployed
    assert kit.said[0].endswith("Some do not start")


async def test_the_reason_that_serve_gives_up_for_is_told(tmp_path: Path) -> None:
    """Of a traceback the line that says it, also if only a dedicated version failed."""
    kit = Kit(tmp_path, StandIn(here=2.0))
    kit.list_hosts()
    await kit.applications.follow_hosts()
    why = "Traceback\n  serving.errors.EngineError: no such file\nmore"
    kit.cluster.states["sluice-host-0123456789"] = ("DEPLOY_FAILED", why)

    with pytest.raises(EngineError, match=r"gave up on m/v1:\nno such file$"):
        await kit.applications.are_up()


async def test_a_number_that_is_applied_is_deployed(tmp_path: Path) -> None:
    """Orders carry the name of the start and its session; those of another are not meant."""
    kit = Kit(tmp_path, StandIn(here=4.0))
    await kit.applications.begin()
    engine = in_session(SITE, "session_1").incarnation
    following = asyncio.create_task(kit.applications.follow_number())
    try:
        write_orders(tmp_path, Orders(engine="another@session_1", serial=1, number=4))
        await asyncio.sleep(0)
        write_orders(tmp_path, Orders(engine=engine, serial=1, number=3))
        while kit.applications.workers.max != 3:
            await asyncio.sleep(0.01)
        write_orders(tmp_path, Orders(engine=engine, serial=2, number=9))
        while (failure := read_failure(tmp_path)) is None:
            await asyncio.sleep(0.01)
    finally:
        await end(following)

    assert failure.reason.startswith("9 workers of 1 CPUs need 9, and Ray has 4")
    assert kit.applications.workers.max == 3


async def test_an_embedded_store_on_several_nodes_is_refused(tmp_path: Path) -> None:
    """The other nodes could not reach it."""
    nodes = StandIn(near=4.0, far=4.0)
    kit = Kit(tmp_path, nodes, address="head:6379", store="embedded")

    with pytest.raises(EngineError, match="serves one machine, and this Ray has 2"):
        await kit.applications.begin()
    assert nodes.deployed == {}
