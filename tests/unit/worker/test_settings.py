"""What a worker takes from gateway.yaml, and what it does with files that are half edited."""

import asyncio
import hashlib
import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization

from serving.config.applied import Applied, write_applied
from serving.config.schema import AuthConfig, GatewayConfig, Listener, TlsConfig
from serving.errors import InvalidConfig, Unauthenticated
from serving.worker.settings import Credentials, load_settings, server_context

GOOD = {"schema_version": 1, "server_name": "good", "limits": {"default_deadline": "250ms"}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration directory with a good gateway.yaml."""
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "gateway.yaml").write_text(yaml.safe_dump(GOOD))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


# --- the last good state --------------------------------------------------------------------


def test_without_tokens_and_certificates_everything_is_open(config: Path, data: Path) -> None:
    """The plain case: what the file says, no TLS, and anonymous callers."""
    settings = load_settings(config, data)

    assert settings.gateway.server_name == "good"
    assert settings.http_tls is None
    assert settings.grpc_credentials is None
    assert settings.credentials.identify(None).name == "anonymous"


@pytest.mark.parametrize(
    "broken", ["schema_version: 1\nserver_nam: x\n", "a: [", "\x00", "limits: 5\n"]
)
def test_a_broken_file_leaves_the_last_good_state(
    config: Path, data: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker restarted halfway through an edit starts with what was good, and says so."""
    before = load_settings(config, data)
    (config / "gateway.yaml").write_text(broken)

    after = load_settings(config, data)

    assert after.gateway == before.gateway
    assert float(after.gateway.limits.default_deadline) == 0.25
    assert "gateway.yaml cannot be used" in caplog.text


def test_a_file_emptied_for_a_moment_opens_no_door(config: Path, data: Path) -> None:
    """An empty file is valid and means no tokens, so after a fuller one it is not believed."""
    tokens = config / "tokens.yaml"
    write_tokens(tokens, "ann")
    gateway = {**GOOD, "auth": {"tokens": tokens.name}}
    (config / "gateway.yaml").write_text(yaml.safe_dump(gateway))
    load_settings(config, data)
    (config / "gateway.yaml").write_text("")

    credentials = load_settings(config, data).credentials

    assert known(credentials, "ann")
    with pytest.raises(Unauthenticated):
        credentials.identify(None)


def test_a_file_that_was_always_empty_is_all_defaults(config: Path, data: Path) -> None:
    """On a new data directory nothing contradicts an empty file, nor when it is read again."""
    (config / "gateway.yaml").write_text("")

    for _ in range(2):
        assert load_settings(config, data).gateway.server_name == "sluice"


def test_a_removed_file_leaves_the_last_good_state(config: Path, data: Path) -> None:
    """An editor that replaces the file may be caught without one."""
    load_settings(config, data)
    (config / "gateway.yaml").unlink()

    assert load_settings(config, data).gateway.server_name == "good"


def test_an_edited_file_is_what_counts_and_what_is_remembered(config: Path, data: Path) -> None:
    """The last good state is the latest one, not the first."""
    load_settings(config, data)
    (config / "gateway.yaml").write_text(yaml.safe_dump({**GOOD, "server_name": "newer"}))
    load_settings(config, data)
    (config / "gateway.yaml").write_text("a: [")

    assert load_settings(config, data).gateway.server_name == "newer"


def test_a_generation_goes_by_what_was_applied_and_where(config: Path, data: Path) -> None:
    """Neither an edit nor the directory that the engine was started with matters then."""
    applied = data.parent / "applied"
    applied.mkdir()
    write_tokens(applied / "tokens.yaml", "ann")
    write_applied(
        data,
        3,
        Applied(
            gateway=GatewayConfig(server_name="third", auth=AuthConfig(tokens="tokens.yaml")),
            directory=str(applied),
        ),
    )
    (config / "gateway.yaml").write_text("a: [")
    settings = load_settings(config, data, 3)

    assert settings.gateway.server_name == "third"
    assert known(settings.credentials, "ann")


def test_under_one_engine_all_workers_go_by_the_same_file(config: Path, data: Path) -> None:
    """A worker restarted alone does not take up an edit that its siblings have not."""
    (data / "run").mkdir()
    load_settings(config, data)
    (config / "gateway.yaml").write_text("schema_version: 1\nserver_name: edited\n")

    assert load_settings(config, data).gateway.server_name == "good"
    (data / "run" / "gateway.json").unlink()  # what `sluice up` does
    assert load_settings(config, data).gateway.server_name == "edited"


def test_what_was_never_good_is_refused(config: Path, data: Path) -> None:
    """Without a last good state the mistake is reported with its place."""
    (config / "gateway.yaml").write_text("schema_version: 1\nserver_nam: x\n")

    with pytest.raises(InvalidConfig, match="server_nam"):
        load_settings(config, data)


@pytest.mark.parametrize("remembered", [b"", b"{", b"\xff", b'{"limits": 5}', b"[" * 100_000])
def test_a_last_good_state_that_is_damaged_does_not_hide_the_mistake(
    config: Path, data: Path, remembered: bytes
) -> None:
    """With neither file usable, the one that a person can mend is reported."""
    (data / "gateway.json").write_bytes(remembered)
    (config / "gateway.yaml").write_text("schema_version: 1\nserver_nam: x\n")

    with pytest.raises(InvalidConfig, match="server_nam"):
        load_settings(config, data)


def test_a_state_that_cannot_be_remembered_is_used_all_the_same(
    config: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full or read-only disk does not keep a worker from starting."""
    (data / "gateway.json").mkdir()

    assert load_settings(config, data).gateway.server_name == "good"
    assert "cannot be remembered" in caplog.text


def test_the_remembered_state_is_for_its_owner_only(config: Path, data: Path) -> None:
    """It may hold the store's password."""
    load_settings(config, data)

    assert (data / "gateway.json").stat().st_mode & 0o777 == 0o600


# --- tokens ---------------------------------------------------------------------------------


def write_tokens(file: Path, *names: str) -> None:
    """The token of NAME is `secret-NAME`."""
    entries = [
        {
            "name": name,
            "sha256": hashlib.sha256(f"secret-{name}".encode()).hexdigest(),
            "roles": ["infer"],
        }
        for name in names
    ]
    file.write_text(yaml.safe_dump({"tokens": entries}))


def known(credentials: Credentials, name: str) -> bool:
    """Whether NAME's token is accepted, under its name."""
    try:
        return credentials.identify(f"Bearer secret-{name}").name == name
    except Unauthenticated:
        return False


@pytest.fixture
def tokens(config: Path) -> Path:
    """A token file with ann in it."""
    file = config / "tokens.yaml"
    write_tokens(file, "ann")
    return file


def test_a_configured_token_file_closes_the_door(config: Path, data: Path, tokens: Path) -> None:
    """With `auth.tokens` set, a caller needs a token from the file beside gateway.yaml."""
    gateway = {**GOOD, "auth": {"tokens": tokens.name}}
    (config / "gateway.yaml").write_text(yaml.safe_dump(gateway))

    credentials = load_settings(config, data).credentials

    assert known(credentials, "ann")
    assert not known(credentials, "bob")
    with pytest.raises(Unauthenticated):
        credentials.identify(None)


@pytest.mark.parametrize("content", [None, "tokens: []\n", "tokens: [", "\x00"])
def test_a_token_file_that_was_never_good_is_refused(tokens: Path, content: str | None) -> None:
    """A worker does not start open, or with nobody, because its token file is broken."""
    if content is None:
        tokens.unlink()
    else:
        tokens.write_text(content)

    with pytest.raises(InvalidConfig):
        Credentials(tokens)


@pytest.mark.parametrize("content", [None, "tokens: [", "\x00"])
def test_a_restart_knows_the_tokens_of_a_file_broken_since(
    tokens: Path, data: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker restarted while the file is unusable goes on with the hashes it had."""
    assert known(Credentials(tokens, data / "tokens.json"), "ann")
    if content is None:
        tokens.unlink()
    else:
        tokens.write_text(content)

    restarted = Credentials(tokens, data / "tokens.json")

    assert known(restarted, "ann")
    assert not known(restarted, "bob")
    assert "the token file is not used" in caplog.text
    assert (data / "tokens.json").stat().st_mode & 0o077 == 0


def test_an_edited_token_file_is_taken_over(tokens: Path) -> None:
    """New tokens work and removed ones stop working, without a restart."""
    credentials = Credentials(tokens)
    write_tokens(tokens, "bob", "eve")

    assert known(credentials, "ann")
    credentials.refresh()

    assert [known(credentials, name) for name in ("ann", "bob", "eve")] == [False, True, True]


def test_a_file_put_in_its_place_is_taken_over_whatever_its_age(tokens: Path) -> None:
    """A file of the same size and time, moved over the old one, is noticed."""
    credentials = Credentials(tokens)
    old = tokens.stat()
    other = tokens.with_name("other.yaml")
    write_tokens(other, "bob")
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(tokens)
    assert (tokens.stat().st_size, tokens.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)

    credentials.refresh()

    assert not known(credentials, "ann")
    assert known(credentials, "bob")


def test_an_unchanged_file_is_not_read(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs a stat, four times a second; reading waits for a change."""
    credentials = Credentials(tokens)
    monkeypatch.setattr("serving.worker.settings.load_tokens", pytest.fail)

    credentials.refresh()

    assert known(credentials, "ann")


def test_a_removed_token_file_leaves_the_known_tokens(tokens: Path) -> None:
    """While the file is gone its last content counts; what replaces it counts then."""
    credentials = Credentials(tokens)
    tokens.unlink()
    credentials.refresh()
    assert known(credentials, "ann")

    write_tokens(tokens, "bob", "eve")
    credentials.refresh()

    assert known(credentials, "bob")
    assert not known(credentials, "ann")


@pytest.mark.parametrize("content", ["", "tokens: []\n", "tokens: [", "\x00", "tokens: 5\n"])
def test_a_broken_token_file_leaves_the_known_tokens(
    tokens: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake is reported once and locks nobody out; the mended file counts again."""
    credentials = Credentials(tokens)
    tokens.write_text(content)
    credentials.refresh()
    credentials.refresh()

    assert known(credentials, "ann")
    assert caplog.text.count("the edited token file is not used") == 1
    write_tokens(tokens, "bob", "eve")
    credentials.refresh()
    assert known(credentials, "bob")


def test_taking_over_a_file_is_logged_without_its_content(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs say that the tokens changed, never what they are."""
    caplog.set_level(logging.INFO)
    credentials = Credentials(tokens)
    write_tokens(tokens, "bob", "eve")

    credentials.refresh()

    assert "tokens read again" in caplog.text
    assert hashlib.sha256(b"secret-bob").hexdigest() not in caplog.text


def test_open_doors_have_nothing_to_read_again() -> None:
    """Without a token file a refresh changes nothing."""
    credentials = Credentials(None)

    credentials.refresh()

    assert credentials.identify(None).name == "anonymous"


# --- certificates ---------------------------------------------------------------------------


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
