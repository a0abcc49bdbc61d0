"""Which Ray is taken, and which address answers; without starting any."""

import socket
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from serving.engine.ray_serve import cluster
from serving.errors import EngineError


def installed(version: str | None) -> Callable[[str], str]:
    """Stands for `importlib.metadata.version`."""

    def of(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    return of


@pytest.mark.parametrize("version", ["2.60.0", "2.60.7"])
def test_the_ray_it_is_made_for(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Any patch of it."""
    monkeypatch.setattr(metadata, "version", installed(version))

    assert cluster.require_ray() == version


@pytest.mark.parametrize("version", ["2.59.3", "2.61.0", "3.0.0", "1.60.0"])
def test_another_ray_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Older and newer: says which is there and which is wanted."""
    monkeypatch.setattr(metadata, "version", installed(version))

    with pytest.raises(EngineError, match=rf"Ray {version} is installed.*ray\[serve\]==2\.60\.\*"):
        cluster.require_ray()


def test_no_ray_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names the extra, and the engine that needs none."""
    monkeypatch.setattr(metadata, "version", installed(None))

    with pytest.raises(EngineError, match=r"sluice-gateway\[ray\].*--engine local"):
        cluster.require_ray()


@pytest.mark.parametrize("address", ["nowhere", "host:port", "127.0.0.1:99999"])
def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    """Says where it stands."""
    with pytest.raises(EngineError, match=r"engine\.address"):
        cluster.Cluster(address, tmp_path).start()


def test_an_address_where_nobody_listens(tmp_path: Path) -> None:
    """Says so within seconds, where Ray alone would try for minutes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"no Ray answers at {address}.*Connection refused"):
            cluster.Cluster(address, tmp_path).start()


def test_an_application_has_no_route_of_its_own() -> None:
    """Serve's proxy is off; requests reach workers, not replicas."""
    from serving.engine.ray_serve.keeper import Site

    site = Site(configuration="/c", data="/d", http="h", grpc="g", admin="a", incarnation="i")
    said = cluster.application("sluice", "module:build", site, [{"name": "Gateway"}])

    assert said["route_prefix"] is None
    assert said["args"] == {
        "configuration": "/c", "data": "/d", "http": "h", "grpc": "g", "admin": "a",
        "incarnation": "i", "insecure_bind": False,
    }  # fmt: skip
