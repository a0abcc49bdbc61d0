"""The admin port of a running control process: who may do what, and what nobody is shown."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme
from control_admin_kit import Gateway

from serving.config.identity import hash_token
from serving.control.admin.application import operations_of


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that is not started."""
    async with Gateway(tmp_path) as made:
        yield made


@pytest.fixture
async def running(gateway: Gateway) -> Gateway:
    """A gateway with revision 1."""
    await gateway.start()
    return gateway


async def test_roles_decide_over_every_endpoint(gateway: Gateway) -> None:
    """From the route table itself: nobody, infer, operator and admin on every operation."""
    roles = ("infer", "operator", "admin")
    (gateway.config.root / "tokens.yaml").write_text(
        "tokens:\n"
        + "".join(
            f"  - {{name: {role}, sha256: {hash_token(role)}, roles: [{role}]}}\n" for role in roles
        )
    )
    await gateway.start(auth={"tokens": "tokens.yaml"})
    allowed = {
        "open": {None, *roles},
        "read": {"operator", "admin"},
        "operator": {"operator", "admin"},
        "admin": {"admin"},
    }
    for operation in operations_of(gateway.control._plane):
        path = operation.path.replace("{model}", "nobody")
        for role in (None, *roles, "stranger"):
            headers = {"authorization": f"Bearer {role}"} if role else {}
            answer = await gateway.http.request(operation.method, path, headers=headers)
            refusal = 403 if role in roles else 401
            known = role if role != "stranger" else None
            if known in allowed[operation.need]:
                assert answer.status_code not in (401, 403), (path, role)
            else:
                assert answer.status_code == refusal, (path, role)


async def test_an_unknown_caller_is_refused_audited_and_changes_nothing(running: Gateway) -> None:
    """No verb without a credential, and every attempt leaves its line."""
    body = {"directory": str(running.config.root)}
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
        answer = await running.http.post("/api/v1/config/apply", json=body, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = await running.http.post("/api/v1/config/apply?token=" + running.token, json=body)
    assert answer.status_code == 401

    lines = running.audit()
    assert [line["who"] for line in lines] == ["anonymous"] * 4
    assert all(line["result"].startswith("Unauthenticated: ") for line in lines)
    assert "wrong" not in json.dumps(lines)
    assert (await running.get("/api/v1/status"))["revision"] == 1


async def test_a_page_in_a_browser_is_no_accomplice(running: Gateway) -> None:
    """A foreign Origin on a verb, and a name that was rebound to us, are refused."""
    body = {"directory": str(running.config.root)}
    for origin in ("https://evil.example", "null", "http://localhost:9"):
        answer = await running.http.post(
            "/api/v1/config/apply", json=body, headers={**running.admin, "origin": origin}
        )
        assert answer.status_code == 403
    for path in ("/", "/api/v1/status", "/metrics", "/healthz"):
        answer = await running.http.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 403
    own = await running.http.post(
        "/api/v1/config/apply", json=body, headers={**running.admin, "origin": running.url}
    )
    assert own.status_code == 200


async def test_the_configuration_is_shown_without_secrets(gateway: Gateway) -> None:
    """Whatever is read over the port, the store's password is not in it, nor in the journal."""
    await gateway.start(store="redis://user:hunter2@localhost:1/0")
    pages = [
        (await gateway.http.get(path)).text
        for path in ("/api/v1/config", "/api/v1/status", "/api/v1/history", "/", "/metrics")
    ]
    config = json.loads(pages[0])

    assert config["gateway"]["store"] == "redis://***@localhost:1/0"
    assert config["models"]["demo"]["traffic"]["production"] == "v1"
    assert config["staged"]["demo"]["v1"]["sha256"] == gateway.config.digests["v1"]
    journal = (gateway.data / "journal" / "snapshots.jsonl").read_text()
    for text in (*pages, journal):
        assert "hunter2" not in text
        assert gateway.token not in text
    assert str(gateway.data) not in "".join(pages)


async def test_the_listener_speaks_tls_and_asks_for_client_certificates(
    gateway: Gateway,
) -> None:
    """With `client_ca` only holders of a certificate get through the handshake."""
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("ann@example.org")
    root = gateway.config.root
    server.private_key_pem.write_to_path(root / "key.pem")
    (root / "key.pem").chmod(0o600)
    server.cert_chain_pems[0].write_to_path(root / "cert.pem")
    authority.cert_pem.write_to_path(root / "ca.pem")
    tls = {"cert": "cert.pem", "key": "key.pem", "client_ca": "ca.pem"}
    with_certificate = ssl.create_default_context()
    authority.configure_trust(with_certificate)
    client.configure_cert(with_certificate)
    gateway.verify = with_certificate
    await gateway.start(listen={"admin": {"address": "127.0.0.1:0", "tls": tls}})

    assert (await gateway.get("/healthz")) == {"healthy": True}
    origin = {**gateway.admin, "origin": gateway.url}
    verb = await gateway.http.post("/v2/repository/models/demo/load", headers=origin)
    assert verb.status_code == 200
    without = ssl.create_default_context()
    authority.configure_trust(without)
    async with httpx.AsyncClient(verify=without) as stranger:
        with pytest.raises(httpx.TransportError):
            await stranger.get(gateway.url + "/healthz")
