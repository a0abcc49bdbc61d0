"""The envelope of what is sent to others: CloudEvents 1.0 in JSON's structured mode.

Format: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md .
"""

from datetime import UTC, datetime

import msgspec

__all__ = ["CloudEvent", "moment"]


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event; the same fields give the same bytes."""

    specversion: str = "1.0"
    id: str
    """Unique; who gets it twice knows it by this."""

    source: str
    """URI of the gateway's admin port."""

    type: str
    subject: str
    """The model."""

    time: str
    """See `moment`."""

    datacontenttype: str = "application/json"
    data: msgspec.Struct


def moment(at: float) -> str:
    """Seconds since 1970 as RFC 3339 has them: `2026-11-29T22:53:04.000Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
