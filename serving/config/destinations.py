"""Addresses that the gateway itself sends events to. Pure; names are resolved elsewhere.

Whoever writes the configuration is trusted: it names programs to run. So this is no wall against
them, but against an address that is wrong or was copied from somewhere: cloud machines answer on
link-local addresses with their credentials, and on loopback stand services that trust it.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

__all__ = ["Destination", "address_refusal", "host_refusal", "parse_destination"]

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


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


def host_refusal(host: str, hosts: Sequence[str]) -> str:
    """Why nothing is sent to a host, by its name; empty if it may be.

    Args:
        host: as the URL has it.
        hosts: `notify.hosts` of `gateway.yaml`: names, or `*.` and a domain for every name below
            it. Empty: any host.
    """
    name = host.lower().rstrip(".")
    for one in hosts:
        allowed = one.lower().rstrip(".")
        below = allowed.startswith("*.") and name.endswith(allowed[1:]) and name != allowed[2:]
        if name == allowed or below:
            return ""
    return "is not one of `notify.hosts` in gateway.yaml" if hosts else ""


def address_refusal(address: str, *, loopback: bool, private: bool = True) -> str:
    """Why nothing is sent to an IP address; empty if it may be.

    Args:
        address: as a number; a name is never refused.
        loopback: whether this machine itself may be meant.
        private: whether addresses that the internet does not route, loopback too, may be meant.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    ip = _embedded(ip)
    if ip.is_link_local:
        return "is link-local, where cloud machines answer with their credentials"
    if ip.is_unspecified or ip.is_multicast:
        return "is no address of one machine"
    if not private and not ip.is_global:
        return "is private, which is allowed only with `notify.private` in gateway.yaml"
    if ip.is_loopback and not loopback:
        return "is loopback, which is allowed only where `listen.admin` is bound to loopback too"
    return ""


def _embedded(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, where a translator would bring it there."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
