"""Certificates of a worker's listeners: presented, asked for, refused if unusable."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from settings_kit import GOOD, good_directory

from serving.config.schema import Listener, TlsConfig
from serving.errors import InvalidConfig
from serving.worker.settings import load_settings, server_context


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration directory with a good gateway.yaml."""
    return good_directory(tmp_path / "config")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


@pytest.fixture
def certified(config: Path, authority: trustme.CA) -> Path:
    """The configuration directory with a certificate, its key, and its authority."""
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(config / "server.key"))
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (config / "server.pem").write_bytes(chain)
    authority.cert_pem.write_to_path(str(config / "ca.pem"))
    return config


def listener(**more: str) -> Listener:
    """A listener with TLS."""
    tls = TlsConfig(**{"cert": "server.pem", "key": "server.key", **more})
    return Listener(address="127.0.0.1:0", tls=tls)


async def greet(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, str | None]:
    """Say hello over TLS: what came back, and under which version of TLS.

    Raises SSLError or ConnectionError if the server hangs up instead.
    """

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server)
    async with asyncio.timeout(30), listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname="localhost"
        )
        try:
            writer.write(b"hello\n")
            # With TLS 1.3 a client learns only now that its certificate is not wanted.
            answer = await reader.readexactly(6)
            return answer, writer.get_extra_info("ssl_object").version()
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the server hung up") from error
        finally:
            writer.transport.abort()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client that trusts the authority and has no certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("plain", ["127.0.0.1:8000", Listener(address="127.0.0.1:8000")])
def test_a_plaintext_listener_has_no_context(config: Path, plain: str | Listener) -> None:
    """Neither way of writing an address alone turns TLS on."""
    assert server_context("listen.http", plain, config) is None


async def test_a_certificate_is_presented(certified: Path, authority: trustme.CA) -> None:
    """A client that trusts the authority is answered, over TLS 1.3."""
    context = server_context("listen.http", listener(), certified)
    assert context is not None

    assert await greet(context, trusting(authority)) == (b"hello\n", "TLSv1.3")
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_client_without_a_certificate_is_turned_away(
    certified: Path, authority: trustme.CA
) -> None:
    """With `client_ca`, only clients certified by that authority get an answer."""
    context = server_context("listen.http", listener(client_ca="ca.pem"), certified)
    assert context is not None
    with_certificate, with_another = trusting(authority), trusting(authority)
    authority.issue_cert("client").configure_cert(with_certificate)
    trustme.CA().issue_cert("client").configure_cert(with_another)

    assert (await greet(context, with_certificate))[0] == b"hello\n"
    for stranger in (trusting(authority), with_another):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greet(context, stranger)


def spoil(folder: Path, how: str) -> dict[str, str]:
    """Break the TLS files in one way; returns what else the listener then says."""
    match how:
        case "no certificate":
            (folder / "server.pem").unlink()
        case "no key":
            (folder / "server.key").unlink()
        case "garbage":
            (folder / "server.pem").write_text("not a certificate")
        case "another's key":
            other = trustme.CA().issue_cert("localhost")
            other.private_key_pem.write_to_path(str(folder / "server.key"))
        case "key under a password":
            pem = (folder / "server.key").read_bytes()
            key = serialization.load_pem_private_key(pem, None)
            (folder / "server.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            )
        case "no authority":
            return {"client_ca": "nowhere.pem"}
        case "an empty authority":
            (folder / "ca.pem").write_bytes(b"")
            return {"client_ca": "ca.pem"}
    return {}


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    "how",
    [
        "no certificate",
        "no key",
        "garbage",
        "another's key",
        "key under a password",
        "no authority",
        "an empty authority",
    ],
)
def test_tls_files_that_cannot_be_used_are_refused(
    certified: Path, data: Path, protocol: str, how: str
) -> None:
    """A worker does not start without the protection it was told to have; nobody is asked."""
    tls: dict[str, Any] = {"cert": "server.pem", "key": "server.key", **spoil(certified, how)}
    listen = {protocol: {"address": "127.0.0.1:0", "tls": tls}}
    (certified / "gateway.yaml").write_text(yaml.safe_dump({**GOOD, "listen": listen}))

    with pytest.raises(InvalidConfig, match=f"the TLS files of listen.{protocol} cannot be used"):
        load_settings(certified, data)


def test_both_listeners_take_their_certificates_from_the_configuration(
    certified: Path, data: Path
) -> None:
    """Paths are relative to the configuration directory, for HTTP and for gRPC."""
    tls = {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    both = {"address": "127.0.0.1:0", "tls": tls}
    gateway = {**GOOD, "listen": {"http": both, "grpc": both}}
    (certified / "gateway.yaml").write_text(yaml.safe_dump(gateway))

    settings = load_settings(certified, data)

    assert settings.http_tls is not None
    assert settings.http_tls.verify_mode is ssl.CERT_REQUIRED
    assert settings.grpc_credentials is not None
