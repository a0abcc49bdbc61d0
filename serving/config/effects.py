"""What a change of `gateway.yaml` takes: nothing, new workers, or a new start; decides only."""

from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from serving.config.addresses import listener_parts
from serving.config.schema import (
    EngineConfig,
    GatewayConfig,
    ListenConfig,
    Listener,
    NotifyReach,
    TlsConfig,
)

__all__ = [
    "Effect",
    "alike",
    "concerns_control",
    "concerns_workers",
    "effect_of",
    "names_files",
    "taken_over",
]


class Effect(StrEnum):
    """What has to happen before a change counts."""

    LIVE = "live"
    """The running processes take it over."""

    RESIZES = "resizes"
    """Workers are started or ended, or scaled by other rules."""

    ROLLS_WORKERS = "rolls workers"
    """Each worker is replaced by one that was started with it."""

    RESTARTS_CONTROL = "restarts control"
    """Control is started again; predictions do not notice."""

    NEEDS_RESTART = "needs restart"
    """Somebody has to start the gateway again."""


_ROLLING: Final = {"server_name", "limits", "auth", "features", "tracing", "log", "logs"}
_LIVE: Final = {"notify"}


def effect_of(subject: str) -> Effect:
    """The effect of a change at a dotted path below `gateway` (`limits.max_body`)."""
    section, *more = subject.split(".")
    if section in _ROLLING:
        return Effect.ROLLS_WORKERS
    if section in _LIVE:
        return Effect.LIVE
    if section == "engine" and more[:1] == ["workers"]:
        return Effect.RESIZES
    if section == "listen" and more[1:2] == ["tls"]:
        return Effect.RESTARTS_CONTROL if more[0] == "admin" else Effect.ROLLS_WORKERS
    return Effect.NEEDS_RESTART


def taken_over(running: GatewayConfig, wanted: GatewayConfig) -> GatewayConfig:
    """What can be had of `wanted` without a new start."""
    listeners = {
        name: _listener(
            listener_parts(getattr(running.listen, name))[0],
            listener_parts(getattr(wanted.listen, name))[1],
        )
        for name in ListenConfig.__struct_fields__
    }
    return replace(
        wanted,
        listen=ListenConfig(**listeners),
        store=running.store,
        engine=replace(running.engine, workers=wanted.engine.workers),
    )


def alike(running: GatewayConfig, wanted: GatewayConfig) -> tuple[GatewayConfig, GatewayConfig]:
    """Both with their listeners written in the same of the two ways, to be compared."""
    one: dict[str, str | Listener] = {}
    other: dict[str, str | Listener] = {}
    for name in ListenConfig.__struct_fields__:
        parts = [listener_parts(getattr(each.listen, name)) for each in (running, wanted)]
        long = any(tls is not None for _, tls in parts)
        one[name], other[name] = (
            Listener(address=address, tls=tls) if long else address for address, tls in parts
        )
    return (
        replace(running, listen=ListenConfig(**one)),
        replace(wanted, listen=ListenConfig(**other)),
    )


def concerns_workers(running: GatewayConfig, wanted: GatewayConfig) -> bool:
    """Whether a worker started with one would serve by other rules than one with the other."""
    one, other = alike(running, wanted)
    return _for_workers(one) != _for_workers(other)


def concerns_control(running: GatewayConfig, wanted: GatewayConfig) -> bool:
    """Whether control has to be started again for `wanted`."""
    return _for_control(running) != _for_control(wanted)


def names_files(gateway: GatewayConfig) -> bool:
    """Whether it names files beside it, so that it matters which directory it is in."""
    listeners = (getattr(gateway.listen, name) for name in ListenConfig.__struct_fields__)
    return gateway.auth is not None or any(listener_parts(one)[1] for one in listeners)


def _listener(address: str, tls: TlsConfig | None) -> str | Listener:
    return Listener(address=address, tls=tls) if tls is not None else address


def _for_workers(gateway: GatewayConfig) -> GatewayConfig:
    return replace(
        gateway,
        listen=replace(gateway.listen, admin=""),
        engine=EngineConfig(),
        store="embedded",
        notify=NotifyReach(),
    )


def _for_control(gateway: GatewayConfig) -> tuple[object, ...]:
    admin = listener_parts(gateway.listen.admin)[1]
    return gateway.auth, gateway.features, gateway.logs, admin
