"""A version's address at another server: `http://HOST:PORT/v2/models/NAME[/versions/VERSION]`."""

import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

__all__ = ["ModelUrl", "parse_model_url"]

_PATH: Final = re.compile(r"(?:/[^/?#\s]+)*?/v2/models/[^/?#\s]+(?:/versions/[^/?#\s]+)?\Z")
_PORTS: Final = {"http": 80, "https": 443}


class ModelUrl(msgspec.Struct, frozen=True):
    """The parts of such an address."""

    secure: bool
    host: str
    port: int
    path: str
    """Of the model; `/infer` behind it is where it answers."""

    @property
    def authority(self) -> str:
        """`host:port`, for the Host header and for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def server_path(self) -> str:
        """Where the server describes itself: all up to `/v2`."""
        return self.path[: self.path.rindex("/models/")]


def parse_model_url(text: str) -> ModelUrl:
    """Take an address apart. Raises ValueError, saying what is wrong with it."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"`{text}` is no URL: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"`{text}` is no http:// or https:// address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL must not hold a password; put the server on a private network")
    if parts.query or parts.fragment or _PATH.match(parts.path) is None:
        raise ValueError(f"`{text}` does not end in /v2/models/NAME or …/versions/VERSION")
    return ModelUrl(
        secure=parts.scheme == "https",
        host=parts.hostname,
        port=port if port is not None else _PORTS[parts.scheme],
        path=parts.path,
    )
