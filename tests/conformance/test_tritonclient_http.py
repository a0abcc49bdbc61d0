"""What tritonclient does over HTTP only: JSON and binary tensors, compression, its own threads."""

import asyncio
import math
from collections.abc import AsyncIterator

import numpy as np
import pytest
from conformance.conftest import Gateway
from conformance.triton_flavours import SAMPLES, TritonClient
from tritonclient.utils import InferenceServerException

JSON_DATATYPES = [name for name in SAMPLES if name not in {"FP16", "BF16", "BYTES"}]


@pytest.fixture(params=["http", "http.aio"])
async def client(request: pytest.FixtureRequest, http_address: str) -> AsyncIterator[TritonClient]:
    """A connected HTTP client."""
    one = TritonClient(request.param, http_address)
    yield one
    await one.close()


@pytest.mark.parametrize("binary_output", [True, False], ids=["binary-out", "json-out"])
@pytest.mark.parametrize("binary_input", [True, False], ids=["binary-in", "json-in"])
@pytest.mark.parametrize("datatype", JSON_DATATYPES)
async def test_json_and_binary_say_the_same(
    client: TritonClient, gateway: Gateway, datatype: str, binary_input: bool, binary_output: bool
) -> None:
    """Every datatype JSON can carry comes back equal in all four combinations."""
    sample = SAMPLES[datatype]
    inputs = [client.input("INPUT0", sample, datatype, binary_data=binary_input)]
    outputs = [client.output("OUTPUT0", binary_data=binary_output)]
    result = await client.call("infer", gateway.models.identity[datatype], inputs, outputs=outputs)
    [described] = result.get_response()["outputs"]

    assert ("data" in described) is not binary_output
    assert result.as_numpy("OUTPUT0").dtype == sample.dtype
    assert result.as_numpy("OUTPUT0").tolist() == sample.tolist()


@pytest.mark.parametrize("binary_output", [True, False], ids=["binary-out", "json-out"])
async def test_strings_travel_as_json(
    client: TritonClient, gateway: Gateway, binary_output: bool
) -> None:
    """UTF-8 text goes in as JSON and comes out as bytes or as JSON."""
    sample = np.array([["a", "größe", ""]], np.object_)
    inputs = [client.input("INPUT0", sample, "BYTES", binary_data=False)]
    outputs = [client.output("OUTPUT0", binary_data=binary_output)]
    result = await client.call("infer", gateway.models.identity["BYTES"], inputs, outputs=outputs)
    answer = result.as_numpy("OUTPUT0").tolist()

    assert [[x.decode() if isinstance(x, bytes) else x for x in row] for row in answer] == [
        ["a", "größe", ""]
    ]


async def test_bytes_that_are_no_text_are_refused_as_json(
    client: TritonClient, gateway: Gateway
) -> None:
    """An output that is not UTF-8 and asked for as JSON is an error, not a wrong answer."""
    sample = np.array([[b"\xff\xfe"]], np.object_)
    inputs = [client.input("INPUT0", sample, "BYTES")]
    outputs = [client.output("OUTPUT0", binary_data=False)]
    with pytest.raises(InferenceServerException, match="UTF-8"):
        await client.call("infer", gateway.models.identity["BYTES"], inputs, outputs=outputs)


async def test_fp16_in_json_is_refused_with_advice(client: TritonClient, gateway: Gateway) -> None:
    """JSON has no half precision; the error says to send it as binary."""
    inputs = [client.input("INPUT0", SAMPLES["FP16"], "FP16", binary_data=False)]
    with pytest.raises(InferenceServerException, match="binary") as caught:
        await client.call("infer", gateway.models.identity["FP16"], inputs)

    assert caught.value.status() == "400"


async def test_one_answer_mixes_binary_and_json(client: TritonClient, gateway: Gateway) -> None:
    """OUTPUT0 comes as bytes and OUTPUT1 as JSON in one body, inputs likewise."""
    one = np.arange(32, dtype=np.int32).reshape(2, 16)
    two = np.ones((2, 16), np.int32)
    inputs = [
        client.input("INPUT0", one, "INT32", binary_data=False),
        client.input("INPUT1", two, "INT32", binary_data=True),
    ]
    outputs = [
        client.output("OUTPUT0", binary_data=True),
        client.output("OUTPUT1", binary_data=False),
    ]
    result = await client.call("infer", gateway.models.simple, inputs, outputs=outputs)
    described = result.get_response()["outputs"]

    assert ["data" in output for output in described] == [False, True]
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), one + two)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), one - two)


async def test_nan_is_kept_in_binary_and_null_in_json(
    client: TritonClient, gateway: Gateway
) -> None:
    """Binary keeps NaN and infinity; JSON answers null, which the client reads as NaN."""
    sample = np.array([[math.nan, math.inf, 1.0]], np.float32)
    inputs = [client.input("INPUT0", sample, "FP32", binary_data=True)]
    answers = []
    for binary in (True, False):
        outputs = [client.output("OUTPUT0", binary_data=binary)]
        result = await client.call(
            "infer", gateway.models.identity["FP32"], inputs, outputs=outputs
        )
        answers.append(result.as_numpy("OUTPUT0")[0])
    kept, read = answers

    np.testing.assert_array_equal(kept, sample[0])
    assert math.isnan(read[0])
    assert read[2] == 1.0


async def test_nan_in_json_is_refused(client: TritonClient, gateway: Gateway) -> None:
    """The client writes the bare word NaN, which is no JSON."""
    sample = np.array([[math.nan]], np.float32)
    inputs = [client.input("INPUT0", sample, "FP32", binary_data=False)]
    with pytest.raises(InferenceServerException) as caught:
        await client.call("infer", gateway.models.identity["FP32"], inputs)

    assert caught.value.status() == "400"


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("asked", ["gzip", "deflate"])
@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
async def test_bodies_are_compressed_both_ways(
    client: TritonClient, gateway: Gateway, sent: str | None, asked: str, binary: bool
) -> None:
    """Every pairing of request and response encodings gives the same tensors."""
    sample = np.tile(np.arange(100, dtype=np.float32), (20, 1))
    inputs = [client.input("INPUT0", sample, "FP32", binary_data=binary)]
    outputs = [client.output("OUTPUT0", binary_data=binary)]
    result = await client.call(
        "infer",
        gateway.models.identity["FP32"],
        inputs,
        outputs=outputs,
        request_compression_algorithm=sent,
        response_compression_algorithm=asked,
    )

    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), sample)


async def test_an_error_is_readable_when_compression_was_offered(client: TritonClient) -> None:
    """Errors are never compressed: the clients do not inflate them."""
    inputs = [client.input("INPUT0", SAMPLES["FP32"], "FP32")]
    with pytest.raises(InferenceServerException, match=r"^\[404\] Request for unknown model"):
        await client.call(
            "infer",
            "no_such_model",
            inputs,
            response_compression_algorithm="gzip",
            headers={"accept-encoding": "gzip, deflate, br"},
        )


async def test_query_parameters_are_ignored(client: TritonClient, gateway: Gateway) -> None:
    """The client's examples send some."""
    inputs = [client.input("INPUT0", SAMPLES["FP32"], "FP32")]
    result = await client.call(
        "infer", gateway.models.identity["FP32"], inputs, query_params={"test_1": 1, "test_2": 2}
    )

    assert await client.call("is_server_live", query_params={"a": "b"})
    assert result.as_numpy("OUTPUT0").shape == (2, 3)


async def test_one_async_client_runs_requests_together(http_address: str, gateway: Gateway) -> None:
    """Fifty requests over one aio client come back to their own callers."""
    client = TritonClient("http.aio", http_address)

    async def ask(n: int) -> float:
        inputs = [client.input("INPUT0", np.full((1, 1), n, np.float32), "FP32")]
        result = await client.call("infer", gateway.models.identity["FP32"], inputs)
        return float(result.as_numpy("OUTPUT0")[0, 0])

    try:
        assert await asyncio.gather(*(ask(n) for n in range(50))) == [float(n) for n in range(50)]
    finally:
        await client.close()


async def test_async_infer_of_the_sync_client_works(http_address: str, gateway: Gateway) -> None:
    """Its greenlets share a pool of connections."""
    client = TritonClient("http", http_address, concurrency=4)
    waiting = [
        client.raw.async_infer(
            gateway.models.identity["INT64"],
            [client.input("INPUT0", np.array([[n]], np.int64), "INT64")],
            request_id=str(n),
        )
        for n in range(12)
    ]
    results = [one.get_result(timeout=20) for one in waiting]
    await client.close()

    assert [result.get_response()["id"] for result in results] == [str(n) for n in range(12)]
    assert [int(result.as_numpy("OUTPUT0")[0, 0]) for result in results] == list(range(12))
