"""The benchmark measures what it says, and shows no figures of a server that answers wrongly."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
from script_kit import LOADTESTS, module

from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """loadtests/bench.py."""
    return module("bench")


@pytest.fixture(scope="module", params=["1x30", "demo"])
def workload(request: pytest.FixtureRequest, bench: ModuleType, tmp_path_factory: Any) -> Any:
    """Each payload in turn."""
    return bench.build(request.param, tmp_path_factory.mktemp("workload"))


def test_the_floor_answers_with_the_models_numbers(bench: ModuleType, workload: Any) -> None:
    """Load on the floor yields requests, checked answers and CPU time on the worker's account."""
    with bench.floor(workload) as server:
        run = bench.measure("floor", server, "http", workload=workload, connections=3, seconds=0.3)

    assert run.requests > 0
    assert run.cpu_us > 0
    assert set(run.by_process_us) == {"worker"}


def test_wrong_numbers_end_the_benchmark(bench: ModuleType, workload: Any) -> None:
    """An answer that is not what the model says is an error, not a figure."""
    deceived = workload._replace(expected=[[0.9, 0.2]] * len(workload.expected))

    with (
        bench.floor(workload) as server,
        pytest.raises(bench.BadAnswers, match="was answered"),
    ):
        bench.measure("floor", server, "http", workload=deceived, connections=2, seconds=0.2)


def test_an_answer_meant_for_another_request_is_noticed(bench: ModuleType, workload: Any) -> None:
    """Requests differ, so answers that arrive in the wrong place do not add up."""
    shifted = workload._replace(expected=workload.expected[1:] + workload.expected[:1])

    with bench.floor(workload) as server, pytest.raises(bench.BadAnswers):
        bench.measure("floor", server, "http", workload=shifted, connections=2, seconds=0.2)


def test_a_server_that_answers_nothing_has_no_figures(bench: ModuleType, workload: Any) -> None:
    """Nobody is taken for infinitely fast, or for a mistake of the benchmark's."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        server = bench.Gateway(os.getpid(), address, "", {})

        with pytest.raises(bench.BadAnswers, match="nothing was answered"):
            bench.measure("silent", server, "http", workload, connections=2, seconds=0.2)


class Answering(pb_grpc.GRPCInferenceServiceServicer):
    """Runs the workload's model on the one tensor sent; fails every call if told to."""

    def __init__(self, session: Any, *, broken: bool = False) -> None:
        self._session = session
        self._broken = broken

    async def ModelInfer(  # noqa: N802  - the protocol's name
        self, request: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        """Answer one call."""
        if self._broken:
            await context.abort(grpc.StatusCode.INTERNAL, "broken")
        row = np.frombuffer(request.raw_input_contents[0], "<f4")[None]
        [answer] = self._session.run(["probabilities"], {"input": row})
        response = pb.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name="probabilities", datatype="FP32", shape=answer.shape)
        response.raw_output_contents.append(answer.tobytes())
        return response


async def grpc_run(bench: ModuleType, folder: Path, *, broken: bool = False) -> Any:
    """Measure a gRPC server that runs in this process."""
    workload = bench.build("1x30", folder)
    server = grpc.aio.server()
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(
        Answering(bench.open_session(workload.artifact), broken=broken), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    address = bench.Gateway(os.getpid(), "", f"127.0.0.1:{port}", {os.getpid(): "worker"})
    try:
        return await asyncio.to_thread(
            bench.measure, "own", address, "grpc", workload=workload, connections=2, seconds=0.3
        )
    finally:
        await server.stop(None)


async def test_the_grpc_client_is_understood_by_a_real_server(
    bench: ModuleType, tmp_path: Path
) -> None:
    """Frames and headers written by hand get whole, correct answers from grpcio's own server."""
    run = await grpc_run(bench, tmp_path)

    assert run.requests > 2  # more than one call on a connection: headers sent indexed


async def test_failed_grpc_calls_end_the_benchmark(bench: ModuleType, tmp_path: Path) -> None:
    """A call that ends without a message is an error, not a fast answer."""
    with pytest.raises(bench.BadAnswers, match="no whole message"):
        await grpc_run(bench, tmp_path, broken=True)


def test_ratios_compare_runs_of_the_same_round(bench: ModuleType) -> None:
    """A slow minute that slows both does not move the ratio."""

    def run(server: str, worker: float, control: float = 0.0) -> Any:
        parts = {"worker": worker, "control": control}
        return bench.Run(server, "http", 1, worker + control, parts, 1.0, 1.0, 1.0)

    rounds = [
        [run("floor", 100.0), run("gateway", 120.0, 10.0)],
        [run("floor", 200.0), run("gateway", 240.0, 20.0)],
    ]

    found = bench.ratios(rounds)

    assert found["http tree"] == {"median": 1.3, "least": 1.3, "most": 1.3}
    assert found["http worker"]["median"] == 1.2


def test_cpu_time_of_an_ended_child_is_not_lost(bench: ModuleType) -> None:
    """A child's time moves to its parent when it has been waited for."""
    busy = "import os\nwhile os.times().user < 0.1: pass"
    before = sum(bench.cpu_seconds({os.getpid()}).values())
    with subprocess.Popen([sys.executable, "-c", busy]) as child:
        assert child.pid in bench.tree(os.getpid())

    assert child.pid not in bench.tree(os.getpid())
    assert sum(bench.cpu_seconds({os.getpid()}).values()) >= before + 0.05


def test_the_hop_is_what_worker_and_host_take_more() -> None:
    """One round of `bench_hop.py`: a host answers on one side only, and is counted."""
    command = [sys.executable, LOADTESTS / "bench_hop.py", "--rounds", "1", "--seconds", "0.3"]
    done = subprocess.run(
        [*command, "--connections", "4", "--json"],
        check=True,
        capture_output=True,
        timeout=110,
    )
    found = json.loads(done.stdout)
    [[inline, hosted]] = found["rounds"]
    here, there = inline["by_process_us"], hosted["by_process_us"]

    assert "host" not in here
    assert there["host"] > 0
    assert found["hop_us"] == [pytest.approx(there["worker"] + there["host"] - here["worker"])]


def test_a_second_worker_is_worth_what_the_busiest_leaves() -> None:
    """One round of `bench_scaling.py`: both gateways answer, and the ratio is of CPU times."""
    command = [sys.executable, LOADTESTS / "bench_scaling.py", "--rounds", "1", "--seconds", "0.5"]
    done = subprocess.run(
        [*command, "--connections", "8", "--json"],
        check=True,
        capture_output=True,
        timeout=110,
    )
    found = json.loads(done.stdout)

    assert found["workers"] == 2
    assert found["scaling"]["least"] > 0


def test_scaling_is_judged_by_the_worker_that_has_most_to_do(bench: ModuleType) -> None:
    """One of two that takes three quarters of the load is full when one alone would be at 4 / 3."""
    scaling = module("bench_scaling").scaling
    alone = bench.Run("1", "http", 1, 100.0, {"worker": 100.0}, 1.0, 1.0, 1.0, busiest_us=100.0)
    uneven = bench.Run("2", "http", 1, 100.0, {"worker": 100.0}, 1.0, 1.0, 1.0, busiest_us=75.0)

    assert scaling(alone, uneven) == pytest.approx(4 / 3)


COMMANDS = [one for one in sorted(LOADTESTS.glob("bench*.py")) if "argparse" in one.read_text()]
"""Those that are run; the others are their parts."""


@pytest.mark.parametrize("script", COMMANDS, ids=lambda one: one.stem)
def test_scripts_say_how_they_are_used(script: Path) -> None:
    """`--help` shows a command to copy."""
    done = subprocess.run(
        [sys.executable, script, "--help"], check=True, capture_output=True, text=True, timeout=60
    )
    assert f"python loadtests/{script.name}" in done.stdout
