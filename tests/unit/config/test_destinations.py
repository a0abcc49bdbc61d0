import pytest

from serving.config.destinations import address_refusal, host_refusal


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "::1", "192.168.1.2", "100.100.100.200", "fd00:ec2::254",
     "::ffff:10.1.2.3", "64:ff9b::a00:1", "2002:a00:1::1"],
)  # fmt: skip
def test_what_the_internet_does_not_route_is_private(address: str) -> None:
    """Also behind an IPv6 address that a translator turns into one."""
    assert "`notify.private`" in address_refusal(address, loopback=True, private=False)
    assert address_refusal(address, loopback=True) == ""


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "64:ff9b::a9fe:a9fe", "0.0.0.0"])
def test_some_addresses_are_never_meant(address: str) -> None:
    """Whatever is configured."""
    assert address_refusal(address, loopback=True, private=True)


def test_a_public_address_is_fine() -> None:
    """Of either family."""
    assert address_refusal("93.184.216.34", loopback=False, private=False) == ""
    assert address_refusal("2606:2800:220:1::1", loopback=False, private=False) == ""


@pytest.mark.parametrize(
    ("host", "hosts", "allowed"),
    [
        ("anything.example", [], True),
        ("ci.example", ["ci.example"], True),
        ("CI.example.", ["ci.Example"], True),
        ("a.ci.example", ["ci.example"], False),
        ("a.ci.example", ["*.ci.example"], True),
        ("ci.example", ["*.ci.example"], False),
        ("evilci.example", ["*.ci.example"], False),
        ("ci.example.evil", ["ci.example"], False),
    ],
)
def test_only_listed_hosts_are_allowed(host: str, hosts: list[str], allowed: bool) -> None:
    """A star stands for names below a domain, not for the domain."""
    assert (host_refusal(host, hosts) == "") is allowed
