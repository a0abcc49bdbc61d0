"""Where the log is shipped to, by its address."""

import importlib
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec

from serving.errors import SluiceError

__all__ = ["Consignment", "ExtraMissing", "ShippingFailed", "Target", "required", "target_of"]


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


def target_of(address: str, options: dict[str, str]) -> Target:
    """Make the target of an address: `s3://BUCKET/PREFIX`, `kafka://HOST:PORT/TOPIC`, `delta:DIR`.

    Args:
        address: as above; `delta:` also takes `delta:s3://BUCKET/PREFIX`.
        options: of the target's own client: librdkafka's settings, storage options of Delta Lake,
            arguments of boto3's client.

    Raises:
        ValueError: it is none of these. ExtraMissing: the target's package is not installed.
    """
    scheme, _, rest = address.partition(":")
    if scheme == "s3":
        from serving.recording.shipping.s3 import S3Target  # noqa: PLC0415 - an extra's

        parts = urlsplit(address)
        if not parts.netloc:
            raise ValueError("s3://BUCKET/PREFIX names a bucket and what keys begin with")
        return S3Target(parts.netloc, parts.path.strip("/"), options)
    if scheme == "kafka":
        from serving.recording.shipping.kafka import KafkaTarget  # noqa: PLC0415 - an extra's

        parts = urlsplit(address)
        topic = parts.path.strip("/")
        if not parts.netloc or not topic or "/" in topic:
            raise ValueError(
                "kafka://HOST:PORT/TOPIC names brokers, separated by commas, and a topic"
            )
        return KafkaTarget(parts.netloc, topic, options)
    if scheme == "delta" and rest:
        from serving.recording.shipping.delta import DeltaTarget  # noqa: PLC0415 - an extra's

        return DeltaTarget(rest, options)
    raise ValueError(
        f"`{address}` is not a target: s3://BUCKET/PREFIX, kafka://HOST:PORT/TOPIC or delta:DIR"
    )
