"""ModelStreamInfer over a real socket, on both servers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import grpc
import pytest
from conformance.grpc_wire import Wire, infer_request, wire

from serving.protocol._generated import inference_pb2 as pb
from serving.worker.grpc.stream import STREAM_IN_FLIGHT

Stream = grpc.aio.StreamStreamCall
BOUND = 20.0


@pytest.fixture(params=["pygrpc_native", "grpc.aio"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the listener is carried by the native front."""
    return request.param == "pygrpc_native"


@pytest.fixture
async def served(native: bool, tmp_path: Path) -> AsyncIterator[Wire]:
    """A plane on a port, open to everybody."""
    async with wire(native, tmp_path) as one:
        yield one


async def read(stream: Stream) -> pb.ModelStreamInferResponse:
    """Wait for the next answer."""
    return await asyncio.wait_for(stream.read(), BOUND)


async def everything(stream: Stream) -> list[pb.ModelStreamInferResponse]:
    """Read until the stream ends."""

    async def collect() -> list[pb.ModelStreamInferResponse]:
        return [answer async for answer in stream]

    return await asyncio.wait_for(collect(), BOUND)


async def requests(messages: Iterable[pb.ModelInferRequest]) -> AsyncIterator[object]:
    """What the client sends, then its half-close."""
    for message in messages:
        yield message


async def test_every_request_is_answered_once_and_marked_final(served: Wire) -> None:
    """Each answer carries its id and `triton_final_response`."""
    sent = [infer_request(identifier=str(n)) for n in range(5)]
    for message in sent:
        message.parameters["triton_enable_empty_final_response"].bool_param = True
    answers = await everything(served.stub.ModelStreamInfer(requests(sent)))

    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2", "3", "4"]
    assert all(
        answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers
    )
    assert {answer.error_message for answer in answers} == {""}


async def test_a_failed_request_does_not_end_the_stream(served: Wire) -> None:
    """The failure comes as error_message with the request's id; the next one is answered."""
    wrong_shape = infer_request(identifier="shape")
    wrong_shape.inputs[0].shape[:] = [9]
    sent = [
        wrong_shape,
        infer_request("nobody", identifier="model"),
        infer_request("fail_unexpected", identifier="secret"),
        infer_request("fail_cancelled", identifier="cancelled"),
        infer_request(identifier="good"),
    ]
    answers = await everything(served.stub.ModelStreamInfer(requests(sent)))

    assert [answer.infer_response.id for answer in answers] == [one.id for one in sent]
    assert [bool(answer.error_message) for answer in answers] == [True, True, True, True, False]
    assert answers[1].error_message.startswith("Request for unknown model")
    assert answers[2].error_message == answers[3].error_message == "internal error"
    assert len(answers[4].infer_response.raw_output_contents) == 1


async def test_a_message_that_is_no_request_does_not_end_the_stream(served: Wire) -> None:
    """Malformed protobuf is answered with an error, and the stream lives on."""
    stream = served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
    await stream.write(b"\xff\xff\xff")
    bad = pb.ModelStreamInferResponse.FromString(await asyncio.wait_for(stream.read(), BOUND))
    await stream.write(infer_request(identifier="next").SerializeToString())
    good = pb.ModelStreamInferResponse.FromString(await asyncio.wait_for(stream.read(), BOUND))
    await stream.done_writing()

    assert bad.error_message == "the message is not a valid inference.ModelInferRequest"
    assert good.infer_response.id == "next"


async def test_requests_of_one_stream_run_together_and_are_answered_in_order(
    served: Wire,
) -> None:
    """A fast request behind a slow one does not overtake it."""
    stream = served.stub.ModelStreamInfer()
    await stream.write(infer_request("waiting", identifier="slow"))
    await stream.write(infer_request(identifier="fast"))
    while not served.plane.answered["identity_fp32"]:
        await asyncio.wait_for(served.plane.entered.wait(), BOUND)
        await asyncio.sleep(0)
    served.plane.release.set()
    await stream.done_writing()

    assert [answer.infer_response.id for answer in await everything(stream)] == ["slow", "fast"]


async def test_a_stream_has_a_bound_on_what_it_works_on(served: Wire) -> None:
    """No more than STREAM_IN_FLIGHT requests of one stream wait at once; none is lost."""
    count = STREAM_IN_FLIGHT + 30
    stream = served.stub.ModelStreamInfer(
        requests(infer_request("waiting", identifier=str(n)) for n in range(count))
    )
    while served.plane.waiting < STREAM_IN_FLIGHT:
        served.plane.entered.clear()
        await asyncio.wait_for(served.plane.entered.wait(), BOUND)
    # The answer to another call comes after everything the stream has already delivered.
    await served.stub.ModelInfer(infer_request())
    served.plane.release.set()
    answers = await everything(stream)

    assert served.plane.most_waiting == STREAM_IN_FLIGHT
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(count)]


async def test_half_close_finishes_what_is_in_flight(served: Wire) -> None:
    """The client says it is done while its request still waits; the answer comes all the same."""
    stream = served.stub.ModelStreamInfer()
    await stream.write(infer_request("waiting", identifier="last"))
    await asyncio.wait_for(served.plane.entered.wait(), BOUND)
    await stream.done_writing()
    served.plane.release.set()

    assert [answer.infer_response.id for answer in await everything(stream)] == ["last"]
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_cancelled_stream_gives_up_all_its_requests(served: Wire) -> None:
    """When the client leaves, every task of its stream is cancelled."""
    stream = served.stub.ModelStreamInfer()
    for n in range(3):
        await stream.write(infer_request("waiting", identifier=str(n)))
    while served.plane.waiting < 3:
        served.plane.entered.clear()
        await asyncio.wait_for(served.plane.entered.wait(), BOUND)
    stream.cancel()
    while served.plane.waiting:
        served.plane.left.clear()
        await asyncio.wait_for(served.plane.left.wait(), BOUND)

    assert served.plane.cancelled == 3


async def test_a_deadline_of_the_stream_covers_its_requests(served: Wire) -> None:
    """grpc-timeout is the requests' deadline too; whichever end notices first says so."""
    stream = served.stub.ModelStreamInfer(requests([infer_request("waiting")]), timeout=0.4)
    try:
        [answer] = await everything(stream)
        told = answer.error_message
    except grpc.aio.AioRpcError as error:
        told = str(error.code())
    await asyncio.wait_for(served.plane.left.wait(), BOUND)

    assert told in {"the deadline passed while waiting", "StatusCode.DEADLINE_EXCEEDED"}
    assert served.plane.waiting == 0


async def test_a_stream_without_a_credential_is_refused_as_a_whole(
    native: bool, tmp_path: Path
) -> None:
    """Who may not infer gets a status, not a stream of errors."""
    async with wire(native, tmp_path, tokens={"Bearer good": frozenset({"infer"})}) as served:
        stream = served.stub.ModelStreamInfer(requests([infer_request()]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await everything(stream)
        good = served.stub.ModelStreamInfer(
            requests([infer_request()]), metadata=(("authorization", "Bearer good"),)
        )

        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert len(await everything(good)) == 1


async def test_a_drain_answers_what_a_stream_has_sent_and_ends_it(served: Wire) -> None:
    """The drain reads no further request, finishes, and says UNAVAILABLE."""
    stream = served.stub.ModelStreamInfer()
    await stream.write(infer_request("waiting", identifier="sent"))
    await asyncio.wait_for(served.plane.entered.wait(), BOUND)
    collected: list[str] = []

    async def collect() -> None:
        async for answer in stream:
            collected.append(answer.infer_response.id)  # noqa: PERF401 - it ends in an error

    collecting = asyncio.ensure_future(collect())
    served.listener.begin_drain()
    served.plane.release.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(collecting, BOUND)

    assert collected == ["sent"]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await served.listener.drain(5.0) == 0
