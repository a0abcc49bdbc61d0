"""KServe's inference clients, unmodified, in an environment of their own."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.conftest import Gateway
from ray_kit import ON_RAY

pytestmark = pytest.mark.clients

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
SCRIPT = ROOT / "tests" / "clients" / "kserve_calls.py"
Cases = dict[str, dict[str, Any]]

EXPECTED: dict[str, list[Any]] = {
    "BOOL": [True, False, True],
    "INT8": [-128, 0, 127],
    "INT16": [-32768, 0, 32767],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "UINT8": [0, 128, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "FP16": [0.5, -2.0, 65504.0],
    "FP32": [0.5, -2.0, pytest.approx(3.0e38)],
    "FP64": [0.1, -1.7e308, 5e-324],
    "BYTES": ["a", "bc", ""],
}


@pytest.fixture(scope="module", params=["aio", "native", "whole", ON_RAY])
def cases(request: pytest.FixtureRequest, gateways: Callable[[str], Gateway]) -> dict[str, Cases]:
    """What the clients saw: outcomes by case, under `rest` and `grpc`."""
    if not PYTHON.exists():
        message = "the clients' environment is missing: run `make install-clients`"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    served = gateways(request.param)
    given = {
        "http": served.http,
        "grpc": served.grpc,
        "models": served.models.identity,
        "asked": [served.models.simple, served.models.loading, "no_such_model"],
    }
    # -P: the script's folder stays off the path, and ours out of its imports.
    done = subprocess.run(
        [str(PYTHON), "-P", str(SCRIPT)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Cases] = json.loads(done.stdout)
    return seen


def test_health_is_understood(cases: dict[str, Cases]) -> None:
    """Liveness, readiness, and models that are and are not ready."""
    for client in ("rest", "grpc"):
        assert cases[client]["live"] == {"value": True}
        assert cases[client]["ready"] == {"value": True}
        assert cases[client]["model simple"] == {"value": True}
        if "model loading" in cases[client]:
            assert cases[client]["model loading"] == {"value": False}
    assert cases["rest"]["model no_such_model"] == {"value": False}
    assert cases["grpc"]["model no_such_model"]["code"] == "NOT_FOUND"


def test_every_datatype_comes_back(cases: dict[str, Cases]) -> None:
    """REST in JSON and in binary, and gRPC, for everything the client can send."""
    ways = [("rest", "binary"), ("rest", "json"), ("grpc", "binary")]
    for client, way in ways:
        for datatype, values in EXPECTED.items():
            if (way, datatype) == ("json", "FP16"):
                continue
            seen = cases[client][f"{way} {datatype}"]
            assert "value" in seen, (client, way, datatype, seen)
            assert seen["value"]["values"] == values
            assert seen["value"]["datatype"] == datatype
            assert seen["value"]["shape"] == [1, 3]
            assert seen["value"]["model"] == f"identity_{datatype.lower()}"
            assert seen["value"]["id"] == "seven"


def test_a_plain_dictionary_is_answered(cases: dict[str, Cases]) -> None:
    """What people send without the client's own classes."""
    assert cases["rest"]["dict"]["value"]["values"] == [1.5, 2.5]


def test_the_clients_show_our_error_texts(cases: dict[str, Cases]) -> None:
    """The message and status of a failure reach the caller."""
    rest, grpc = cases["rest"], cases["grpc"]

    assert rest["unknown model"]["error"] == "HTTPStatusError"
    assert rest["unknown model"]["text"].startswith("Request for unknown model")
    assert "404" in rest["unknown model"]["text"]
    assert "INPUT0" in rest["wrong datatype"]["text"]
    assert "400" in rest["wrong datatype"]["text"]
    assert grpc["unknown model"]["code"] == "NOT_FOUND"
    assert grpc["unknown model"]["text"].startswith("Request for unknown model")
    assert grpc["wrong datatype"]["code"] == "INVALID_ARGUMENT"
    assert "INPUT0" in grpc["wrong datatype"]["text"]
