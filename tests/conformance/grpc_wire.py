"""What the gRPC listener's tests share: a listener on a real port, a channel, a request."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
from conformance.grpc_plane import TwinPlane

from serving.clock import SystemClock
from serving.config.schema import Limits
from serving.config.units import ByteSize
from serving.metrics import MetricsFile, read
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc
from serving.protocol.tensors import TensorLimits
from serving.worker.grpc.listener import GrpcListener

MAX_BODY = 1 << 20


class Wire(msgspec.Struct):
    """A served plane and a client of it."""

    plane: TwinPlane
    listener: GrpcListener
    port: int
    channel: grpc.aio.Channel
    stub: Any
    metrics_path: Path

    def rejected(self) -> dict[tuple[str, ...], float]:
        """`sluice_rejected_total` by (model, reason)."""
        samples = read(self.metrics_path)
        return {key[1]: values[0] for key, values in samples.items() if "rejected" in key[0]}


@asynccontextmanager
async def wire(
    native: bool, folder: Path, *, tokens: dict[str, frozenset[str]] | None = None
) -> AsyncIterator[Wire]:
    """Serve an TwinPlane on a free port of loopback and connect to it."""
    plane = TwinPlane(tokens)
    path = folder / f"{time.monotonic_ns()}.metrics"
    metrics = MetricsFile(path)
    listener = GrpcListener(
        plane,
        Limits(max_body=ByteSize(MAX_BODY)),
        TensorLimits(),
        metrics,
        header_names=lambda: frozenset({"x-sluice-version"}),
        clock=SystemClock(),
        native=native,
    )
    port = await listener.start("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)]
        ) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            yield Wire(plane, listener, port, channel, stub, path)
    finally:
        plane.release.set()
        await listener.drain(5.0)
        metrics.close()


def infer_request(
    model: str = "identity_fp32", *, identifier: str = "", rows: int = 1, columns: int = 4
) -> pb.ModelInferRequest:
    """Numbers 0, 1, 2 … as FP32 in raw contents."""
    values = np.arange(rows * columns, dtype=np.float32)
    message = pb.ModelInferRequest(model_name=model, id=identifier)
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[rows, columns])
    message.raw_input_contents.append(values.tobytes())
    return message
