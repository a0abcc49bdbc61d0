"""Headers that a plan may read: those that mean nothing else in HTTP or gRPC."""

from typing import Final

__all__ = ["header_trouble"]

# Headers a listener or the gRPC library reads itself; they cannot mean anything else too.
_RESERVED: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "inference-header-content-length",
        "te",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-request-id",
        "x-request-timeout",
    }
)


def header_trouble(header: str) -> tuple[str, str] | None:
    """What is wrong with a header and what to do instead; None if nothing is."""
    if header in _RESERVED or header.startswith("grpc-"):
        return (
            f"`{header}` has a meaning of its own in HTTP or gRPC",
            "use another header, such as `x-sluice-version`",
        )
    if header.endswith("-bin"):
        return "gRPC takes metadata whose key ends in `-bin` for binary data", "use another name"
    return None
