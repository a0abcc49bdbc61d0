"""What a target is: whoever takes the files of the log."""

import importlib
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from serving.errors import SluiceError

__all__ = ["Consignment", "ExtraMissing", "ShippingFailed", "Target", "required"]


class ShippingFailed(SluiceError):
    """The target did not take a file. What it has confirmed is kept; trying again goes on."""


class ExtraMissing(SluiceError):
    """A package that only those need who ship there is not installed."""


class Consignment(msgspec.Struct, frozen=True, kw_only=True):
    """One Parquet file to be shipped.

    `file` is its path in the log (`model=…/hour=…/NAME.parquet`), `path` where it can be read.
    """

    file: str
    path: Path
    model: str
    hour: str


class Target(Protocol):
    """Takes files. A call returns when the target has confirmed the whole."""

    def ship(self, consignment: Consignment) -> int:
        """Send one file; rows sent. Raises ShippingFailed."""
        ...

    def close(self) -> None:
        """Let connections go."""
        ...


_PACKAGES: Final = {"boto3": "s3", "confluent_kafka": "kafka", "deltalake": "delta"}


def required(package: str) -> Any:
    """Import a package of an extra. Raises ExtraMissing with the line that installs it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        extra = _PACKAGES[error.name]
        raise ExtraMissing(
            f"shipping to this target needs {error.name}: pip install 'sluice-gateway[{extra}]'"
        ) from error
