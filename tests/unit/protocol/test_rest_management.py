"""JSON bodies around inference."""

import orjson
import pytest

from serving.errors import InvalidRequest
from serving.protocol import rest
from serving.types import (
    Duration,
    ModelMetadata,
    ModelStatistics,
    RepositoryEntry,
    ServerMetadata,
    TensorMetadata,
    VersionConfig,
)

INPUTS = [
    TensorMetadata("X", "FP32", (-1, 30)),
    TensorMetadata("note", "BYTES", (-1, 1), optional=True),
]
OUTPUTS = [TensorMetadata("p", "FP64", (-1, 2))]


def test_health_answers_have_the_bodies_clients_parse() -> None:
    """KServe's client reads these keys; Triton's ignores the body."""
    assert rest.encode_live(True) == b'{"live":true}'
    assert rest.encode_ready(False) == b'{"ready":false}'
    assert rest.encode_model_ready("m", True) == b'{"name":"m","ready":true}'
    assert rest.encode_model_names(["a", "b"]) == b'{"models":["a","b"]}'
    assert rest.encode_model_load("m") == b'{"name":"m","load":true}'
    assert rest.encode_model_unload("m") == b'{"name":"m","unload":true}'


@pytest.mark.parametrize("text", ["plain", 'with "quotes"', "ä", "lone \ud800 surrogate"])
def test_an_error_is_one_string_under_one_key(text: str) -> None:
    """Whatever the message holds, the body is JSON."""
    body = orjson.loads(rest.encode_error(text))

    assert list(body) == ["error"]
    assert body["error"].startswith(text[:4])


def test_server_metadata() -> None:
    """Name, version and extensions."""
    body = rest.encode_server_metadata(ServerMetadata("sluice", "0.1", ["statistics"]))

    assert orjson.loads(body) == {
        "name": "sluice",
        "version": "0.1",
        "extensions": ["statistics"],
    }


def test_model_metadata_keeps_the_batch_dimension() -> None:
    """Shapes are whole; nothing but the protocol's fields is there."""
    body = rest.encode_model_metadata(ModelMetadata("m", ["v1"], "onnx_onnxv1", INPUTS, OUTPUTS))

    assert orjson.loads(body) == {
        "name": "m",
        "versions": ["v1"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "X", "datatype": "FP32", "shape": [-1, 30]},
            {"name": "note", "datatype": "BYTES", "shape": [-1, 1]},
        ],
        "outputs": [{"name": "p", "datatype": "FP64", "shape": [-1, 2]}],
    }


@pytest.mark.parametrize(
    ("max_batch_size", "dims"), [(64, [[30], [1], [2]]), (0, [[-1, 30], [-1, 1], [-1, 2]])]
)
def test_model_config_leaves_the_batch_dimension_out(
    max_batch_size: int, dims: list[list[int]]
) -> None:
    """With batching, dims are those of one row; optional inputs are marked."""
    config = VersionConfig("m", "onnx_onnxv1", "onnxruntime", max_batch_size, INPUTS, OUTPUTS)

    body = orjson.loads(rest.encode_model_config(config))

    assert body["max_batch_size"] == max_batch_size
    assert [entry["dims"] for entry in body["input"] + body["output"]] == dims
    assert [entry["data_type"] for entry in body["input"] + body["output"]] == [
        "TYPE_FP32",
        "TYPE_STRING",
        "TYPE_FP64",
    ]
    assert [entry.get("optional") for entry in body["input"]] == [None, True]
    assert ("dynamic_batching" in body) is (max_batch_size > 0)
    assert body["backend"] == "onnxruntime"


def test_statistics_list_every_duration() -> None:
    """Counts and nanoseconds, batches in the order of their size."""
    entry = ModelStatistics(
        name="m",
        version="v1",
        last_inference=1_700_000_000_000,
        inference_count=10,
        execution_count=4,
        success=Duration(5, 500),
        fail=Duration(1, 10),
        queue=Duration(5, 50),
        compute_input=Duration(5, 5),
        compute_infer=Duration(5, 400),
        compute_output=Duration(5, 6),
        batches={4: Duration(1, 200), 1: Duration(3, 200)},
    )

    [stats] = orjson.loads(rest.encode_model_statistics([entry]))["model_stats"]

    assert stats["last_inference"] == 1_700_000_000_000
    assert (stats["inference_count"], stats["execution_count"]) == (10, 4)
    assert stats["inference_stats"] == {
        "success": {"count": 5, "ns": 500},
        "fail": {"count": 1, "ns": 10},
        "queue": {"count": 5, "ns": 50},
        "compute_input": {"count": 5, "ns": 5},
        "compute_infer": {"count": 5, "ns": 400},
        "compute_output": {"count": 5, "ns": 6},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in stats["batch_stats"]] == [
        (1, 3),
        (4, 1),
    ]


def test_the_repository_index_is_a_bare_array() -> None:
    """Every version with its state and reason."""
    body = rest.encode_repository_index(
        [RepositoryEntry("m", "v1", "READY"), RepositoryEntry("m", "v2", "UNAVAILABLE", "corrupt")]
    )

    assert orjson.loads(body) == [
        {"name": "m", "version": "v1", "state": "READY", "reason": ""},
        {"name": "m", "version": "v2", "state": "UNAVAILABLE", "reason": "corrupt"},
    ]


@pytest.mark.parametrize(
    ("body", "ready"),
    [(b"", False), (b" \n", False), (b"{}", False), (b'{"ready":true}', True), (b'{"x":1}', False)],
)
def test_a_repository_index_may_be_asked_with_an_empty_body(body: bytes, ready: bool) -> None:
    """The Python client of Triton sends none."""
    assert rest.decode_repository_index(body) is ready


@pytest.mark.parametrize("body", [b"x", b"[]", b'{"ready":1}', b'{"ready":null}', b"null"])
def test_a_wrong_repository_index_body_is_refused(body: bytes) -> None:
    """The message says what a body may be."""
    with pytest.raises(InvalidRequest, match="repository index"):
        rest.decode_repository_index(body)


def test_settings_keep_their_types() -> None:
    """Trace settings are strings and one array, log settings are typed."""
    trace = {"trace_level": ["OFF"], "trace_rate": "1000"}
    log = {"log_info": True, "log_verbose_level": 0, "log_format": "default"}

    assert orjson.loads(rest.encode_trace_settings(trace)) == trace
    assert orjson.loads(rest.encode_log_settings(log)) == log
