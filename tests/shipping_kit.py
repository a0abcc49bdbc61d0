"""Targets to ship to: an S3 server, Kafka brokers, a folder of Delta tables.

Their packages are extras. Without them a test is skipped on a laptop and fails in CI.
"""

import contextlib
import importlib
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

BOUND_SECONDS = 60.0


def needed(package: str) -> Any:
    """Import a package of an extra, or end the test."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{package} is not installed")
        pytest.skip(f"needs {package}")


class S3:
    """moto's server, which speaks S3 over HTTP; one bucket."""

    prefix = "gateway"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        needed("boto3")
        server = needed("moto.server")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        self._client = needed("boto3").client("s3")
        self._bucket = f"bucket-{uuid.uuid4().hex}"
        self._client.create_bucket(Bucket=self._bucket)
        self.address = f"s3://{self._bucket}/{self.prefix}"

    def people(self) -> list[int]:
        """Whom rows are about."""
        pa, pq = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        found = []
        for key in self.keys():
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            found += pq.read_table(pa.BufferReader(body))["entity.person_id"].to_pylist()
        return sorted(found)

    def keys(self) -> list[str]:
        """What the bucket holds."""
        listed = self._client.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        return [str(one["Key"]) for one in listed]

    def close(self) -> None:
        """End the server."""
        self._client.close()
        self._server.stop()


class Kafka:
    """librdkafka's own brokers, in this process, over the real protocol."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        del monkeypatch
        self._kafka = needed("confluent_kafka")
        self._brokers = self._kafka.Producer(
            {"test.mock.num.brokers": 3, "log_level": 0, "logger": logging.getLogger("librdkafka")}
        )
        found = self._brokers.list_topics(timeout=BOUND_SECONDS).brokers.values()
        self.servers = ",".join(f"{one.host}:{one.port}" for one in found)
        self.address = f"kafka://{self.servers}/predictions"

    def messages(self) -> list[tuple[str, dict[str, Any]]]:
        """Everything in the topic."""
        consumer = self._kafka.Consumer(
            {"bootstrap.servers": self.servers, "group.id": uuid.uuid4().hex, "log_level": 0}
        )
        found = []
        try:
            topic = consumer.list_topics("predictions", timeout=BOUND_SECONDS).topics["predictions"]
            for number in topic.partitions:
                place = self._kafka.TopicPartition("predictions", number, 0)
                _, end = consumer.get_watermark_offsets(place, timeout=BOUND_SECONDS)
                consumer.assign([place])
                for _ in range(end):
                    message = consumer.poll(BOUND_SECONDS)
                    assert message is not None
                    assert message.error() is None
                    found.append((message.key().decode(), orjson.loads(message.value())))
        finally:
            consumer.close()
        return found

    def people(self) -> list[int]:
        """Whom rows are about."""
        return sorted(value["entity"]["person_id"] for _, value in self.messages())

    def close(self) -> None:
        """The brokers end with their handle."""


class Delta:
    """Tables in a folder."""

    def __init__(self, folder: Path) -> None:
        self._delta = needed("deltalake")
        self.root = folder / "lake"
        self.address = f"delta:{self.root}"

    def table(self, model: str = "employment") -> Any:
        """The rows of a model's table, in Arrow."""
        return self._delta.DeltaTable(str(self.root / model)).to_pyarrow_table()

    def people(self) -> list[int]:
        """Whom rows are about."""
        if not self.root.exists():
            return []
        return sorted(self.table()["entity_person_id"].to_pylist())

    def close(self) -> None:
        """Nothing runs."""


@contextlib.contextmanager
def target(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One of them by its scheme."""
    made: Any = Delta(folder) if kind == "delta" else {"s3": S3, "kafka": Kafka}[kind](monkeypatch)
    try:
        yield made
    finally:
        made.close()
