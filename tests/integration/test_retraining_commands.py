"""From labels that come in to a request for training that somebody has received."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import monitoring_kit
import parquet_log
import pytest
from monitoring_kit import Receiver, Watch

KEY = b"a key of the trainer's"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where webhooks go."""
    with monitoring_kit.receiver() as made:
        yield made


@pytest.fixture
async def watch(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Watch]:
    """A model whose webhook is the receiver."""
    made = Watch(tmp_path, webhook=receiver.url, secret_file="trainer.key", cooldown="1h")
    (made.config.root / "trainer.key").write_bytes(KEY + b"\n")
    yield made
    await made.close()


async def test_a_steady_model_asks_for_nothing(watch: Watch, receiver: Receiver) -> None:
    """As long as labels say what they said in the beginning."""
    for seed in range(4):
        watch.serve(*parquet_log.scored(1000, seed=seed))
        await watch.look()
        await watch.pass_time(1200)

    harm = watch.harm.of("demo")["v1"]
    assert harm.realised is not None
    assert harm.losses == 4000
    assert not harm.change_seen
    assert receiver.requests == []


async def harmed(watch: Watch) -> None:
    """Labels that flip after 2,000 predictions."""
    watch.serve(*parquet_log.scored(2000, seed=1))
    await watch.look()
    scores, truth = parquet_log.scored(1500, seed=2)
    watch.serve(scores, 1 - truth)
    await watch.look()


async def test_labels_that_flip_ask_once_within_the_cooldown(
    watch: Watch, receiver: Receiver
) -> None:
    """Harm that lasts is one signed request, with the numbers behind it."""
    await harmed(watch)
    assert receiver.requests == []  # debounce: not at the first sight
    await watch.pass_time(900)
    await watch.sent()
    await watch.pass_time(1800)
    await watch.sent()

    [(_, headers, body)] = receiver.requests
    event = receiver.body(0)
    expected = hmac.new(KEY, body, hashlib.sha256).hexdigest()
    assert headers["x-sluice-signature"] == f"sha256={expected}"
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert event["specversion"] == "1.0"
    assert event["type"] == "dev.sluice.retraining.requested"
    assert event["subject"] == event["data"]["model"] == "demo"
    assert event["data"]["version"] == "v1"
    assert event["data"]["labels"] >= 500
    assert event["data"]["evidence"]["growth"] > 0.2
    assert (
        event["data"]["evidence"]["change"]["after"] > event["data"]["evidence"]["change"]["before"]
    )
    verbs = [line["verb"] for line in watch.audit()]
    assert verbs == ["retraining asked", "retraining delivered"]


async def test_after_its_end_and_the_cooldown_it_asks_again(
    watch: Watch, receiver: Receiver
) -> None:
    """A training that changed nothing is followed by another, under another id."""
    await harmed(watch)
    await watch.pass_time(900)
    await watch.sent()
    await watch.retraining.ended("demo", improved=False)
    await watch.pass_time(3600)
    await watch.sent()

    assert len({receiver.body(place)["id"] for place in range(len(receiver.requests))}) == 2


async def test_a_request_that_nobody_took_is_sent_again_with_the_same_bytes(
    watch: Watch, receiver: Receiver
) -> None:
    """503, 500, then accepted; one failure is noted, as it says something new each time."""
    receiver.answers = [503, 500]
    await watch.retraining.ask("demo", who="ada", reason="because")
    for _ in range(4):
        await watch.sent()
        watch.clock.advance(10)
        await watch.retraining.look("demo")

    assert len({body for _, _, body in receiver.requests}) == 1
    assert len(receiver.requests) == 3
    assert [line["verb"] for line in watch.audit()] == [
        "retraining asked", "retraining failed", "retraining failed", "retraining delivered",
    ]  # fmt: skip


async def test_a_request_is_given_up_after_a_day(watch: Watch, receiver: Receiver) -> None:
    """No training runs then, so another one may be asked for."""
    receiver.answers = [503] * 1000
    await watch.retraining.ask("demo", who="ada", reason="")
    for _ in range(30):
        await watch.sent()
        watch.clock.advance(3600)
        await watch.retraining.look("demo")
    await watch.sent()

    status = await watch.retraining.status("demo")
    assert status.request is not None
    assert status.request.stage == "given_up"
    assert not status.in_flight
    assert watch.audit()[-1]["verb"] == "retraining given up"
    assert watch.retraining.counts["demo", "given_up"] == 1


async def test_a_past_budget_asks_for_a_person_once(tmp_path: Path, receiver: Receiver) -> None:
    """Harm that two trainings did not mend is for somebody to look at."""
    watch = Watch(tmp_path, webhook=receiver.url, cooldown="1m", debounce="1m", budget=1)
    await harmed(watch)
    await watch.pass_time(600)
    await watch.sent()
    await watch.retraining.ended("demo", improved=True)
    await watch.pass_time(1200)
    await watch.sent()
    refused = (await watch.retraining.status("demo")).person
    resumed = await watch.retraining.resume("demo")
    await watch.close()

    assert len(receiver.requests) == 1
    assert "budget is 1: a person has to look" in refused
    assert [line["verb"] for line in watch.audit()].count("retraining refused") == 1
    assert resumed.person == ""


async def test_a_training_that_never_ends_counts_as_in_vain(
    tmp_path: Path, receiver: Receiver
) -> None:
    """Or a lost answer would be the last request ever."""
    watch = Watch(tmp_path, webhook=receiver.url, ends_within="2h")
    await watch.retraining.ask("demo", who="ada", reason="")
    await watch.sent()
    watch.clock.advance(7300)
    await watch.retraining.look("demo")
    status = await watch.retraining.status("demo")
    await watch.close()

    assert not status.in_flight
    assert status.failures == 1
    assert watch.audit()[-1]["result"].startswith("not improved: no end was reported within 7200 s")


async def test_levels_are_kept_and_counted_over_a_restart(watch: Watch) -> None:
    """A restart neither repeats a change of level nor forgets it."""
    await harmed(watch)
    before = watch.drift.events.newest("demo", 10)
    await watch.harm._joiner.close()
    watch.start()
    await watch.look()

    assert [one.level for one in before] == ["trigger"]
    assert watch.drift.events.newest("demo", 10) == before
    assert watch.harm.of("demo")["v1"].losses == 3500


async def test_lost_records_are_an_alert(watch: Watch) -> None:
    """What is not in the log cannot be judged."""
    watch.drift.turn()
    watch.lost = 7
    watch.clock.advance(60)
    watch.drift.turn()

    [event] = watch.drift.events.newest("demo", 10)
    assert event.level == "alert"
    assert event.reasons == ["7 records were not logged"]
