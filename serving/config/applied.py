"""What was applied, as files that engines, workers and control follow, under `DATA/run`.

- `settings/<generation>.json`: `gateway.yaml` as it was applied, and the directory it came from. A
  process is started with a generation and goes by its file as often as it is started again: what
  somebody edits meanwhile, or half of it, does not reach it. Never changed once written.
- `orders.json`: what the engine is to bring about. Written by control, whole, and looked at
  several times a second.
- `roll.json`: why a generation could not be brought about. Written by the engine.

- `gateway.json`: what the first worker read in the directory that the engine was started with.

They live as long as the engine does; the next `sluice up` reads its directory. Generation 0 is what
that directory said.
"""

import contextlib
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from serving.config.effects import names_files, taken_over
from serving.config.schema import GatewayConfig, WorkersConfig
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.files import write_whole

__all__ = [
    "Applied",
    "Failure",
    "Orders",
    "applied_directory",
    "read_applied",
    "read_failure",
    "read_orders",
    "read_pinned",
    "startable",
    "to_follow",
    "write_applied",
    "write_failure",
    "write_orders",
]

_ORDERS: Final = "orders.json"
_FAILURE: Final = "roll.json"
_SETTINGS: Final = "settings"
_PINNED: Final = "gateway.json"
_KEPT: Final = 64
"""Generations whose files stay: the processes of older ones have long been replaced."""

T = TypeVar("T")


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """One generation: `gateway.yaml` with its secrets, and the directory its files are in."""

    gateway: GatewayConfig
    directory: str


def to_follow(running: Applied, gateway: GatewayConfig, directory: str) -> Applied | None:
    """What of a `gateway.yaml` running processes are to take over; None if nothing is new.

    Args:
        running: what they go by.
        gateway: what is applied.
        directory: where that is; it counts only if it names files beside it.
    """
    wanted = Applied(
        gateway=taken_over(running.gateway, gateway),
        directory=directory if names_files(gateway) else running.directory,
    )
    return None if wanted == running else wanted


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is to bring about.

    `workers` and `control` are the generations that each worker, and control, are to have been
    started with at least. `then_control` says that control follows once the workers have.
    `number` is `engine.workers`, None as long as nobody has applied another one than the engine was
    started with. `engine` names the engine that is meant, `serial` counts the orders, and `newest`
    is the highest generation there ever was: one that failed is not used again.
    """

    engine: str
    serial: int = 0
    newest: int = 0
    workers: int = 0
    control: int = 0
    then_control: bool = False
    number: int | WorkersConfig | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the orders could not be followed, and the generation that goes on instead."""

    serial: int
    reason: str
    kept: int = 0


def startable(orders: Orders | None, failure: Failure | None) -> int:
    """The generation to start a worker with: the one ordered, unless it has proven unfit."""
    if orders is None:
        return 0
    if failure is not None and failure.serial == orders.serial:
        return failure.kept
    return orders.workers


def read_orders(data: Path) -> Orders | None:
    """What control wants now; None if it has never wanted anything, or nothing legible."""
    return _read(data / "run" / _ORDERS, Orders)


def write_orders(data: Path, orders: Orders) -> None:
    """Replace the orders. Raises OSError."""
    write_whole(data / "run" / _ORDERS, msgspec.json.encode(orders, enc_hook=enc_hook))


def read_failure(data: Path) -> Failure | None:
    """Why the engine stopped following, None if it has not."""
    return _read(data / "run" / _FAILURE, Failure)


def write_failure(data: Path, failure: Failure) -> None:
    """Say why. A full disk costs the word, not the process."""
    with contextlib.suppress(OSError):
        write_whole(data / "run" / _FAILURE, msgspec.json.encode(failure))


def read_applied(data: Path, generation: int) -> Applied | None:
    """The settings of a generation; None for 0, and where there are none."""
    return _read(_file(data, generation), Applied) if generation else None


def applied_directory(data: Path) -> str:
    """Where the files are that the settings applied last name; empty if none were applied."""
    orders = read_orders(data)
    newest = max(orders.workers, orders.control) if orders is not None else 0
    applied = read_applied(data, newest)
    return "" if applied is None else applied.directory


def read_pinned(data: Path) -> GatewayConfig | None:
    """`gateway.yaml` as the first worker read it under this engine: what generation 0 goes by."""
    return _read(data / "run" / _PINNED, GatewayConfig)


def write_applied(data: Path, generation: int, applied: Applied) -> None:
    """Write the settings of a new generation. Raises OSError."""
    file = _file(data, generation)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, msgspec.json.encode(applied, enc_hook=enc_hook))
    _file(data, generation - _KEPT).unlink(missing_ok=True)


def _file(data: Path, generation: int) -> Path:
    return data / "run" / _SETTINGS / f"{generation}.json"


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind, dec_hook=dec_hook)
    except (OSError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
