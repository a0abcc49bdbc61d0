"""A `curl` line that works as printed, for the first model of a running gateway."""

import json
import shlex
from pathlib import Path
from typing import Any, Final

from serving.config.addresses import Address, listener_parts
from serving.config.schema import GatewayConfig
from serving.config.snapshot_codec import decode_snapshot
from serving.engine.ports import reachable, written
from serving.errors import InvalidConfig
from serving.types import TensorMetadata

__all__ = ["EXAMPLE_FILE", "body_from_snapshot", "curl_line", "inline_body"]

EXAMPLE_FILE: Final = "example-request.json"
"""A request for the directory's first model; if it is there, it is what we show."""


def curl_line(
    *, http: Address, gateway: GatewayConfig, configuration: Path, model: str, body: str
) -> str:
    """The command, quoted for a POSIX shell.

    `body` is curl's `-d` argument: `@FILE` or the JSON itself. A listener with TLS is called by
    https with its own certificate as authority; one with tokens gets `$SLUICE_TOKEN`.
    """
    _, tls = listener_parts(gateway.listen.http)
    scheme = "http" if tls is None else "https"
    words = ["curl", "-s"]
    if tls is not None:
        words += ["--cacert", str(configuration / tls.cert)]
        if tls.client_ca is not None:
            words += ["--cert", "client.pem", "--key", "client.key"]
    words += [f"{scheme}://{written(reachable(http))}/v2/models/{model}/infer", "-d", body]
    line = shlex.join(words)
    if gateway.auth is not None:
        line += ' -H "Authorization: Bearer $SLUICE_TOKEN"'
    return line


def inline_body(inputs: list[TensorMetadata]) -> str:
    """A JSON request of zeros (empty strings for BYTES) in the smallest allowed shapes."""
    return json.dumps({"inputs": [_zeros(tensor) for tensor in inputs if not tensor.optional]})


def _zeros(tensor: TensorMetadata) -> dict[str, Any]:
    shape = [max(size, 1) if size < 0 else size for size in tensor.shape]
    count = 1
    for size in shape:
        count *= size
    zero: object = {"BYTES": "", "BOOL": False}.get(tensor.datatype, 0)
    data = [zero] * count
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data}


def body_from_snapshot(data: Path, model: str) -> str | None:
    """An inline body from what control published, or None if that cannot be read."""
    try:
        snapshot = decode_snapshot((data / "snapshot.json").read_bytes())
        version = snapshot.models[model].traffic.production
        return inline_body(snapshot.staged[model][version].signature.inputs)
    except (OSError, KeyError, InvalidConfig):
        return None
