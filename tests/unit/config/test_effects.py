"""What a change of gateway.yaml takes, and what running processes can have of it."""

from typing import Any

import msgspec
import pytest

from serving.config.effects import (
    Effect,
    concerns_control,
    concerns_workers,
    effect_of,
    names_files,
    taken_over,
)
from serving.config.schema import GatewayConfig
from serving.config.snapshot_codec import dec_hook

TLS = {"cert": "a.pem", "key": "a.key"}


def gateway(**sections: Any) -> GatewayConfig:
    """A `gateway.yaml`."""
    return msgspec.convert(sections, GatewayConfig, dec_hook=dec_hook)


@pytest.mark.parametrize(
    ("subject", "effect"),
    [
        ("limits.max_body", Effect.ROLLS_WORKERS),
        ("auth", Effect.ROLLS_WORKERS),
        ("features.store", Effect.ROLLS_WORKERS),
        ("logs.level", Effect.ROLLS_WORKERS),
        ("listen.http.tls.cert", Effect.ROLLS_WORKERS),
        ("listen.admin.tls", Effect.RESTARTS_CONTROL),
        ("engine.workers", Effect.RESIZES),
        ("engine.workers.max", Effect.RESIZES),
        ("engine.worker_cpus", Effect.NEEDS_RESTART),
        ("engine.kind", Effect.NEEDS_RESTART),
        ("listen.http.address", Effect.NEEDS_RESTART),
        ("listen.grpc", Effect.NEEDS_RESTART),
        ("store", Effect.NEEDS_RESTART),
        ("notify.hosts", Effect.LIVE),
        ("something.new", Effect.NEEDS_RESTART),
    ],
)
def test_each_setting_takes_what_it_takes(subject: str, effect: Effect) -> None:
    """What is not known to be followed needs a restart."""
    assert effect_of(subject) is effect


def test_every_section_of_the_schema_has_an_effect() -> None:
    """A new section is a decision, not an oversight."""
    restart = {"schema_version", "listen", "store", "engine"}
    for name in GatewayConfig.__struct_fields__:
        assert (effect_of(name) is Effect.NEEDS_RESTART) == (name in restart)


def test_addresses_store_and_kind_stay_and_the_rest_is_taken_over() -> None:
    """Also the number of workers, though nothing else of the engine, and certificates."""
    running = gateway(store="redis://one", engine={"kind": "ray", "workers": 2})
    wanted = gateway(
        store="redis://two",
        listen={"http": {"address": "127.0.0.1:9", "tls": TLS}, "admin": "127.0.0.1:8"},
        engine={"kind": "local", "workers": 4, "worker_cpus": 2},
        limits={"max_inputs": 7},
    )
    taken = taken_over(running, wanted)

    assert taken == gateway(
        store="redis://one",
        listen={"http": {"address": "127.0.0.1:8000", "tls": TLS}},
        engine={"kind": "ray", "workers": 4},
        limits={"max_inputs": 7},
    )
    assert taken_over(taken, wanted) == taken


@pytest.mark.parametrize(
    ("sections", "workers", "control"),
    [
        ({"limits": {"max_inputs": 7}}, True, False),
        ({"auth": {"tokens": "t.yaml"}}, True, True),
        ({"features": {"tenant": "x"}}, True, True),
        ({"logs": {"level": "debug"}}, True, True),
        ({"listen": {"admin": {"address": "127.0.0.1:8002", "tls": TLS}}}, False, True),
        ({"listen": {"http": {"address": "127.0.0.1:8000", "tls": TLS}}}, True, False),
        ({"listen": {"http": {"address": "127.0.0.1:8000"}}}, False, False),
        ({"engine": {"workers": 9}}, False, False),
        ({"store": "redis://elsewhere"}, False, False),
    ],
)
def test_whom_a_change_concerns(sections: dict[str, Any], workers: bool, control: bool) -> None:
    """Nobody is replaced for what they do not read."""
    assert concerns_workers(gateway(), gateway(**sections)) is workers
    assert concerns_control(gateway(), gateway(**sections)) is control


def test_a_directory_matters_where_files_are_named() -> None:
    """Tokens and certificates are paths in it."""
    assert not names_files(gateway())
    assert names_files(gateway(auth={"tokens": "t.yaml"}))
    assert names_files(gateway(listen={"grpc": {"address": "127.0.0.1:8001", "tls": TLS}}))
