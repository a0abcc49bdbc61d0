"""Notices of rollouts: real receivers that fail, hang and redirect; control that is killed."""

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import monitoring_kit
import pytest
import rollout_kit
import trustme
from monitoring_kit import Receiver
from notice_kit import START, happened, notices, plan, standing

from serving.clock import ManualClock
from serving.config.schema import RolloutConfig
from serving.control.outbound import DeliveryFailed, Reach, post
from serving.control.patience import GIVE_UP_SECONDS
from serving.control.rollouts.notice_log import Settled, read
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event

KEPT = "rollouts/demo/demo-r1/notices.jsonl"


@pytest.fixture
def clock() -> ManualClock:
    """It moves when told to."""
    return ManualClock(wall=START)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where notices go."""
    with monitoring_kit.receiver() as made:
        yield made


def settled(folder: Path) -> list[Settled]:
    """What the disk says has become of notices."""
    return [line for line in read(folder / KEPT) if isinstance(line, Settled)]


def ids(receiver: Receiver) -> list[str]:
    """Of what came, in order."""
    return [receiver.body(place)["id"] for place in range(len(receiver.requests))]


async def test_a_notice_is_a_signed_cloud_event(
    tmp_path: Path, clock: ManualClock, receiver: Receiver
) -> None:
    """Whoever has the key can tell that it is ours."""
    (tmp_path / "key").write_text("of gold\n")
    made = notices(tmp_path, clock)

    await made.tell(happened(4), standing(), plan({"webhook": receiver.url, "secret_file": "key"}))
    await made.look()
    await made.sent()

    [(_, headers, body)] = receiver.requests
    signature = hmac.new(b"of gold", body, hashlib.sha256).hexdigest()
    assert headers["x-sluice-signature"] == f"sha256={signature}"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert receiver.body(0)["type"] == "dev.sluice.rollout.paused"
    assert [(one.outcome, one.said) for one in settled(tmp_path)] == [
        ("delivered", "the webhook answered 202")
    ]


async def test_what_was_not_taken_comes_again_and_nothing_overtakes_it(
    tmp_path: Path, clock: ManualClock, receiver: Receiver
) -> None:
    """The same bytes; a redirect is a failure like another."""
    made = notices(tmp_path, clock)
    receiver.answers = [500, 307]
    await made.tell(happened(4), standing(), plan({"webhook": receiver.url}))
    await made.tell(happened(5, "resumed"), standing(), plan({"webhook": receiver.url}))

    for seconds in (0, 1, 2):
        clock.advance(seconds)
        await made.look()
        await made.sent()

    assert ids(receiver) == ["demo-r1.4", "demo-r1.4", "demo-r1.4", "demo-r1.5"]
    assert len({body for _, _, body in receiver.requests[:3]}) == 1
    assert made.counts["demo", "failed"] == 2
    assert made.counts["demo", "delivered"] == 2
    assert [one.attempts for one in settled(tmp_path)] == [3, 1]


async def test_it_is_not_tried_again_before_its_time(
    tmp_path: Path, clock: ManualClock, receiver: Receiver
) -> None:
    """A receiver in trouble is left alone for a while."""
    made = notices(tmp_path, clock)
    receiver.answers = [503]
    await made.tell(happened(4), standing(), plan({"webhook": receiver.url}))

    for _ in range(3):
        await made.look()
        await made.sent()

    assert len(receiver.requests) == 1


async def test_a_target_that_hangs_holds_up_no_other(
    tmp_path: Path, clock: ManualClock, receiver: Receiver
) -> None:
    """Each has a line of its own."""
    made = notices(tmp_path, clock)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        to = plan({"webhook": hanging}, {"webhook": receiver.url}, {"file": "told.jsonl"})
        keeping = asyncio.create_task(made.keep())
        await made.tell(happened(4), standing(), to)
        while made.counts["demo", "delivered"] < 2:
            await asyncio.sleep(0.01)
        keeping.cancel()
        await asyncio.wait({keeping})

    assert ids(receiver) == ["demo-r1.4"]
    assert len((tmp_path / "told.jsonl").read_text().splitlines()) == 1


async def test_after_a_day_it_is_given_up_and_the_next_one_has_its_turn(
    tmp_path: Path, clock: ManualClock, receiver: Receiver
) -> None:
    """That is counted, and stands on the disk."""
    made = notices(tmp_path, clock)
    receiver.answers = [500, 500]
    await made.tell(happened(4), standing(), plan({"webhook": receiver.url}))
    await made.look()
    await made.sent()
    clock.advance(GIVE_UP_SECONDS + 5)
    await made.tell(happened(5, at=clock.wall()), standing(), plan({"webhook": receiver.url}))
    await made.look()
    await made.sent()

    assert ids(receiver) == ["demo-r1.4", "demo-r1.4", "demo-r1.5"]
    assert [one.outcome for one in settled(tmp_path)] == ["given_up", "delivered"]
    assert made.counts["demo", "given_up"] == 1


async def test_what_is_told_twice_is_sent_once(
    tmp_path: Path, clock: ManualClock, receiver: Receiver
) -> None:
    """Control tells again what it may not have told before it died."""
    for _ in range(2):
        made = notices(tmp_path, clock)
        await made.tell(happened(4), standing(), plan({"webhook": receiver.url}))
        await made.tell(happened(4), standing(), plan({"webhook": receiver.url}))
        await made.look()
        await made.sent()

    assert ids(receiver) == ["demo-r1.4"]


async def test_a_file_gets_a_line_each_and_nothing_outside_the_data_directory(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Its folder is made; a path that leads out is refused."""
    data = tmp_path / "data"
    data.mkdir()
    made = notices(data, clock)
    for revision in (4, 5):
        to = plan({"file": "told/rollouts.jsonl"}, {"file": "../outside.jsonl"})
        await made.tell(happened(revision), standing(), to)
    await made.look()
    await made.sent()

    lines = (data / "told" / "rollouts.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["demo-r1.4", "demo-r1.5"]
    assert not (tmp_path / "outside.jsonl").exists()


async def test_a_private_address_is_refused_unless_configured(
    tmp_path: Path, clock: ManualClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """By number or by name; the log says what to configure, and the URL's path is not in it."""
    made = notices(tmp_path, clock, private=False)
    for place, url in enumerate((receiver.url, receiver.url.replace("127.0.0.1", "localhost"))):
        await made.tell(happened(4 + place), standing(), plan({"webhook": url}))
    await made.look()
    await made.sent()

    assert receiver.requests == []
    assert caplog.text.count("allowed only with `notify.private` in gateway.yaml") == 2
    assert "/requests" not in caplog.text


async def test_a_host_that_is_not_listed_is_refused(
    tmp_path: Path, clock: ManualClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its name is even looked up."""
    made = notices(tmp_path, clock, hosts=["ci.example"])
    await made.tell(happened(4), standing(), plan({"webhook": receiver.url}))
    await made.look()
    await made.sent()

    assert receiver.requests == []
    assert "`127.0.0.1` is not one of `notify.hosts` in gateway.yaml" in caplog.text


async def test_a_missing_key_sends_nothing(
    tmp_path: Path, clock: ManualClock, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """An unsigned notice would be taken for a forged one."""
    made = notices(tmp_path, clock)
    to = plan({"webhook": receiver.url, "secret_file": "gone"})
    await made.tell(happened(4), standing(), to)
    await made.look()
    await made.sent()

    assert receiver.requests == []
    assert "`secret_file` cannot be read" in caplog.text


async def test_a_certificate_must_be_the_names_not_the_addresss() -> None:
    """The connection goes to an address that was looked at; TLS is still told the name."""
    asked: list[str | None] = []
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_servername_callback(lambda _socket, name, _context: asked.append(name))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(DeliveryFailed, match="certificate verify failed"):
            await post(f"https://localhost:{port}/", {}, b"", Reach(loopback=True))

    assert set(asked) == {"localhost"}


TELLING = """
import asyncio, os, signal, sys
from pathlib import Path

import notice_kit
from serving.clock import ManualClock
from serving.config.schema import RolloutConfig

async def main():
    made = notice_kit.notices(Path(sys.argv[1]), ManualClock(wall=notice_kit.START))
    if sys.argv[3] == "while sending":
        made._settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    for revision in (4, 5):
        to = notice_kit.plan({"webhook": sys.argv[2]})
        await made.tell(notice_kit.happened(revision), notice_kit.standing(), to)
    if sys.argv[3] == "before sending":
        os.kill(os.getpid(), signal.SIGKILL)
    await made.look()
    await made.sent()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("when", "came"),
    [
        ("before sending", ["demo-r1.4", "demo-r1.5"]),
        ("while sending", ["demo-r1.4", "demo-r1.4", "demo-r1.5"]),
    ],
)
async def test_a_killed_control_tells_everything_at_least_once_with_one_id(
    tmp_path: Path, clock: ManualClock, receiver: Receiver, when: str, came: list[str]
) -> None:
    """Killed between the answer and its own note of it, it tells the same once more."""
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", TELLING, str(tmp_path), receiver.url, when],
        cwd=Path(__file__).parents[1], check=False, timeout=60,
    )  # fmt: skip
    after = notices(tmp_path, clock)
    await after.look()
    await after.sent()

    assert killed.returncode == -9
    assert ids(receiver) == came
    assert [one.outcome for one in settled(tmp_path)] == ["delivered", "delivered"]


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("where", ["before the notice", "before the audit"])
async def test_an_event_whose_control_died_before_it_was_told_is_told_by_the_next(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever between the event on the disk and the audit log it died; and under one id."""
    home = await rollout_kit.Home(tmp_path).start()
    await home.look()
    to = plan({"webhook": receiver.url})
    told = notices(tmp_path, home.clock)

    async def tell(event: Event, standing: RolloutStanding, _: RolloutConfig) -> None:
        if where == "before the notice":
            raise Killed
        await told.tell(event, standing, to)

    async def record(*_: object, **__: object) -> None:
        raise Killed

    home.rollouts.tell = tell
    if where == "before the audit":
        monkeypatch.setattr(home.rollouts._announcer._audit, "record", record)
    with pytest.raises(Killed):
        await home.verbs.act("demo", "pause", who="ann", reason="lunch")
    home.rollouts.log.close()
    home.build()
    told = notices(tmp_path, home.clock)
    home.rollouts.tell = lambda event, standing, _: told.tell(event, standing, to)
    await home.start()
    await told.look()
    await told.sent()

    assert ids(receiver) == ["demo-r1.3"]
    assert receiver.body(0)["data"]["reason"] == "lunch"
