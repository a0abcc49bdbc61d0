from pathlib import Path

import notice_kit
import pytest

from serving.control.patience import next_attempt
from serving.control.rollouts import notice_log
from serving.control.rollouts.notice_log import Notice, Settled, Target, targets_of, unsettled

HOOK = Target(webhook="https://ci.example/hook/secret", secret_file="key")
FILE = Target(file="rollouts.jsonl")


def notice(number: int, *targets: Target) -> Notice:
    """The one of a revision."""
    return Notice(
        id=f"demo-r1.{number}", at=float(number), model="demo", rollout="demo-r1",
        revision=number, event="{}", targets=list(targets),
    )  # fmt: skip


def settled(number: int, target: Target) -> Settled:
    """It was taken."""
    return Settled(
        id=f"demo-r1.{number}", target=target, at=9.0, outcome="delivered", attempts=1, said=""
    )


def test_only_who_asked_for_it_hears_of_it_and_once() -> None:
    """Two entries of one webhook are one target."""
    plan = notice_kit.plan(
        {"webhook": "https://a.example/", "events": ["paused"]},
        {"webhook": "https://a.example/", "events": ["paused", "aborted"]},
        {"webhook": "https://b.example/", "events": ["aborted"]},
        {"file": "told.jsonl", "events": ["paused"]},
    )

    assert targets_of(plan.notify, ["paused"]) == [
        Target(webhook="https://a.example/"),
        Target(file="told.jsonl"),
    ]
    assert targets_of(plan.notify, []) == []


def test_what_is_not_settled_waits_in_the_order_in_which_it_was_told() -> None:
    """By target: one may have what another still lacks."""
    lines = [notice(1, HOOK, FILE), settled(1, FILE), notice(2, FILE, HOOK), settled(2, HOOK)]

    assert [(one.revision, target) for one, target in unsettled(lines)] == [(1, HOOK), (2, FILE)]


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    """A line that a crash has cut off is none, and swallows none."""
    path = tmp_path / "demo" / "demo-r1" / "notices.jsonl"
    notice_log.append(path, notice(1, HOOK))
    with path.open("ab") as file:
        file.write(b'{"line":"notice","id":"demo-r1.2"')
    notice_log.append(path, settled(1, HOOK))

    assert list(notice_log.read(path)) == [notice(1, HOOK), settled(1, HOOK)]
    assert list(notice_log.read(tmp_path / "none")) == []


@pytest.mark.parametrize(("attempts", "pause"), [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300)])
def test_attempts_become_rarer(attempts: int, pause: float) -> None:
    """At most five minutes lie between two."""
    assert next_attempt(attempts, 100.0) == 100.0 + pause


def test_a_log_line_names_the_host_and_nothing_that_may_be_a_secret() -> None:
    """Many webhooks have their key in the path."""
    assert HOOK.words == "the webhook at ci.example"
    assert FILE.words == "the file rollouts.jsonl"
