import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent / "stand_ins"))

from running_engine import (
    BOUND_SECONDS,
    PROCESS,
    build,
    events,
    eventually,
    running,
    who_answers,
)

from serving.config.keys import STORE_VARIABLE
from serving.engine.lifecycle import State
from serving.engine.local import Programs
from serving.engine.report import read_report
from serving.errors import EngineError


async def test_all_workers_answer_on_one_resolved_port(tmp_path: Path) -> None:
    """Port 0 becomes one port that both workers share."""
    async with running(tmp_path, workers=2) as engine:
        answered: set[str] = set()

        await eventually(
            lambda: answered.add(who_answers(engine.addresses.http)) or len(answered) == 2
        )

        assert answered == {"worker-0", "worker-1"}
        assert who_answers(engine.addresses.admin) == "control"


async def test_every_process_gets_the_contract_on_its_command_line(tmp_path: Path) -> None:
    """The arguments are those the real programs are written for."""
    async with running(tmp_path, insecure_bind=True) as engine:
        data, addresses = str(engine.directory.path), engine.addresses
        mine = str(psutil.Process().pid)
        store = f"unix://{data}/store/store.sock"
        shared = ["--data", data, "--config", str(tmp_path), "--parent", mine]

        assert list(engine.workers[0].spec.command[len(PROCESS) :]) == [
            *shared, "--worker", "0", "--http", addresses.http, "--grpc", addresses.grpc,
        ]  # fmt: skip
        assert engine.control is not None
        assert list(engine.control.spec.command[len(PROCESS) :]) == [
            *shared, "--admin", addresses.admin, "--insecure-bind",
        ]  # fmt: skip
        for process in (engine.control, engine.workers[0]):
            assert process.spec.environment == {STORE_VARIABLE: store}


def test_the_real_programs_run_as_modules_without_the_working_directory() -> None:
    """`-P` keeps a folder named `serving` where the user stands from being imported."""
    worker, control = Programs().worker, Programs().control

    assert worker == (sys.executable, "-P", "-m", "serving.worker.process")
    assert control == (sys.executable, "-P", "-m", "serving.control.process")


async def test_engine_json_says_what_runs(tmp_path: Path) -> None:
    """A reader finds the pids and the real ports."""
    async with running(tmp_path, workers=2) as engine:
        report = read_report(engine.directory.engine_json)

        assert report is not None
        assert report.alive
        assert report.addresses == engine.addresses
        assert {p.name: p.state for p in report.processes} == dict.fromkeys(
            ("store", "control", "worker-0", "worker-1"), State.READY
        )
        assert all(p.pid is not None and psutil.pid_exists(p.pid) for p in report.processes)


async def test_processes_stop_in_the_order_workers_control_store(tmp_path: Path) -> None:
    """A draining worker still has control and the store, and control still has the store."""
    async with running(tmp_path, workers=2):
        pass

    ends = [event for event in events(tmp_path) if not event.startswith("started")]
    assert sorted(ends[:-2]) == [
        "draining worker-0", "draining worker-1", "ended worker-0 store", "ended worker-1 store",
    ]  # fmt: skip
    assert ends[-2:] == ["draining control", "ended control store"]


async def test_stop_leaves_no_process_socket_or_lock(tmp_path: Path) -> None:
    """Only data stays, and ports are free again."""
    async with running(tmp_path, workers=2) as engine:
        pids = [process.report.pid for process in engine.processes]
        address = engine.addresses.http

    assert [process.state for process in engine.processes] == [State.STOPPED] * 4
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in pids)
    assert list((tmp_path / "data" / "run").iterdir()) == []
    assert not list((tmp_path / "data" / "store").glob("*.sock"))
    host, _, port = address.rpartition(":")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((host, int(port)))
        again.listen()


async def test_a_second_engine_on_the_same_data_is_refused(tmp_path: Path) -> None:
    """The first goes on untouched."""
    async with running(tmp_path) as engine:
        with pytest.raises(EngineError, match="another gateway is running on the data directory"):
            await build(tmp_path, lines=[]).start()

        assert read_report(engine.directory.engine_json) is not None
        assert who_answers(engine.addresses.http) == "worker-0"


async def test_a_second_engine_on_the_same_port_is_refused_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    """It names the port and the option, starts no process, and drops its own claim."""
    async with running(tmp_path / "one") as first:
        second = build(tmp_path / "two", lines=[], http=first.addresses.http)

        with pytest.raises(EngineError, match=rf"{first.addresses.http} is in use.*listen\.http"):
            await second.start()

        assert second.processes == []
        assert not (tmp_path / "two" / "data").exists()


async def test_an_engine_that_was_refused_can_be_started_again(tmp_path: Path) -> None:
    """A refusal holds neither lock nor port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        engine = build(tmp_path, lines=[], admin=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(EngineError, match=r"listen\.admin"):
            await engine.start()

    async with running(tmp_path):
        pass


async def test_log_lines_of_children_carry_their_name(tmp_path: Path) -> None:
    """What a child prints arrives at the engine's sink under its name."""
    lines: list[str] = []
    async with running(tmp_path, lines=lines):
        await eventually(lambda: "worker-0 | worker-0 listens" in lines)

    assert "control | control listens" in lines


async def test_a_workers_load_can_be_asked(tmp_path: Path) -> None:
    """The private socket reports in-flight requests, busy seconds and connections."""
    async with running(tmp_path) as engine:
        assert await engine.worker_load(0) == {
            "in_flight": 3, "busy_seconds": 1.5, "connections": 2,
        }  # fmt: skip
        assert await engine.worker_load(7) is None


async def test_ready_waits_for_the_snapshot_and_not_only_for_the_process(tmp_path: Path) -> None:
    """A worker that is alive but serves nothing keeps `until_ready` waiting."""
    async with running(tmp_path, wait=False, worker_flags=("--never-ready",)) as engine:
        waiting = asyncio.create_task(engine.until_ready())
        await eventually(lambda: engine.workers[0].state is State.READY)

        assert not waiting.done()

        waiting.cancel()
        await asyncio.wait({waiting})


async def test_until_broken_ends_only_when_supervision_does(tmp_path: Path) -> None:
    """A healthy engine keeps it waiting; a bug in a supervising task would be raised by it."""
    async with running(tmp_path) as engine:
        broken = asyncio.create_task(engine.until_broken())
        await asyncio.sleep(0)
        assert not broken.done()

    await asyncio.wait_for(broken, BOUND_SECONDS)


async def test_addresses_are_unknown_before_the_start(tmp_path: Path) -> None:
    """Port 0 has no number yet, so asking is a mistake that is named."""
    with pytest.raises(EngineError, match="not been started"):
        _ = build(tmp_path, lines=[]).addresses


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A home whose sockets would not fit into an address."""
    home = tmp_path / ("d" * 80)
    home.mkdir()
    return home


async def test_a_deep_data_directory_works_like_any_other(deep: Path) -> None:
    """Store, control and worker are reached although no socket path under it could be bound."""
    async with running(deep) as engine:
        assert len(str(deep / "data" / "run" / "worker-0.sock")) > 107
        assert engine.workers[0].state is State.READY

    assert list((deep / "data" / "run").iterdir()) == []


async def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    """Spaces, percent and question marks survive the store's address."""
    home = tmp_path / "a b%41?c"
    home.mkdir()
    async with running(home):
        pass

    assert events(home)[-1] == "ended control store"


async def test_an_address_that_is_none_is_refused_by_option(tmp_path: Path) -> None:
    """The option is named before anything is started."""
    with pytest.raises(EngineError, match=r"listen\.grpc: the port must be a number"):
        await build(tmp_path, lines=[], grpc="127.0.0.1:http").start()
