"""What control has every node follow, as one value that travels through the store.

On its own node control writes files under DATA, which engines and workers look at: orders and
settings (`serving.config.applied`), the list of model hosts (`serving.config.hosts`), the
quarantine (`serving.quarantine.register`). Other nodes have files of the same names, which
`take_over` writes from here; whoever looks at them need not know where they come from, and finds
them there when store and control are away.

`DATA/run/directions.json` says which directions the files are from. Revisions only grow; a lower
one is ignored. Settings hold what `gateway.yaml` holds, except the store's address, which each node
has from its own.
"""

from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

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
from serving.config.hosts import HostSpec, read_hosts, write_hosts
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.errors import InvalidConfig
from serving.files import lock, write_whole
from serving.quarantine import register
from serving.quarantine.history import Register

__all__ = [
    "Directions",
    "NodeReport",
    "Taken",
    "begin_anew",
    "decode_directions",
    "decode_report",
    "directions_of",
    "encode_directions",
    "encode_report",
    "node_report",
    "read_taken",
    "take_over",
    "write_taken",
]

_TAKEN: Final = "directions.json"
_ENGINE: Final = "engine.name"
_LOCK: Final = "directions.lock"
_CRASHES_TOLD: Final = 8
"""The newest of a node: a crash is told within a second, and a supervisor backs off."""

T = TypeVar("T")


class Directions(msgspec.Struct, frozen=True, kw_only=True):
    """What all nodes are to go by.

    `engine` names the engine's start that is meant, `began` is when (wall-clock seconds) it first
    had any. `settings` are those of the generations that
    `orders` and `failure` name. `failure` is why the orders cannot be followed somewhere, so that
    the others do not try. `known` is the quarantine; what nodes know besides stays.
    """

    engine: str
    revision: int
    orders: Orders
    began: float = 0.0
    settings: dict[int, Applied] = {}
    failure: Failure | None = None
    hosts: list[HostSpec] = []
    known: Register = Register()


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has to say: what it follows, why it cannot, and who crashed there.

    `serial` and `newest` are of its orders, for a control process that has lost its own.
    """

    node: str
    engine: str
    at: float
    revision: int = 0
    serial: int = 0
    newest: int = 0
    failure: Failure | None = None
    known: Register = Register()


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Which directions a data directory follows. `own`: control writes its files itself."""

    engine: str = ""
    revision: int = 0
    own: bool = False


def encode_directions(directions: Directions) -> bytes:
    """As JSON, without the store's address."""
    hidden = {
        generation: replace(applied, gateway=replace(applied.gateway, store="embedded"))
        for generation, applied in directions.settings.items()
    }
    return msgspec.json.encode(replace(directions, settings=hidden), enc_hook=enc_hook)


def decode_directions(content: bytes | str | None) -> Directions | None:
    """What `encode_directions` wrote; None for nothing, and for what is none of this release."""
    return _decoded(content, Directions)


def encode_report(report: NodeReport) -> bytes:
    """As JSON."""
    return msgspec.json.encode(report, enc_hook=enc_hook)


def decode_report(content: bytes | str | None) -> NodeReport | None:
    """What `encode_report` wrote; None for anything else."""
    return _decoded(content, NodeReport)


def read_taken(data: Path) -> Taken:
    """Which directions a data directory follows; those of nobody if that cannot be told."""
    try:
        return msgspec.json.decode((data / "run" / _TAKEN).read_bytes(), type=Taken)
    except (OSError, ValueError):
        return Taken()


def write_taken(data: Path, taken: Taken) -> None:
    """Note it. Raises OSError."""
    write_whole(data / "run" / _TAKEN, msgspec.json.encode(taken))


def begin_anew(data: Path, engine: str) -> None:
    """Forget what an earlier start of the gateway had this node follow; the quarantine stays.

    Whichever process of a start comes to a node first does it, the others change nothing.

    Raises:
        OSError: the data directory cannot be written.
    """
    run = data / "run"
    with lock(run / _LOCK):
        name = run / _ENGINE
        if name.exists() and name.read_text() == engine:
            return
        for file in (run / "orders.json", run / "roll.json", run / "gateway.json", run / _TAKEN):
            file.unlink(missing_ok=True)
        for file in run.glob("settings/*.json"):
            file.unlink(missing_ok=True)
        write_whole(name, engine.encode())


def take_over(data: Path, directions: Directions, *, engine: str, store: str) -> bool:
    """Have this node follow these, if they are for it and newer than what it follows.

    Args:
        data: its data directory, after `begin_anew`.
        directions: as they were in the store.
        engine: names the start of the gateway that its processes are of.
        store: its own address of the store, for the settings.

    Returns:
        Whether anything was written.

    Raises:
        OSError: the data directory cannot be written; the next try is whole.
    """
    if directions.engine != engine:
        return False
    with lock(data / "run" / _LOCK):
        taken = read_taken(data)
        ours = taken.engine == engine
        if ours and directions.revision <= taken.revision:
            return False
        register.hear(data, directions.known)
        write_hosts(data, directions.hosts)
        for generation, applied in directions.settings.items():
            whole = replace(applied, gateway=replace(applied.gateway, store=store))
            if read_applied(data, generation) != whole:
                write_applied(data, generation, whole)
        if directions.failure is not None and not _has_failed(data, directions.orders.serial):
            write_failure(data, directions.failure)
        # Last: whoever sees the orders finds what they name.
        if read_orders(data) != directions.orders:
            write_orders(data, directions.orders)
        write_taken(data, Taken(engine=engine, revision=directions.revision))
        return True


def node_report(data: Path, *, node: str, engine: str, at: float) -> NodeReport:
    """What this node has to say at a wall-clock second. Reads files."""
    orders = read_orders(data)
    if orders is None or orders.engine != engine:
        orders = Orders(engine=engine)
    failure = read_failure(data)
    known = register.load(data)
    own = [crash for crash in known.crashes if crash.node == node]
    return NodeReport(
        node=node,
        engine=engine,
        at=at,
        revision=read_taken(data).revision,
        serial=orders.serial,
        newest=orders.newest,
        failure=failure if failure and failure.serial == orders.serial else None,
        known=replace(known, crashes=own[-_CRASHES_TOLD:]),
    )


def directions_of(data: Path, orders: Orders) -> Directions:
    """What the files of control's own node say, without a revision. Reads files."""
    failure = read_failure(data)
    if failure is not None and failure.serial != orders.serial:
        failure = None
    generations = {orders.workers, orders.control, failure.kept if failure else 0}
    settings = {one: read_applied(data, one) for one in sorted(generations) if one}
    try:
        hosts = read_hosts(data)
    except InvalidConfig:  # control writes it anew with the next snapshot
        hosts = []
    return Directions(
        engine=orders.engine,
        revision=0,
        orders=orders,
        settings={one: applied for one, applied in settings.items() if applied is not None},
        failure=failure,
        hosts=hosts,
        known=replace(register.load(data), crashes=[]),
    )


def _has_failed(data: Path, serial: int) -> bool:
    failure = read_failure(data)
    return failure is not None and failure.serial == serial


def _decoded(content: bytes | str | None, kind: type[T]) -> T | None:
    if not content:
        return None
    try:
        return msgspec.json.decode(content, type=kind, dec_hook=dec_hook)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
