"""One POST to an address that the configuration names: where it may go, and whose it is."""

import asyncio
import hashlib
import hmac
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx
import msgspec

from serving.config.destinations import address_refusal, host_refusal, parse_destination

__all__ = ["SIGNATURE", "DeliveryFailed", "Reach", "post", "post_event", "read_secret", "sign"]

SIGNATURE: Final = "x-sluice-signature"


class DeliveryFailed(Exception):
    """This attempt came to nothing; the message says why, without any secret."""


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Where posts may go; see `serving.config.destinations`."""

    hosts: Sequence[str] = ()
    """Names that are allowed; empty: any."""

    loopback: bool
    private: bool = True


def sign(key: bytes, body: bytes) -> str:
    """The value of `x-sluice-signature`: `sha256=` and the HMAC-SHA256 of the body, in hex."""
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def read_secret(directory: Path, name: str) -> bytes:
    """What a `secret_file` holds; empty if none is named. Raises DeliveryFailed. Reads a file."""
    if not name:
        return b""
    try:
        secret = (directory / name).read_bytes().strip()
    except OSError as error:
        raise DeliveryFailed(f"`secret_file` cannot be read: {error.strerror}") from error
    if not secret:
        raise DeliveryFailed("`secret_file` is empty")
    return secret


async def post_event(url: str, key: bytes, event: bytes, reach: Reach) -> str:
    """Send a CloudEvent to a webhook; says what it answered.

    Args:
        url: the webhook's.
        key: signs the event; empty: it is not signed.
        event: in structured JSON.
        reach: where it may go.

    Raises:
        DeliveryFailed: it did not take it.
    """
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    if key:
        headers[SIGNATURE] = sign(key, event)
    status = await post(url, headers, event, reach)
    if not 200 <= status < 300:
        raise DeliveryFailed(f"the webhook answered {status}")
    return f"the webhook answered {status}"


async def post(url: str, headers: Mapping[str, str], body: bytes, reach: Reach) -> int:
    """Send a body, and say the status of the answer. The caller bounds the time.

    The connection goes to an address that was looked at, not to what the name means a moment
    later; the certificate must still be the name's.

    Raises:
        DeliveryFailed: it may not go there, or nobody answers.
    """
    found = await _addresses(url, reach)
    refused: httpx.ConnectError | None = None
    try:
        target = httpx.URL(url)
        named = {"host": target.netloc.decode("ascii"), **headers}
        extensions = {"sni_hostname": target.raw_host.decode("ascii")}
        # No proxy and no redirect: it goes where the configuration says, or nowhere. Loading the
        # system's authorities costs 20 ms, for nothing where there is no TLS.
        async with httpx.AsyncClient(
            trust_env=False,
            timeout=None,  # noqa: S113
            verify=target.scheme == "https",
        ) as http:
            for address in found:
                pinned = target.copy_with(host=address)
                sending = http.stream(
                    "POST", pinned, headers=named, content=body, extensions=extensions
                )
                try:
                    async with sending as answer:
                        return answer.status_code
                except httpx.ConnectError as error:
                    refused = error  # the next one may be listening
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DeliveryFailed(f"no answer: {str(error) or type(error).__name__}") from error
    raise DeliveryFailed(f"no answer: {str(refused) or 'ConnectError'}") from refused


async def _addresses(url: str, reach: Reach) -> list[str]:
    """Every address of the host, all of which must be allowed."""
    try:
        where = parse_destination(url)
        if refusal := host_refusal(where.host, reach.hosts):
            raise DeliveryFailed(f"`{where.host}` {refusal}")
        found = await asyncio.get_running_loop().getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM
        )
    except ValueError as error:
        raise DeliveryFailed(f"the address cannot be used: {error}") from error
    except OSError as error:
        raise DeliveryFailed(f"the host cannot be found: {error.strerror or error}") from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    for address in addresses:
        refusal = address_refusal(address, loopback=reach.loopback, private=reach.private)
        if refusal:
            raise DeliveryFailed(f"the address of the host {refusal}")
    return addresses
