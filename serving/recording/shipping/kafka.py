"""Rows to a Kafka topic, as JSON; the key is `prediction_id:row`.

A file counts as shipped when all brokers that have to (`acks=all`) have confirmed its rows. Sent
again after a crash, its rows are there twice: consumers tell by key and role.
"""

from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from serving.recording.row_document import as_json, document
from serving.recording.shipping.target import Consignment, ShippingFailed, required

__all__ = ["KafkaTarget"]

_BATCH_ROWS: Final = 1000
_CONFIRM_SECONDS: Final = 120.0
_SETTINGS: Final = {
    "acks": "all",
    "enable.idempotence": "true",
    "compression.type": "zstd",
    "linger.ms": "20",
}


class KafkaTarget:
    """A topic.

    Args:
        brokers: `host:port`, separated by commas.
        topic: by name.
        options: settings of librdkafka, such as `security.protocol`.

    Raises:
        ExtraMissing: confluent-kafka is not installed.
    """

    def __init__(self, brokers: str, topic: str, options: dict[str, str]) -> None:
        self._kafka = required("confluent_kafka")
        settings = {"bootstrap.servers": brokers, **_SETTINGS, **options}
        try:
            self._producer: Any = self._kafka.Producer(settings)
        except self._kafka.KafkaException as error:
            raise ShippingFailed(f"Kafka's settings are refused: {error}") from error
        self._topic = topic
        self._failure: object = None

    def ship(self, consignment: Consignment) -> int:
        """Send every row of a file, and wait until all are confirmed."""
        self._failure = None
        rows = 0
        try:
            with pq.ParquetFile(consignment.path) as source:
                for batch in source.iter_batches(_BATCH_ROWS):
                    self._send(batch)
                    rows += batch.num_rows
            left = self._producer.flush(_CONFIRM_SECONDS)
        except self._kafka.KafkaException as error:
            raise ShippingFailed(f"Kafka did not take {consignment.file}: {error}") from error
        if self._failure is not None or left:
            self._producer.purge()
            why = self._failure or f"{left} rows not confirmed within {_CONFIRM_SECONDS:g} s"
            raise ShippingFailed(f"Kafka did not take {consignment.file}: {why}")
        return rows

    def close(self) -> None:
        """Nothing is under way: `ship` waits."""

    def _send(self, batch: pa.RecordBatch) -> None:
        for row in batch.to_pylist():
            key = f"{row['prediction_id'] or row['request_id']}:{row['row']}".encode()
            value = as_json(document(row))
            while True:
                try:
                    self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
                except BufferError:  # its queue is full: wait for confirmations
                    self._producer.poll(0.1)
                else:
                    break
            if self._failure is not None:
                return
        self._producer.poll(0)

    def _delivered(self, error: object, message: object) -> None:
        del message
        if error is not None and self._failure is None:
            self._failure = error
