"""What must hold between the parts of gateway.yaml, its certificates and its tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from config_rules_kit import DIGEST, OTHER_DIGEST, findings, sound_directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory without a mistake."""
    return sound_directory(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "engine: {kind: local, address: 127.0.0.1:6379}",
            "engine.address: the engine `local` joins no cluster",
        ),
        (
            "engine: {workers: {min: 3, max: 2}}",
            "1:25: error: engine.workers.min: min is 3, more than max, which is 2",
        ),
        (
            "engine: {workers: {min: 1, max: 2}}",
            "1:33: warning: engine.workers.max: the engine `local` does not scale",
        ),
        (
            "limits: {default_deadline: 2m}",
            "1:28: error: limits.default_deadline: longer than limits.max_deadline, 1m",
        ),
        ("limits: {max_body: 0B}", "1:20: error: limits.max_body: must be more than nothing"),
        ("limits: {idle_timeout: 0s}", "limits.idle_timeout: must be more than nothing"),
        (
            "listen: {http: 127.0.0.1:8001}",
            "1:1: error: listen.grpc: the same port as listen.http",
        ),
        (
            "listen: {http: 127.0.0.1:9, admin: 'localhost:9'}",
            "1:36: error: listen.admin: the same port as listen.http",
        ),
        ("listen: {http: 8000}", "1:16: error: listen.http: expected `host:port`, such as"),
        ("listen: {http: ':8000'}", "listen.http: the host is missing"),
        ("listen: {http: '::1:8000'}", "listen.http: an IPv6 address needs brackets"),
        ("listen: {http: 'localhost:65536'}", "listen.http: the port must be a number"),
        ("listen: {http: 'localhost:x'}", "listen.http: the port must be a number"),
        ("listen: {http: 'http://localhost:80'}", "listen.http: an IPv6 address needs brackets"),
        ("listen: {http: 'a/b:80'}", "listen.http: expected `host:port` and nothing else"),
        ("auth: {tokens: none.yaml}", "none.yaml: error: no such file"),
    ],
)
def test_a_gateway_that_cannot_run_is_explained(root: Path, text: str, expected: str) -> None:
    """Each rule for gateway.yaml names the option."""
    (root / "gateway.yaml").write_text(text)

    assert any(expected in finding for finding in findings(root))


@pytest.mark.parametrize(
    "text",
    [
        "listen: {http: '127.0.0.1:0', grpc: '127.0.0.1:0', admin: '127.0.0.1:0'}",
        "listen: {http: '[::1]:8000', grpc: 'localhost:8001'}",
        "listen: {http: '127.0.0.1:9', grpc: '127.0.0.2:9'}",
        "engine: {workers: {min: 2, max: 2}}",
    ],
)
def test_a_gateway_that_can_run_is_left_in_peace(root: Path, text: str) -> None:
    """Port 0 never collides, loopback has many spellings, and several addresses share a port."""
    (root / "gateway.yaml").write_text(text)

    assert findings(root) == []


@pytest.fixture
def secured(root: Path) -> Path:
    """The directory with certificates, an authority for clients, and a token."""
    authority = trustme.CA()
    issued = authority.issue_cert("gateway.example")
    issued.cert_chain_pems[0].write_to_path(root / "cert.pem")
    issued.private_key_pem.write_to_path(root / "key.pem")
    authority.cert_pem.write_to_path(root / "ca.pem")
    (root / "key.pem").chmod(0o600)
    (root / "tokens.yaml").write_text(
        f"tokens: [{{name: web, sha256: {DIGEST}, roles: [infer]}}]\n"
    )
    (root / "tokens.yaml").chmod(0o600)
    return root


OPEN = "listen: {http: 0.0.0.0:8000}"
TLS = "listen: {http: {address: 0.0.0.0:8000, tls: {cert: cert.pem, key: key.pem}}}"
MUTUAL = (
    "listen: {http: {address: 0.0.0.0:8000, "
    "tls: {cert: cert.pem, key: key.pem, client_ca: ca.pem}}}"
)
TOKENS = "\nauth: {tokens: tokens.yaml}"


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        (OPEN, ["not encrypted", "everybody"]),
        (OPEN + TOKENS, ["not encrypted"]),
        (TLS, ["everybody"]),
        ("listen: {admin: '[::]:8002'}", ["not encrypted", "everybody"]),
        ("listen: {grpc: 'gateway.example:8001'}", ["not encrypted", "everybody"]),
    ],
)
def test_a_listener_beyond_loopback_must_be_protected(
    secured: Path, text: str, lacking: list[str]
) -> None:
    """Without encryption or without a way to know callers, it is refused unless forced by name."""
    (secured / "gateway.yaml").write_text(text)

    [finding] = findings(secured)
    [forced] = findings(secured, insecure=True)

    assert all(word in finding for word in [*lacking, "--insecure-bind"])
    assert ("not encrypted" in finding, "everybody" in finding) == (
        "not encrypted" in lacking,
        "everybody" in lacking,
    )
    assert forced == finding.replace(": error: ", ": warning: ")


@pytest.mark.parametrize("text", [TLS + TOKENS, MUTUAL, MUTUAL + TOKENS])
def test_a_protected_listener_may_be_reached_from_anywhere(secured: Path, text: str) -> None:
    """TLS together with tokens or client certificates is enough."""
    (secured / "gateway.yaml").write_text(text)

    assert findings(secured) == []


def _encrypted_key(root: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((root / "key.pem").read_bytes(), None)
    (root / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: (root / "cert.pem").unlink(), "tls.cert: there is no such file"),
        (lambda root: (root / "key.pem").unlink(), "tls.key: there is no such file"),
        (lambda root: (root / "ca.pem").unlink(), "tls.client_ca: there is no such file"),
        (lambda root: (root / "cert.pem").write_text("x"), "tls.cert: holds no certificate"),
        (lambda root: (root / "key.pem").write_text("x"), "tls.key: holds no unencrypted private"),
        (lambda root: (root / "ca.pem").write_text("x"), "tls.client_ca: holds no certificate"),
        (_encrypted_key, "tls.key: holds no unencrypted private key"),
        (
            lambda root: (
                trustme.CA().issue_cert("a").private_key_pem.write_to_path(root / "key.pem")
            ),
            "tls.key: is not the key of the certificate",
        ),
        (lambda root: (root / "key.pem").chmod(0o604), "error: listen.http.tls.key: every user"),
        (lambda root: (root / "key.pem").chmod(0o640), "warning: listen.http.tls.key: a whole"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_explained(
    secured: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    """Missing, foreign, encrypted, mismatched and readable keys are found before the start."""
    (secured / "gateway.yaml").write_text(MUTUAL)
    spoil(secured)

    assert any(expected in finding for finding in findings(secured))


def test_a_token_file_that_others_may_read_is_a_warning(secured: Path) -> None:
    """Its hashes are no secrets, but who writes there could let himself in."""
    (secured / "gateway.yaml").write_text(TOKENS)
    (secured / "tokens.yaml").chmod(0o644)

    assert findings(secured) == [
        (
            "gateway.yaml:2:16: warning: auth.tokens: others may read the token file (mode 0644) "
            "(chmod 600)"
        )
    ]


def test_names_and_tokens_are_given_once(secured: Path) -> None:
    """Two entries of one name, and two names for one token, are mistakes."""
    (secured / "gateway.yaml").write_text(TOKENS)
    (secured / "tokens.yaml").write_text(
        "tokens:\n"
        f"  - {{name: web, sha256: {DIGEST}, roles: [infer]}}\n"
        f"  - {{name: web, sha256: {OTHER_DIGEST}, roles: [infer]}}\n"
        f"  - {{name: ops, sha256: {DIGEST}, roles: [admin]}}\n"
    )

    assert findings(secured) == [
        "tokens.yaml: error: tokens[1].name: `web` is also the name of tokens[0]",
        (
            "tokens.yaml: error: tokens[2].sha256: the same token as tokens[0] "
            "(make another with `sluice tokens new`)"
        ),
    ]


def test_mistakes_in_the_token_file_are_all_told(secured: Path) -> None:
    """They come with the file's own lines."""
    (secured / "gateway.yaml").write_text(TOKENS)
    (secured / "tokens.yaml").write_text("tokens:\n  - {name: Web, roles: [root]}\n")

    found = findings(secured)

    assert len(found) == 4
    assert sum(finding.startswith("tokens.yaml:2:") for finding in found) == 3
