"""The unmodified tritonclient, all four of it, over real sockets."""

from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from conformance.conftest import TOKEN, Gateway
from conformance.triton_flavours import FLAVOURS, SAMPLES, TritonClient
from ray_kit import ON_RAY
from tritonclient.utils import InferenceServerException

SERVED = [
    pytest.param(
        (flavour, server),
        id=f"{flavour}-{server}",
        marks=ON_RAY.marks if server == "ray" else (),
    )
    for flavour in FLAVOURS
    for server in ("aio", "native", "whole", "ray")
    if server != "native" or flavour.startswith("grpc")
]
COMPRESSIONS = ("gzip", "deflate")


@pytest.fixture(params=SERVED)
def served(request: pytest.FixtureRequest, gateways: Callable[[str], Gateway]) -> Gateway:
    """The server that the client under test talks to."""
    return gateways(request.param[1])


@pytest.fixture
async def client(request: pytest.FixtureRequest, served: Gateway) -> AsyncIterator[TritonClient]:
    """A client of the parametrised flavour, connected."""
    flavour = request.node.callspec.params["served"][0]
    one = TritonClient(flavour, served.http if flavour.startswith("http") else served.grpc)
    yield one
    await one.close()


async def refused(client: TritonClient, method: str, *args: object, **kwargs: object) -> str:
    """Call a method that must fail; give its status and text as one string."""
    with pytest.raises(InferenceServerException) as caught:
        await client.call(method, *args, **kwargs)
    return f"{caught.value.status()} {caught.value.message()}"


def code(client: TritonClient, http: str, grpc: str) -> str:
    """How this client spells a status."""
    return http if client.is_http else f"StatusCode.{grpc}"


async def test_health_is_understood(client: TritonClient, served: Gateway) -> None:
    """Live, ready, and a model that is and one that is not ready."""
    assert await client.call("is_server_live")
    assert await client.call("is_server_ready")
    assert await client.call("is_model_ready", served.models.simple)
    assert await client.call("is_model_ready", served.models.simple, "1")
    if served.models.loading is not None:
        assert not await client.call("is_model_ready", served.models.loading)


async def test_metadata_names_the_tensors(client: TritonClient, served: Gateway) -> None:
    """Server and model metadata have what the clients' examples read."""
    server = await client.ask("get_server_metadata")
    model = await client.ask("get_model_metadata", served.models.simple)

    assert server["name"]
    assert "binary_tensor_data" in server["extensions"]
    assert (model["name"], model["versions"]) == (served.models.simple, ["1"])
    assert [tensor["name"] for tensor in model["inputs"]] == ["INPUT0", "INPUT1"]
    assert [int(d) for d in model["outputs"][0]["shape"]] == [-1, 16]
    assert {tensor["datatype"] for tensor in model["outputs"]} == {"INT32"}


async def test_config_says_how_the_model_batches(client: TritonClient, served: Gateway) -> None:
    """Config leaves the batch dimension out and calls INT32 TYPE_INT32."""
    config = await client.ask("get_model_config", served.models.simple)
    config = config.get("config", config)

    assert config["max_batch_size"] >= 1
    assert config["input"][0]["data_type"] == "TYPE_INT32"
    assert [int(d) for d in config["input"][0]["dims"]] == [16]


async def test_statistics_count_what_was_answered(client: TritonClient, served: Gateway) -> None:
    """The difference of two samples is the work in between; one entry per version."""

    async def count() -> int:
        statistics = await client.ask("get_inference_statistics", served.models.simple, "1")
        [entry] = statistics["model_stats"]
        assert (entry["name"], entry["version"]) == (served.models.simple, "1")
        return int(entry.get("inference_stats", {}).get("success", {}).get("count", 0))

    before = await count()
    await infer_simple(client, served)
    everything = await client.ask("get_inference_statistics")

    assert await count() == before + 1
    assert len(everything["model_stats"]) >= len(served.models.identity)


async def test_the_repository_index_lists_every_model(
    client: TritonClient, served: Gateway
) -> None:
    """Each version has a state; what is not ready is listed too."""
    index = await client.ask("get_model_repository_index")
    entries = index if client.is_http else index["models"]
    states = {entry["name"]: entry["state"] for entry in entries}

    assert states[served.models.simple] == "READY"
    if served.models.loading is not None:
        assert states[served.models.loading] != "READY"


async def infer_simple(client: TritonClient, served: Gateway, **options: object) -> object:
    """1 to 16 and sixteen ones; the answer must be right."""
    one = np.arange(16, dtype=np.int32).reshape(1, 16)
    two = np.ones((1, 16), np.int32)
    inputs = [client.input("INPUT0", one, "INT32"), client.input("INPUT1", two, "INT32")]
    result = await client.call("infer", served.models.simple, inputs, **options)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), one + two)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), one - two)
    return result


@pytest.mark.parametrize("datatype", SAMPLES)
async def test_every_datatype_comes_back_bit_for_bit(
    client: TritonClient, served: Gateway, datatype: str
) -> None:
    """Binary tensors both ways, extreme values included."""
    sample = SAMPLES[datatype]
    inputs = [client.input("INPUT0", sample, datatype)]
    result = await client.call("infer", served.models.identity[datatype], inputs)
    answer = result.as_numpy("OUTPUT0")

    assert answer.dtype == sample.dtype
    assert answer.shape == sample.shape
    assert answer.tolist() == sample.tolist()


async def test_an_empty_tensor_is_a_tensor(client: TritonClient, served: Gateway) -> None:
    """Two rows of nothing go in and come out."""
    sample = np.empty((2, 0), np.float32)
    inputs = [client.input("INPUT0", sample, "FP32")]
    result = await client.call("infer", served.models.identity["FP32"], inputs)

    assert result.as_numpy("OUTPUT0").shape == (2, 0)


# aiohttp warns about every body over 1 MiB that tritonclient gives it as bytes.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
async def test_five_megabytes_pass(client: TritonClient, served: Gateway) -> None:
    """More than gRPC's own default limit of 4 MiB, less than ours."""
    sample = np.arange(1_250_000, dtype=np.float32).reshape(1, -1)
    inputs = [client.input("INPUT0", sample, "FP32")]
    result = await client.call("infer", served.models.identity["FP32"], inputs)

    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), sample)


async def test_only_the_requested_outputs_come(client: TritonClient, served: Gateway) -> None:
    """One output asked for is one output answered."""
    values = np.ones((1, 16), np.int32)
    inputs = [client.input(name, values, "INT32") for name in ("INPUT0", "INPUT1")]
    outputs = [client.output("OUTPUT1")]
    result = await client.call("infer", served.models.simple, inputs, outputs=outputs)

    assert result.as_numpy("OUTPUT0") is None
    assert result.as_numpy("OUTPUT1").tolist() == [[0] * 16]


async def test_class_count_ranks_the_outputs(client: TritonClient, served: Gateway) -> None:
    """`class_count=2` gives the two best as value:index."""
    sample = np.array([[0.25, 4.0, 1.5]], np.float32)
    inputs = [client.input("INPUT0", sample, "FP32")]
    outputs = [client.output("OUTPUT0", class_count=2)]
    result = await client.call("infer", served.models.identity["FP32"], inputs, outputs=outputs)
    classes = [entry.decode().split(":")[:2] for entry in result.as_numpy("OUTPUT0")[0]]

    assert [(float(value), index) for value, index in classes] == [(4.0, "1"), (1.5, "2")]


async def test_id_version_and_parameters_travel(client: TritonClient, served: Gateway) -> None:
    """The request id is echoed, the version named, custom parameters are accepted."""
    result = await infer_simple(
        client,
        served,
        model_version="1",
        request_id="seven",
        priority=1,
        timeout=5_000_000,
        parameters={"note": "a", "n": 3, "flag": True},
    )
    response = result.get_response() if client.is_http else result.get_response(as_json=True)

    assert response["id"] == "seven"
    assert (response["model_name"], response["model_version"]) == (served.models.simple, "1")
    assert "prediction_id" in response["parameters"]


async def test_an_unknown_model_is_named(client: TritonClient, served: Gateway) -> None:
    """The message starts with the words that clients look for."""
    values = client.input("INPUT0", SAMPLES["FP32"], "FP32")
    text = await refused(client, "infer", "no_such_model", [values])
    version = await refused(
        client, "infer", served.models.identity["FP32"], [values], model_version="99"
    )

    assert text.startswith(code(client, "404", "NOT_FOUND") + " Request for unknown model")
    assert version.startswith(code(client, "404", "NOT_FOUND") + " Request for unknown model")


async def test_a_wrong_input_is_named(client: TritonClient, served: Gateway) -> None:
    """Datatype, missing and unknown inputs, and unknown outputs name the field."""
    model = served.models.identity["FP32"]
    good = client.input("INPUT0", SAMPLES["FP32"], "FP32")
    attempts = {
        "INPUT0": await refused(
            client, "infer", model, [client.input("INPUT0", SAMPLES["INT64"], "INT64")]
        ),
        "OTHER": await refused(
            client, "infer", model, [good, client.input("OTHER", SAMPLES["FP32"], "FP32")]
        ),
        "NOPE": await refused(client, "infer", model, [good], outputs=[client.output("NOPE")]),
    }

    for name, text in attempts.items():
        assert text.startswith(code(client, "400", "INVALID_ARGUMENT"))
        assert name in text


async def test_a_sequence_is_refused_not_ignored(client: TritonClient, served: Gateway) -> None:
    """Stateful sequences are not offered, and silence would be a wrong answer."""
    values = client.input("INPUT0", SAMPLES["FP32"], "FP32")
    text = await refused(client, "infer", served.models.identity["FP32"], [values], sequence_id=7)

    assert text.startswith(code(client, "400", "INVALID_ARGUMENT"))
    assert "sequence_id" in text


async def test_a_deadline_that_cannot_be_met_is_a_deadline_error(
    client: TritonClient, served: Gateway
) -> None:
    """One microsecond in the `timeout` parameter has passed on arrival."""
    values = client.input("INPUT0", SAMPLES["FP32"], "FP32")
    text = await refused(client, "infer", served.models.identity["FP32"], [values], timeout=1)

    assert text.startswith(code(client, "504", "DEADLINE_EXCEEDED"))


async def test_a_timeout_of_the_transport_is_kept(client: TritonClient, served: Gateway) -> None:
    """`x-request-timeout` over HTTP and `client_timeout` over gRPC end a request that waits."""
    values = client.input("INPUT0", SAMPLES["FP32"], "FP32")
    if client.is_http:
        options: dict[str, object] = {"headers": {"x-request-timeout": "50ms"}}
    else:
        options = {"client_timeout": 0.2}
    text = await refused(client, "infer", served.models.waiting, [values], **options)

    assert text.startswith(code(client, "504", "DEADLINE_EXCEEDED"))


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_compressed_requests_are_read(
    client: TritonClient, served: Gateway, compression: str
) -> None:
    """Both algorithms are; the native gRPC front knows only gzip and says so."""
    if client.is_http:
        options = {"request_compression_algorithm": compression}
    else:
        options = {"compression_algorithm": compression}
    if not client.is_http and served.kind == "pygrpc_native" and compression == "deflate":
        with pytest.raises(InferenceServerException, match="deflate"):
            await infer_simple(client, served, **options)
        return
    await infer_simple(client, served, **options)


@pytest.mark.parametrize("method", ["get_trace_settings", "get_log_settings"])
async def test_settings_can_be_read(client: TritonClient, method: str) -> None:
    """Trace and log settings are answered in full."""
    settings = await client.ask(method)

    assert settings


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("load_model", ("simple",)),
        ("unload_model", ("simple",)),
        ("update_trace_settings", ("simple", {"trace_level": ["TIMESTAMPS"]})),
        ("update_log_settings", ({"log_info": False},)),
        ("get_system_shared_memory_status", ()),
        ("register_system_shared_memory", ("region", "/region", 64)),
        ("unregister_system_shared_memory", ()),
        ("get_cuda_shared_memory_status", ()),
        ("unregister_cuda_shared_memory", ()),
    ],
)
async def test_admin_verbs_and_shared_memory_are_refused(
    client: TritonClient, method: str, arguments: tuple[object, ...]
) -> None:
    """The data port changes nothing and shares no memory; the client is told so."""
    text = await refused(client, method, *arguments)

    assert text.split()[0] in {"404", "405", "501", "StatusCode.UNIMPLEMENTED"}


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_token_travels_in_the_authorization_header(
    flavour: str, gateways: Callable[[str], Gateway]
) -> None:
    """Without it nothing but health is answered; with it everything is."""
    served = gateways("guarded")
    one = TritonClient(flavour, served.http if flavour.startswith("http") else served.grpc)
    headers = {"authorization": f"Bearer {TOKEN}"}
    values = one.input("INPUT0", SAMPLES["FP32"], "FP32")
    model = served.models.identity["FP32"]
    try:
        text = await refused(one, "infer", model, [values])
        wrong = await refused(one, "infer", model, [values], headers={"authorization": "Bearer x"})
        result = await one.call("infer", model, [values], headers=headers)
        metadata = await one.ask("get_model_metadata", model, headers=headers)

        assert await one.call("is_server_live")
        assert text.startswith(code(one, "401", "UNAUTHENTICATED"))
        assert wrong.startswith(code(one, "401", "UNAUTHENTICATED"))
        assert result.as_numpy("OUTPUT0").shape == (2, 3)
        assert metadata["name"] == model
    finally:
        await one.close()
