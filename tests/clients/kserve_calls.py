"""Call a gateway with KServe's own inference clients and print what they saw, as JSON.

Runs in `.venv-clients` (KServe's pins conflict with ours), started by
`tests/conformance/test_kserve_client.py`. Standard input is one JSON object: `http` and `grpc`
addresses, the identity `models` by datatype, and names to be `asked` for readiness. Standard
output is one object of outcomes by case, each `{"value": …}` or `{"error": …}`. It judges
nothing; the test does.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)
from kserve.protocol.infer_type import RequestedOutput

SAMPLES = {
    "BOOL": np.array([[True, False, True]]),
    "INT8": np.array([[-128, 0, 127]], np.int8),
    "INT16": np.array([[-32768, 0, 32767]], np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1]], np.int64),
    "UINT8": np.array([[0, 128, 255]], np.uint8),
    "UINT16": np.array([[0, 1, 65535]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 1, 2**64 - 1]], np.uint64),
    "FP16": np.array([[0.5, -2.0, 65504.0]], np.float16),
    "FP32": np.array([[0.5, -2.0, 3.0e38]], np.float32),
    "FP64": np.array([[0.1, -1.7e308, 5e-324]], np.float64),
    "BYTES": np.array([[b"a", b"bc", b""]], np.object_),
}


def request(
    model: str,
    datatype: str,
    values: np.ndarray,
    *,
    binary: bool = True,
    identifier: str | None = None,
    outputs: list[RequestedOutput] | None = None,
) -> InferRequest:
    """One INPUT0."""
    tensor = InferInput("INPUT0", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, [tensor], request_id=identifier, request_outputs=outputs)


def plain(values: object) -> list[Any]:
    """Arrays, bytes and numbers as JSON can hold them."""
    return [x.decode() if isinstance(x, bytes) else x for x in np.asarray(values).ravel().tolist()]


def seen(response: InferResponse) -> dict[str, Any]:
    """What a caller reads off an answer."""
    output = response.outputs[0]
    return {
        "values": plain(output.as_numpy()),
        "datatype": output.datatype,
        "shape": list(output.shape),
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
    }


async def outcome(
    awaitable: Awaitable[Any], read: Callable[[Any], Any] = lambda value: value
) -> dict[str, Any]:
    """The value, or what the client raised."""
    try:
        return {"value": read(await awaitable)}
    except Exception as error:  # noqa: BLE001 - the outcome is what is looked at
        code = getattr(error, "code", None)
        details = getattr(error, "details", None)
        return {
            "error": type(error).__name__,
            "code": code().name if callable(code) else None,
            "text": details() if callable(details) else str(error),
        }


async def rest_cases(
    address: str, models: dict[str, str], asked: list[str | None]
) -> dict[str, Any]:
    """Everything InferenceRESTClient does with protocol V2."""
    url = f"http://{address}"
    cases = {}
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    try:
        cases["live"] = await outcome(client.is_server_live(url))
        cases["ready"] = await outcome(client.is_server_ready(url))
        for name in filter(None, asked):
            cases[f"model {name}"] = await outcome(client.is_model_ready(url, name))
        for datatype, values in SAMPLES.items():
            model = models[datatype]
            wanted = [RequestedOutput("OUTPUT0", {"binary_data": True})]
            ask = request(model, datatype, values, identifier="seven", outputs=wanted)
            cases[f"binary {datatype}"] = await outcome(
                client.infer(url, ask, model_name=model), seen
            )
            if datatype != "FP16":  # the client itself refuses it in JSON
                ask = request(model, datatype, values, binary=False, identifier="seven")
                cases[f"json {datatype}"] = await outcome(
                    client.infer(url, ask, model_name=model), seen
                )
        model = models["FP32"]
        plain_dict = {
            "inputs": [
                {"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [[1.5, 2.5]]}
            ]
        }
        cases["dict"] = await outcome(client.infer(url, plain_dict, model_name=model), seen)
        ask = request("no_such_model", "FP32", SAMPLES["FP32"])
        cases["unknown model"] = await outcome(client.infer(url, ask, model_name="no_such_model"))
        cases["wrong datatype"] = await outcome(
            client.infer(url, request(model, "INT64", SAMPLES["INT64"]), model_name=model)
        )
    finally:
        await client.close()
    return cases


async def grpc_cases(
    address: str, models: dict[str, str], asked: list[str | None]
) -> dict[str, Any]:
    """Everything InferenceGRPCClient does."""
    cases = {}
    async with InferenceGRPCClient(address, timeout=20) as client:
        cases["live"] = await outcome(client.is_server_live())
        cases["ready"] = await outcome(client.is_server_ready())
        for name in filter(None, asked):
            cases[f"model {name}"] = await outcome(client.is_model_ready(name))
        for datatype, values in SAMPLES.items():
            ask = request(models[datatype], datatype, values, identifier="seven")
            cases[f"binary {datatype}"] = await outcome(client.infer(ask), seen)
        ask = request("no_such_model", "FP32", SAMPLES["FP32"])
        cases["unknown model"] = await outcome(client.infer(ask))
        cases["wrong datatype"] = await outcome(
            client.infer(request(models["FP32"], "INT64", SAMPLES["INT64"]))
        )
    return cases


async def main() -> None:
    """Read the addresses, call, print."""
    logging.disable(logging.CRITICAL)
    given = json.loads(sys.stdin.read())
    cases = {
        "rest": await rest_cases(given["http"], given["models"], given["asked"]),
        "grpc": await grpc_cases(given["grpc"], given["models"], given["asked"]),
    }
    sys.stdout.write(json.dumps(cases))


if __name__ == "__main__":
    asyncio.run(main())
