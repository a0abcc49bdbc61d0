"""Addresses that a request for training may be sent to. Pure; names are resolved elsewhere.

Whoever writes the configuration is trusted: it names programs to run. So this is no wall against
them, but against an address that is wrong or was copied from somewhere: cloud machines answer on
link-local addresses with their credentials, and on loopback stand services that trust it.
"""

import ipaddress
from urllib.parse import urlsplit

import msgspec

__all__ = ["Destination", "address_refusal", "parse_destination"]


class Destination(msgspec.Struct, frozen=True):
    """Where a URL leads."""

    host: str
    port: int
    encrypted: bool


def parse_destination(url: str) -> Destination:
    """Read an http or https URL. Raises ValueError with what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a name or password; use `secret_file`")
    if not parts.hostname:
        raise ValueError("the host is missing")
    if parts.fragment:
        raise ValueError("a part behind `#` is never sent")
    encrypted = parts.scheme == "https"
    try:
        port = parts.port or (443 if encrypted else 80)
    except ValueError as error:
        raise ValueError("the port must be a number from 1 to 65535") from error
    return Destination(parts.hostname, port, encrypted)


def address_refusal(address: str, *, loopback: bool) -> str:
    """Why nothing is sent to an IP address; empty if it may be.

    Args:
        address: as a number; a name is never refused.
        loopback: whether the gateway's admin port is bound to loopback, so that this is a machine
            of its own and services beside it are meant.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped if mapped is not None else ip
    if ip.is_link_local:
        return "is link-local, where cloud machines answer with their credentials"
    if ip.is_unspecified or ip.is_multicast:
        return "is no address of one machine"
    if ip.is_loopback and not loopback:
        return "is loopback, which is allowed only where `listen.admin` is bound to loopback too"
    return ""
