"""A real gateway with its processes killed and stopped under load."""

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gateway_kit
import onnx_models
import pytest
from waiting_kit import until

BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [21]}]}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[gateway_kit.Running]:
    """One model on two workers."""
    folder = tmp_path / "gateway"
    gateway_kit.write_gateway(folder, engine={"kind": "local", "workers": 2})
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.doubler()}, {})
    with gateway_kit.running(folder) as running:
        yield running


class Connections(threading.Thread):
    """Keep-alive connections asked in turn; a broken one is opened again."""

    def __init__(self, address: str, count: int = 8) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._count = count
        self.stop = threading.Event()
        self.answered = 0
        self.refused: list[str] = []
        self.broken = 0

    def run(self) -> None:
        """Ask over every connection until told to stop."""
        body = json.dumps(BODY)
        connections = [self._open() for _ in range(self._count)]
        while not self.stop.is_set():
            for number, connection in enumerate(connections):
                try:
                    connection.request("POST", "/v2/models/m/infer", body)
                    answer = connection.getresponse()
                    text = answer.read()
                except (OSError, http.client.HTTPException):
                    self.broken += 1
                    connection.close()
                    connections[number] = self._open()
                    continue
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.refused.append(f"{answer.status} {text!r}")
        for connection in connections:
            connection.close()

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=20)


def under_load(gateway: gateway_kit.Running, fault: Callable[[Connections], None]) -> Connections:
    """Ask all the time while `fault` happens, and a while after it."""
    load = Connections(gateway.http)
    load.start()
    try:
        until(lambda: load.answered > 100, "the first answers")
        fault(load)
        after = load.answered
        until(lambda: load.answered > after + 200, "answers after the fault")
    finally:
        load.stop.set()
        load.join(30)
    return load


def test_a_killed_worker_costs_at_most_its_own_connections(gateway: gateway_kit.Running) -> None:
    """Kill -9 breaks the connections it held, once each; nobody gets an error answer."""
    victim, other = gateway.pids("worker")

    def kill(_: Connections) -> None:
        os.kill(victim, signal.SIGKILL)
        until(
            lambda: len(pids := gateway.pids("worker")) == 2 and victim not in pids,
            "a new worker",
        )

    load = under_load(gateway, kill)

    assert load.refused == []
    assert load.broken <= 16, "eight connections, each broken and perhaps reset once more"
    assert other in gateway.pids("worker")


def test_a_stopped_worker_is_replaced(gateway: gateway_kit.Running) -> None:
    """SIGSTOP keeps the port open and answers nothing; the engine kills and replaces it."""
    victim, _ = gateway.pids("worker")

    def stop(_: Connections) -> None:
        os.kill(victim, signal.SIGSTOP)
        until(
            lambda: len(pids := gateway.pids("worker")) == 2 and victim not in pids,
            "a new worker",
        )

    load = under_load(gateway, stop)

    assert load.refused == []


@pytest.mark.parametrize("process", ["control", "store"])
def test_predictions_do_not_need_control_or_store(
    gateway: gateway_kit.Running, process: str
) -> None:
    """Management dies and heals; every request meanwhile is answered."""
    (victim,) = gateway.pids(process)

    def kill(_: Connections) -> None:
        os.kill(victim, signal.SIGKILL)
        until(lambda: gateway.pids(process) not in ([], [victim]), f"a new {process}")

    load = under_load(gateway, kill)

    assert (load.refused, load.broken) == ([], 0)


def test_a_worker_without_a_store_serves_what_is_on_its_disk(gateway: gateway_kit.Running) -> None:
    """With the store stopped, a restarted worker answers from the last good snapshot."""
    (store,) = gateway.pids("store")
    os.kill(store, signal.SIGSTOP)
    workers = set(gateway.pids("worker"))
    try:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)

        def answers() -> bool:
            try:
                return gateway.ask(f"{gateway.http}/v2/models/m/infer", BODY)[0] == 200
            except OSError:
                return False

        until(answers, "an answer without the store")
        assert workers.isdisjoint(gateway.pids("worker"))
    finally:
        os.kill(store, signal.SIGCONT)


def test_totals_survive_a_killed_worker(gateway: gateway_kit.Running) -> None:
    """What a dead worker has counted stays counted, once."""

    def total() -> float:
        metrics = gateway.ask(f"{gateway.admin}/metrics")[1]
        return sum(
            float(line.split()[-1])
            for line in metrics.splitlines()
            if line.startswith("sluice_inference_rows_total{")
        )

    for _ in range(20):
        assert gateway.ask(f"{gateway.http}/v2/models/m/infer", BODY)[0] == 200
    until(lambda: total() == 20, "20 rows counted")
    before = set(gateway.pids("worker"))
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    until(
        lambda: len(pids := gateway.pids("worker")) == 2 and before.isdisjoint(pids),
        "two new workers",
    )

    assert total() == 20
