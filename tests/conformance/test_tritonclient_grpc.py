"""What tritonclient does over gRPC only: callbacks and streams."""

import queue
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from conformance.conftest import Gateway
from ray_kit import ON_RAY
from tritonclient.utils import InferenceServerException

BOUND = 20.0


@pytest.fixture(params=["aio", "native", "whole", ON_RAY])
def served(request: pytest.FixtureRequest, gateways: Callable[[str], Gateway]) -> Gateway:
    """The plane in memory on each of the two gRPC servers, and the whole gateway."""
    return gateways(request.param)


def number(module: Any, value: int) -> list[Any]:
    """One INT64 as the model's input."""
    tensor = module.InferInput("INPUT0", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[value]], np.int64))
    return [tensor]


class Answers:
    """A callback that keeps what it is given."""

    def __init__(self) -> None:
        self.queue: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        """What tritonclient calls, from a thread of its own."""
        self.queue.put((result, error))

    def take(self, count: int) -> list[tuple[Any, Any]]:
        """Wait for so many answers."""
        return [self.queue.get(timeout=BOUND) for _ in range(count)]


@pytest.fixture
def client(served: Gateway) -> Any:
    """A sync client."""
    with tritonclient.grpc.InferenceServerClient(served.grpc) as one:
        yield one


def test_async_infer_calls_back(client: Any, served: Gateway) -> None:
    """Each callback gets its own result; a failure is an error, not a lost call."""
    answers = Answers()
    for n in range(10):
        client.async_infer(
            served.models.identity["INT64"],
            number(tritonclient.grpc, n),
            callback=answers,
            request_id=str(n),
        )
    client.async_infer("no_such_model", number(tritonclient.grpc, 0), callback=answers)
    given = answers.take(11)
    results = {r.get_response().id: int(r.as_numpy("OUTPUT0")[0, 0]) for r, e in given if not e}
    [error] = [error for _, error in given if error]

    assert results == {str(n): n for n in range(10)}
    assert error.message().startswith("Request for unknown model")


def test_a_stream_answers_in_order_and_outlives_a_failure(client: Any, served: Gateway) -> None:
    """Twenty requests, one of them wrong, over one stream."""
    answers = Answers()
    client.start_stream(callback=answers)
    for n in range(20):
        model = "no_such_model" if n == 7 else served.models.identity["INT64"]
        client.async_stream_infer(
            model,
            number(tritonclient.grpc, n),
            request_id=str(n),
            enable_empty_final_response=True,
        )
    given = answers.take(20)
    client.stop_stream()
    failed = [index for index, (_, error) in enumerate(given) if error]
    good = [result for result, error in given if not error]

    assert failed == [7]
    assert isinstance(given[7][1], InferenceServerException)
    assert given[7][1].message().startswith("Request for unknown model")
    assert [int(result.as_numpy("OUTPUT0")[0, 0]) for result in good] == [
        n for n in range(20) if n != 7
    ]
    assert all(
        result.get_response().parameters["triton_final_response"].bool_param for result in good
    )


def test_closing_a_stream_waits_for_what_is_in_flight(client: Any, served: Gateway) -> None:
    """`stop_stream` right after the last request loses none."""
    answers = Answers()
    client.start_stream(callback=answers)
    for n in range(5):
        client.async_stream_infer(
            served.models.identity["INT64"], number(tritonclient.grpc, n), request_id=str(n)
        )
    client.stop_stream()

    assert [r.get_response().id for r, _ in answers.take(5)] == ["0", "1", "2", "3", "4"]


def test_a_compressed_stream_is_read(client: Any, served: Gateway) -> None:
    """Streams know gzip on both servers."""
    answers = Answers()
    client.start_stream(callback=answers, compression_algorithm="gzip")
    client.async_stream_infer(served.models.identity["INT64"], number(tritonclient.grpc, 5))
    [(result, error)] = answers.take(1)
    client.stop_stream()

    assert error is None
    assert int(result.as_numpy("OUTPUT0")[0, 0]) == 5


async def test_the_aio_client_streams(served: Gateway) -> None:
    """`stream_infer` yields (result, error) pairs in order."""
    module = tritonclient.grpc.aio

    async def sent() -> AsyncIterator[dict[str, Any]]:
        for n in range(6):
            model = "no_such_model" if n == 2 else served.models.identity["INT64"]
            yield {
                "model_name": model,
                "inputs": number(module, n),
                "request_id": str(n),
                "enable_empty_final_response": True,
            }

    async with module.InferenceServerClient(served.grpc) as client:
        given = [pair async for pair in client.stream_infer(sent(), stream_timeout=BOUND)]

    assert [error is not None for _, error in given] == [n == 2 for n in range(6)]
    assert [int(r.as_numpy("OUTPUT0")[0, 0]) for r, e in given if e is None] == [0, 1, 3, 4, 5]
