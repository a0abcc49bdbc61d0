"""Whole runs, generator process and all, against servers that behave in one way each."""

import json
import socket
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import loadtest_target_kit as kit
import pytest
import trustme

from serving.config.decode import decode
from serving.errors import InvalidRequest
from serving.loadtest.results import Result
from serving.loadtest.runner import GeneratorFailed, run
from serving.loadtest.scenario import Scenario
from serving.loadtest.slo import judge
from serving.loadtest.target import TargetUnreachable, Tls

FOLDER = Path(__file__).parent
USUAL = """\
schema_version: 1
name: test
connections: 4
timeout: 500ms
max_lag: 10s
requests:
  - {model: m, entity: {id: {keys: 5, zipf: 0}}}
phases:
  - {name: a, for: 300ms, rate: 100, arrivals: constant}
  - {name: b, for: 200ms, rate: 100, arrivals: constant}
"""


def scenario(target: str, text: str = USUAL) -> Scenario:
    """A scenario of half a second and 50 requests."""
    decoded = decode(f"target: {target}\n{text}", "scenario.yaml", Scenario)
    assert not decoded.problems
    found: Scenario = decoded.value
    return found


async def ran(behave: kit.Behaviour, text: str = USUAL) -> tuple[Result, kit.Target]:
    """The result of a run, and the server it met."""
    with kit.Target(behave).served() as target:
        return await run(scenario(target.url, text), FOLDER), target


async def test_every_request_is_sent_once_and_counted() -> None:
    """By phase, by second, as a whole; with what the answers said."""
    result, target = await ran(kit.fine)

    assert len(target.bodies) == 50
    assert [phase.counts.ok for phase in result.phases] == [30, 20]
    whole = result.whole
    assert (whole.scheduled, whole.sent, whole.answered, whole.ok) == (50, 50, 50, 50)
    assert whole.statuses == {"200": 50}
    assert whole.versions == {"m:v1": 50}
    assert whole.roles == {"production": 50}
    assert whole.feature_status == {"OK": 50, "DEFAULTED": 50, "NOT_FOUND": 50}
    assert whole.with_features == 50
    assert whole.latency.count == 50
    assert sum(second.counts.ok for second in result.per_second) == 50
    assert whole.bytes_received == 50 * len(kit.answer(200, kit.ANSWER))
    assert judge(result, []).outcome == "met"


async def test_a_seed_gives_the_same_requests_whoever_sends_them() -> None:
    """Keys and mix do not depend on the number of processes."""
    one, two = [
        (await ran(kit.fine, USUAL + f"processes: {number}\n"))[1].bodies for number in (1, 2)
    ]

    assert Counter(one) == Counter(two)
    keys = [json.loads(body)["inputs"][0]["data"][0] for body in one]
    assert set(keys) == {1, 2, 3, 4, 5}


async def test_deadline_headers_and_token_are_sent() -> None:
    """The deadline is what is left of it."""
    text = USUAL + "deadline: 250ms\nheaders: {x-team: a}\n"
    with kit.Target(kit.fine).served() as target:
        await run(scenario(target.url, text), FOLDER, token="secret")

    head = target.heads[0].decode().split("\r\n")
    fields = dict(line.split(": ") for line in head[1:] if line)
    assert head[0] == "POST /v2/models/m/infer HTTP/1.1"
    assert 0 < float(fields["x-request-timeout"]) <= 0.25
    assert fields["x-team"] == "a"
    assert fields["Authorization"] == "Bearer secret"


async def test_binary_tensors_have_their_json_first() -> None:
    """The header says how long it is; the keys follow as little-endian numbers."""
    _, target = await ran(kit.fine, USUAL + "encoding: binary\n")

    fields = dict(line.split(": ") for line in target.heads[0].decode().split("\r\n")[1:] if line)
    length = int(fields["Inference-Header-Content-Length"])
    document, tail = json.loads(target.bodies[0][:length]), target.bodies[0][length:]
    assert document["inputs"][0]["parameters"] == {"binary_data_size": 8}
    assert 1 <= int.from_bytes(tail, "little") <= 5


async def test_the_warm_up_counts_for_nothing() -> None:
    """What is due before its end is in no phase, and not in the whole."""
    result, target = await ran(kit.fine, USUAL + "warmup: 200ms\n")

    assert len(target.bodies) == 50
    assert [phase.counts.ok for phase in result.phases] == [10, 20]
    assert result.whole.scheduled == 30
    assert result.whole_seconds == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("behave", "status", "words"),
    [
        (kit.busy, "503", "the queue is full"),
        (kit.hung, "timeout", "no answer in time"),
        (kit.rude, "closed", "the connection was closed before an answer"),
        (kit.foreign, "unreadable", "<html>welcome</html>"),
        (kit.mistaken, "wrong", "model `m` was asked, `other` answered"),
    ],
    ids=["busy", "hung", "rude", "foreign", "mistaken"],
)
async def test_a_target_that_only_fails_gives_an_invalid_run(
    behave: kit.Behaviour, status: str, words: str
) -> None:
    """It says with which status, and what the target said."""
    result, _ = await ran(behave)
    verdict = judge(result, [])

    assert result.whole.ok == 0
    assert result.whole.statuses[status] > 0
    assert words in result.whole.problems[status]
    assert verdict.outcome == "invalid"
    assert status in verdict.invalid[0]


async def test_a_target_that_hangs_up_after_each_answer_is_called_anew() -> None:
    """No request is lost by it."""
    result, _ = await ran(kit.parting, USUAL.replace("500ms", "20s"))

    assert result.whole.statuses == {"200": 50}


async def test_refusals_do_not_count_as_latency() -> None:
    """A quick error is in a histogram of its own."""
    result, _ = await ran(kit.busy)

    assert result.whole.latency.count == 0
    assert result.whole.rejected.count == 50


async def test_who_got_no_answer_counts_with_the_whole_wait() -> None:
    """Being hung up on at once is not a latency of nothing, nor of the deadline."""
    result, _ = await ran(kit.rude, USUAL + "deadline: 100ms\n")

    assert result.whole.latency.count == 50
    assert result.whole.latency.quantile(0.01) == pytest.approx(0.5, rel=0.01)


async def test_a_target_slower_than_the_schedule_is_told() -> None:
    """Four connections at 200 ms each are 20 requests a second, not 100."""
    result, _ = await ran(kit.slow)
    verdict = judge(result, [])

    assert result.generator.waits.count > 0
    assert result.whole.unsent > 0
    assert verdict.outcome == "missed"
    assert "slower than the schedule" in verdict.checks[0].words


async def test_the_wait_for_a_connection_is_part_of_the_latency() -> None:
    """No coordinated omission: the queue before a slow target is seen."""
    result, _ = await ran(kit.slow, USUAL.replace("500ms", "5s"))

    assert result.whole.ok == 50
    # 50 requests by four at 200 ms take 2.5 s, and the last was due after half a second.
    assert result.whole.latency.largest > 1.5


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_nobody_there_is_said_before_anything_is_sent(
    scheme: str, unused_tcp_port: int
) -> None:
    """With the system's reason."""
    target = f"{scheme}://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(TargetUnreachable, match=rf"nobody answers at {target}: .*refused"):
        await run(scenario(target), FOLDER)


async def test_a_listener_that_does_not_speak_grpc_is_told_from_nobody() -> None:
    """It takes connections, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TargetUnreachable, match="takes connections but does not speak gRPC"):
            await run(scenario(target), FOLDER)


async def test_a_body_that_is_no_request_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    """Where it must be understood, to be sent as binary tensors."""
    (tmp_path / "body.json").write_text("{}")
    text = USUAL.replace("entity: {id: {keys: 5, zipf: 0}}", "body: body.json")
    with (
        kit.Target(kit.fine).served() as target,
        pytest.raises((GeneratorFailed, InvalidRequest), match="the body of `m`"),
    ):
        await run(scenario(target.url, text + "encoding: binary\n"), tmp_path)


async def test_tls_is_spoken_with_whom_the_authority_vouches_for(tmp_path: Path) -> None:
    """And not with anybody else."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with kit.Target(kit.fine, context).served() as target:
        known = await run(scenario(target.url), FOLDER, tls=Tls(ca=str(tmp_path / "ca.pem")))
        with pytest.raises(TargetUnreachable, match=r"(?i)certificate"):
            await run(scenario(target.url), FOLDER)

    assert known.whole.ok == 50


async def test_a_body_is_sent_as_it_is(tmp_path: Path) -> None:
    """In JSON nothing of it is read."""
    body: dict[str, Any] = {"inputs": [], "x": 1}
    (tmp_path / "body.json").write_text(json.dumps(body))
    text = USUAL.replace("entity: {id: {keys: 5, zipf: 0}}", "version: v2, body: body.json")
    with kit.Target(kit.fine).served() as target:
        await run(scenario(target.url, text), tmp_path)

    assert json.loads(target.bodies[0]) == body
    assert target.heads[0].startswith(b"POST /v2/models/m/versions/v2/infer ")
