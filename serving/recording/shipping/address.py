"""Where the log is shipped to, by its address."""

from urllib.parse import urlsplit

from serving.recording.shipping.target import Target

__all__ = ["target_of"]


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
