"""Parquet files to an object store that speaks S3: one object each, under the file's own path.

Sent again, an object is replaced by the same; so there are no duplicates. One whose file was
written anew, because rows were erased, is replaced too.
"""

from typing import Any

import pyarrow.parquet as pq

from serving.recording.shipping.target import Consignment, ShippingFailed, required

__all__ = ["S3Target"]


class S3Target:
    """A bucket. Address and credentials are found as all of boto3's are.

    Args:
        bucket: by name; it has to exist.
        prefix: what keys begin with; may be empty.
        options: arguments of boto3's client, such as `endpoint_url`.

    Raises:
        ExtraMissing: boto3 is not installed.
    """

    def __init__(self, bucket: str, prefix: str, options: dict[str, str]) -> None:
        boto3 = required("boto3")
        self._errors = required("botocore.exceptions"), required("boto3.exceptions")
        config = required("botocore.config").Config(
            # Stores other than Amazon's refuse the newer checksums; TLS and the store's own remain.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 5},
        )
        self._client: Any = boto3.client("s3", config=config, **options)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def ship(self, consignment: Consignment) -> int:
        """Put one object; it is there as a whole or not at all."""
        botocore, transfer = self._errors
        key = self._prefix + consignment.file
        try:
            with consignment.path.open("rb") as file:
                self._client.upload_fileobj(file, self._bucket, key)
        except (botocore.BotoCoreError, botocore.ClientError, transfer.Boto3Error) as error:
            raise ShippingFailed(
                f"{self._bucket} did not take {consignment.file}: {error}"
            ) from error
        return pq.read_metadata(consignment.path).num_rows  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let connections go."""
        self._client.close()
