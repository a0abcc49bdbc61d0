"""What another server says of a model: asked once, when a configuration is compiled.

Open Inference Protocol V2: server metadata (`GET /v2`, whose `extensions` tell whether tensors may
travel as raw bytes) and model metadata (`GET /v2/models/NAME[/versions/VERSION]`).
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import httpx
import msgspec

from serving.config.model_url import ModelUrl, parse_model_url
from serving.config.snapshot import StagedVersion
from serving.errors import InvalidArtifact, InvalidRequest
from serving.protocol.rest_client import decode_error, decode_metadata
from serving.types import Signature

__all__ = ["describe"]

_SECONDS: Final = 5.0
_BINARY: Final = {"binary_tensor_data", "binary_data"}


class _Server(msgspec.Struct):
    extensions: list[str] = []


def describe(urls: Sequence[str]) -> StagedVersion:
    """Ask every address, and insist that all say the same. Blocks for seconds.

    Raises:
        InvalidArtifact: one does not answer, does not know the model, or disagrees.
    """
    said = [_ask(parse_model_url(url)) for url in urls]
    signature, binary = said[0]
    for url, (other, _) in zip(urls[1:], said[1:], strict=True):
        if other != signature:
            raise InvalidArtifact(
                f"{url} takes or gives other tensors than {urls[0]}; they must serve the same"
            )
    # Any that does not take raw bytes gets JSON, so all do.
    binary = all(taken for _, taken in said)
    digest = hashlib.sha256(msgspec.json.encode([list(urls), signature, binary])).hexdigest()
    return StagedVersion(
        path="", sha256=digest, signature=signature, urls=list(urls), binary=binary
    )


def _ask(url: ModelUrl) -> tuple[Signature, bool]:
    base = f"{'https' if url.secure else 'http'}://{url.authority}"
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=False) as client:
            server = client.get(base + url.server_path)
            model = client.get(base + url.path)
    except (httpx.HTTPError, OSError) as error:
        words = "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
        raise InvalidArtifact(
            f"{base} does not answer: {words}; start that server first, or mend the `url`"
        ) from error
    if model.status_code != httpx.codes.OK:
        words = decode_error(model.content) or f"status {model.status_code}"
        raise InvalidArtifact(f"{base} does not describe {url.path}: {words}")
    try:
        inputs, outputs = decode_metadata(model.content)
    except InvalidRequest as error:
        raise InvalidArtifact(f"{base}{url.path}: {error.message}") from error
    if not inputs or not outputs:
        raise InvalidArtifact(
            f"{base} names no inputs or no outputs of {url.path}; declare them there "
            "(MLServer: `inputs` and `outputs` in model-settings.json)"
        )
    batchable = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    return Signature(inputs, outputs, batchable), _takes_raw_bytes(server)


def _takes_raw_bytes(answer: httpx.Response) -> bool:
    try:
        said = msgspec.json.decode(answer.content, type=_Server)
    except msgspec.DecodeError:
        return False
    return not _BINARY.isdisjoint(said.extensions)
