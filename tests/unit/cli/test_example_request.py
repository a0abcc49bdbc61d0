import json
import shlex
from pathlib import Path

import pytest

from serving.cli.example_request import body_from_snapshot, curl_line, inline_body
from serving.config.addresses import Address
from serving.config.schema import AuthConfig, GatewayConfig, ListenConfig, Listener, TlsConfig
from serving.types import TensorMetadata

HTTP = Address("127.0.0.1", 8000)


def line(gateway: GatewayConfig, *, http: Address = HTTP, body: str = "@r.json") -> str:
    """The command for model `m` configured in `conf dir`."""
    return curl_line(
        http=http, gateway=gateway, configuration=Path("conf dir"), model="m", body=body
    )


def test_a_plain_listener_is_called_by_http() -> None:
    """Nothing is needed beyond address and body."""
    assert line(GatewayConfig()) == "curl -s http://127.0.0.1:8000/v2/models/m/infer -d @r.json"


@pytest.mark.parametrize(
    ("host", "called"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("db.example", "db.example")]
)
def test_every_interface_is_called_over_loopback(host: str, called: str) -> None:
    """0.0.0.0 is no address to connect to."""
    assert f"http://{called}:8000/" in line(GatewayConfig(), http=Address(host, 8000))


def test_a_body_survives_the_shell() -> None:
    """Quotes and spaces in the JSON reach curl as they are."""
    body = json.dumps({"inputs": [{"name": "it's"}]})

    assert shlex.split(line(GatewayConfig(), body=body))[-1] == body


def test_tls_names_its_certificate_and_tokens_their_variable() -> None:
    """The server's own certificate is trusted for this call; no secret is printed."""
    tls = TlsConfig(cert="cert.pem", key="key.pem", client_ca="ca.pem")
    gateway = GatewayConfig(
        listen=ListenConfig(http=Listener(address="127.0.0.1:8000", tls=tls)),
        auth=AuthConfig(tokens="tokens.yaml"),
    )

    words = shlex.split(line(gateway))

    assert "https://127.0.0.1:8000/v2/models/m/infer" in words
    assert words[words.index("--cacert") + 1] == "conf dir/cert.pem"
    assert words[words.index("--cert") + 1] == "client.pem"
    assert words[-2:] == ["-H", "Authorization: Bearer $SLUICE_TOKEN"]


def test_an_inline_body_fills_the_smallest_shapes() -> None:
    """Free dimensions become 1, optional inputs are left out, BYTES are empty strings."""
    body = json.loads(
        inline_body(
            [
                TensorMetadata("X", "FP32", (-1, 3)),
                TensorMetadata("name", "BYTES", (-1, 1)),
                TensorMetadata("flag", "BOOL", (-1,)),
                TensorMetadata("extra", "INT64", (-1,), optional=True),
            ]
        )
    )

    assert body == {
        "inputs": [
            {"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [0, 0, 0]},
            {"name": "name", "datatype": "BYTES", "shape": [1, 1], "data": [""]},
            {"name": "flag", "datatype": "BOOL", "shape": [1], "data": [False]},
        ]
    }


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_without_a_readable_snapshot_there_is_no_body(
    tmp_path: Path, content: bytes | None
) -> None:
    """A missing example is left out instead of printing one that cannot work."""
    if content is not None:
        (tmp_path / "snapshot.json").write_bytes(content)

    assert body_from_snapshot(tmp_path, "m") is None
