"""One attempt to deliver a request for training: webhook, Airflow, a program."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import monitoring_kit
import msgspec
import pytest
from monitoring_kit import Receiver

from serving.config.schema import RetrainConfig
from serving.config.snapshot_codec import dec_hook
from serving.control.outbound import DeliveryFailed
from serving.control.training.deliveries import Courier

EVENT = b'{"specversion":"1.0","id":"7d9f","type":"dev.sluice.retraining.requested"}'
IDENTIFIER = "7d9f"

AIRFLOW_BODY: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["logical_date"],
    "properties": {
        # What DagRun.run_id may be: [core] allowed_run_id_pattern.
        "dag_run_id": {"type": ["string", "null"], "pattern": "^[A-Za-z0-9_.~:+-]+$"},
        "data_interval_start": {"type": ["string", "null"]},
        "data_interval_end": {"type": ["string", "null"]},
        "logical_date": {"type": ["string", "null"], "format": "date-time"},
        "run_after": {"type": ["string", "null"]},
        "conf": {"type": ["object", "null"]},
        "note": {"type": ["string", "null"], "maxLength": 1000},
    },
}
"""Airflow 3's TriggerDAGRunPostBody, as its OpenAPI document has it."""


def retrain(**options: Any) -> RetrainConfig:
    """Options as YAML gives them."""
    return msgspec.convert(options, RetrainConfig, dec_hook=dec_hook)


async def deliver(folder: Path, *, loopback: bool = True, **options: Any) -> str:
    """One attempt."""
    return await Courier(loopback=loopback).deliver(retrain(**options), folder, IDENTIFIER, EVENT)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where requests go."""
    with monitoring_kit.receiver() as made:
        yield made


async def test_an_airflow_run_is_what_its_api_takes(tmp_path: Path, receiver: Receiver) -> None:
    """The run's id is the event's, the event is its conf, the token a bearer's."""
    (tmp_path / "token").write_text("abc.def\n")
    receiver.answers = [200]

    said = await deliver(tmp_path, airflow=receiver.url, secret_file="token")

    [(_, headers, _)] = receiver.requests
    body = receiver.body(0)
    jsonschema.validate(body, AIRFLOW_BODY)
    assert said == "Airflow answered 200"
    assert headers["authorization"] == "Bearer abc.def"
    assert headers["content-type"] == "application/json"
    assert body["dag_run_id"] == IDENTIFIER
    assert body["conf"] == msgspec.json.decode(EVENT)


async def test_an_airflow_run_that_is_there_is_delivered(
    tmp_path: Path, receiver: Receiver
) -> None:
    """409 answers a repeated request: its first copy had arrived."""
    receiver.answers = [409]

    assert await deliver(tmp_path, airflow=receiver.url) == "Airflow has this run already"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the token in `secret_file` is not accepted"),
        (404, "there is no such DAG"),
        (422, "it must be Airflow 3"),
        (500, "Airflow answered 500"),
    ],
)
async def test_what_airflow_refuses_says_what_to_do(
    tmp_path: Path, receiver: Receiver, status: int, words: str
) -> None:
    """The status, and its meaning where there is one."""
    receiver.answers = [status]

    with pytest.raises(DeliveryFailed, match=re.escape(words)):
        await deliver(tmp_path, airflow=receiver.url)


async def test_a_redirect_is_not_followed(tmp_path: Path, receiver: Receiver) -> None:
    """The event goes where the configuration says, or nowhere."""
    receiver.answers = [307]

    with pytest.raises(DeliveryFailed, match="the webhook answered 307"):
        await deliver(tmp_path, webhook=receiver.url)


async def test_loopback_is_refused_where_the_gateway_is_not_on_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    """By number or by name."""
    for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(DeliveryFailed, match="is loopback, which is allowed only where"):
            await deliver(tmp_path, loopback=False, webhook=url)
    assert receiver.requests == []


async def test_nobody_listening_is_a_failure(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(DeliveryFailed, match="no answer: "):
        await deliver(tmp_path, webhook="http://127.0.0.1:1/requests")


async def test_a_missing_secret_sends_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """An unsigned event would be taken for a forged one."""
    with pytest.raises(DeliveryFailed, match="`secret_file` cannot be read"):
        await deliver(tmp_path, webhook=receiver.url, secret_file="gone")
    assert receiver.requests == []


async def test_a_program_gets_the_event_and_says_that_it_took_it(tmp_path: Path) -> None:
    """Standard input and an environment variable; its last words are kept."""
    script = 'cat > got; echo "$SLUICE_EVENT_ID" > id; pwd > where; echo queued as job 7'

    said = await deliver(tmp_path, command=["sh", "-c", script])

    assert said == "the program ended with exit code 0; it said: queued as job 7"
    assert (tmp_path / "got").read_bytes() == EVENT + b"\n"
    assert (tmp_path / "id").read_text() == "7d9f\n"
    assert (tmp_path / "where").read_text().strip() == str(tmp_path.resolve())


async def test_a_program_gets_none_of_our_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what it needs to run is passed on."""
    monkeypatch.setenv("SLUICE_TOKEN", "secret")

    said = await deliver(tmp_path, command=["sh", "-c", "env | grep ^SLUICE"])

    assert "SLUICE_TOKEN" not in said
    assert "SLUICE_EVENT_ID=7d9f" in said


async def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    """Exit code and the end of what it said."""
    with pytest.raises(DeliveryFailed, match="exit code 3; it said: no space"):
        await deliver(tmp_path, command=["sh", "-c", "echo no space >&2; exit 3"])


async def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    """The whole session, or a shell's child would go on."""
    script = 'sleep 600 & echo "$!" > child; echo waiting; wait'

    with pytest.raises(DeliveryFailed, match=r"ran longer than 3 s; it said: waiting"):
        await deliver(tmp_path, command=["sh", "-c", script], timeout="3s")  # a shell's start, too

    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It cannot be started."""
    with pytest.raises(DeliveryFailed, match="the program cannot be started: No such file"):
        await deliver(tmp_path, command=["./retrain"])
