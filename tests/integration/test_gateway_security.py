"""Credentials and certificates on all three listeners of a real gateway."""

import hashlib
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import grpc
import httpx
import numpy as np
import onnx_models
import pytest
import trustme
import yaml

from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc

TOKENS = {"app": ["infer"], "ops": ["operator"], "boss": ["admin"]}
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [21]}]}
TWO = {"v1": onnx_models.doubler(), "v2": onnx_models.slow(10)}


def write_tokens(folder: Path, names: list[str]) -> None:
    """The token of NAME is `secret-NAME`."""
    entries = [
        {
            "name": name,
            "sha256": hashlib.sha256(f"secret-{name}".encode()).hexdigest(),
            "roles": TOKENS[name],
        }
        for name in names
    ]
    file = folder / "tokens.yaml"
    file.write_text(yaml.safe_dump({"tokens": entries}))
    file.chmod(0o600)


def bearer(name: str) -> dict[str, str]:
    """The header that NAME sends."""
    return {"authorization": f"Bearer secret-{name}"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[gateway_kit.Running]:
    """A gateway with TLS, client certificates and tokens on every listener."""
    folder = tmp_path_factory.mktemp("guarded") / "gateway"
    folder.mkdir()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(str(folder / "server.key"))
    (folder / "server.key").chmod(0o600)
    (folder / "server.pem").write_bytes(
        b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    )
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    tls = {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    listener = {"address": "127.0.0.1:0", "tls": tls}
    write_tokens(folder, list(TOKENS))
    gateway_kit.write_gateway(
        folder,
        listen={"http": listener, "grpc": listener, "admin": listener},
        auth={"tokens": "tokens.yaml"},
    )
    gateway_kit.write_model(folder, "m", TWO, {"overrides": [{"roles": ["operator"]}]})
    with gateway_kit.running(folder) as running:
        yield running


@pytest.fixture(scope="module")
def identity(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client's key and certificate, in one file."""
    file = tmp_path_factory.mktemp("client") / "client.pem"
    authority.issue_cert("client@example.org").private_key_and_cert_chain_pem.write_to_path(
        str(file)
    )
    return file


@pytest.fixture
def client(authority: trustme.CA, identity: Path) -> Iterator[httpx.Client]:
    """An HTTPS client with its certificate."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.load_cert_chain(identity)
    with httpx.Client(verify=context, timeout=30) as made:
        yield made


def test_https_with_certificate_and_token_is_answered(
    guarded: gateway_kit.Running, client: httpx.Client
) -> None:
    """The whole way through TLS to the model."""
    url = f"https://{guarded.http}/v2/models/m/infer"

    answer = client.post(url, json=BODY, headers=bearer("app"))

    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["data"] == [42.0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"authorization": "Bearer wrong"}, 401), ({"authorization": "Basic eA=="}, 401)],
)
def test_without_a_known_token_nothing_but_health_is_answered(
    guarded: gateway_kit.Running, client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    """Models, metadata and statistics need a token; health does not."""
    base = f"https://{guarded.http}"

    assert client.post(f"{base}/v2/models/m/infer", json=BODY, headers=headers).status_code == (
        status
    )
    assert client.get(f"{base}/v2/models/m", headers=headers).status_code == status
    assert client.get(f"{base}/v2/health/ready").status_code == 200


@pytest.mark.parametrize(("name", "status"), [("app", 403), ("ops", 200), ("boss", 200)])
def test_an_override_needs_its_role(
    guarded: gateway_kit.Running, client: httpx.Client, name: str, status: int
) -> None:
    """Operators and admins pick the version; applications may not."""
    headers = {**bearer(name), "x-sluice-version": "v2"}

    answer = client.post(f"https://{guarded.http}/v2/models/m/infer", json=BODY, headers=headers)

    assert answer.status_code == status
    if status == 200:
        assert answer.json()["model_version"] == "v2"


def test_a_client_without_a_certificate_is_not_let_in(
    guarded: gateway_kit.Running, authority: trustme.CA
) -> None:
    """On every listener the handshake fails before a byte is served."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with httpx.Client(verify=context, timeout=30) as stranger:
        for address in (guarded.http, guarded.admin):
            with pytest.raises(httpx.TransportError):
                stranger.get(f"https://{address}/v2/health/live")


def request() -> pb.ModelInferRequest:
    """X = 21."""
    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="X", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(np.array([21], "<f4").tobytes())
    return message


def test_grpc_over_tls_checks_certificate_and_token(
    guarded: gateway_kit.Running, authority: trustme.CA, identity: Path
) -> None:
    """With both it answers; without the token it says so; without the certificate, nothing."""
    pem = identity.read_bytes()
    roots = authority.cert_pem.bytes()
    known = grpc.ssl_channel_credentials(roots, pem, pem)
    with grpc.secure_channel(guarded.grpc, known) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request(), metadata=list(bearer("app").items()), timeout=30)
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [42.0]
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request(), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with grpc.secure_channel(guarded.grpc, grpc.ssl_channel_credentials(roots)) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ServerLive(pb.ServerLiveRequest(), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("name", "status"), [(None, 401), ("app", 403), ("ops", 403), ("boss", 200)]
)
def test_verbs_that_change_something_need_an_admin(
    guarded: gateway_kit.Running, client: httpx.Client, name: str | None, status: int
) -> None:
    """Role by role, on the admin listener."""
    answer = client.post(
        f"https://{guarded.admin}/v2/repository/models/m/load",
        json={},
        headers=bearer(name) if name else {},
    )

    assert answer.status_code == status


def test_tokens_are_read_again_when_their_file_changes(
    guarded: gateway_kit.Running, client: httpx.Client
) -> None:
    """A credential is revoked, and given back, without a restart, on both listeners."""
    folder = guarded.folder / "gateway"

    def until(data: int, admin: int) -> None:
        wanted = {
            f"https://{guarded.http}/v2/models/m": ("GET", data),
            f"https://{guarded.admin}/v2/repository/models/m/load": ("POST", admin),
        }
        give_up = time.monotonic() + 30
        for url, (verb, status) in wanted.items():
            while client.request(verb, url, headers=bearer("app")).status_code != status:
                assert time.monotonic() < give_up, f"{url} never answered {status}"

    until(200, 403)
    try:
        write_tokens(folder, ["ops", "boss"])
        until(401, 401)
    finally:
        write_tokens(folder, list(TOKENS))
        until(200, 403)


@pytest.mark.parametrize("listener", ["http", "grpc", "admin"])
def test_an_open_door_to_the_world_must_be_asked_for_by_name(tmp_path: Path, listener: str) -> None:
    """Beyond loopback without TLS and tokens `sluice up` refuses, and says which option."""
    folder = tmp_path / "gateway"
    listen: dict[str, Any] = dict.fromkeys(("http", "grpc", "admin"), "127.0.0.1:0")
    gateway_kit.write_gateway(folder, listen={**listen, listener: "0.0.0.0:0"})
    gateway_kit.write_model(folder, "m", TWO, {})

    refused = subprocess.run(
        [gateway_kit.SLUICE, "up", folder, "--data", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert refused.returncode == 1
    assert f"listen.{listener}" in refused.stderr
    assert "--insecure-bind" in refused.stderr
