"""`sluice rollout` against an admin port of a test's own; real ones are in `tests/fault`."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import rollout_admin_kit
from rollout_admin_kit import Admin, rule, standing

from serving.rollout.state import Event

SLUICE = (sys.executable, "-c", "from serving.cli import main; main()", "rollout")


@pytest.fixture
def admin() -> Iterator[Admin]:
    """The port."""
    with rollout_admin_kit.admin() as made:
        yield made


def sluice(admin: Admin, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with nobody at the keyboard."""
    return subprocess.run(
        [*SLUICE, *arguments, "--admin", admin.url],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip


def lines(text: str) -> list[str]:
    """Without the space that aligns columns."""
    return [re.sub(r" +", " ", line).strip() for line in text.splitlines() if line.strip()]


def test_status_shows_steps_rules_and_what_is_waited_for(admin: Admin) -> None:
    """Counts, ratio with interval, verdict, proof, estimate, exclusions, shares, losses."""
    admin.now = standing(
        waiting_for=["500 more keys", "the proof of errors"],
        excluded={"overridden": [3, 40]},
        sample_ratio="v2 got fewer keys than were drawn",
        lost={"killed workers": 2},
        canary_requests=2000, canary_keys=1203, production_requests=39000, production_keys=24010,
    )  # fmt: skip
    done = sluice(admin, "status", "demo")
    told = lines(done.stdout)

    assert done.returncode == 0, done.stderr
    assert told[0].startswith("demo: v1 → v2, progressing, step 2 of 4: weight 5 % (demo-r3")
    assert "✓ shadow 25 %" in told
    assert any(line.startswith("▶ weight 5 % for 12 min") for line in told)
    assert (
        "errors undecided 12 / 1,203 240 / 24,010 keys 1.02 [0.61, 1.72] ██░░░░ 45 % 8 min" in told
    )
    assert "waits for 500 more keys" in told
    assert "the proof of errors" in told
    assert "shares v2 got fewer keys than were drawn" in told
    assert "left out overridden 3 / 40 (requests of v2 / v1)" in told
    assert "lost killed workers 2" in told


def test_status_of_everything_is_a_line_a_model(admin: Admin) -> None:
    """With the gravest verdict."""
    admin.now = standing(rules=[rule(verdict="ok"), rule(name="slow", verdict="regressed")])

    told = lines(sluice(admin, "status").stdout)

    assert told[1].startswith("demo v1 v2 progressing step 2 of 4: weight 5 % 5 % regressed 2 h")


def test_a_model_without_a_rollout_says_how_one_begins(admin: Admin) -> None:
    """And whose rollouts there are."""
    other = sluice(admin, "status", "other")
    admin.now = None
    none = sluice(admin, "status")

    assert other.returncode == 1
    assert "model 'other' has no rollout" in other.stderr
    assert "a section `rollout` in the file of other" in other.stderr
    assert "there are rollouts of demo" in other.stderr
    assert none.returncode == 0
    assert "one begins when `sluice apply`" in none.stderr


def test_json_is_what_the_api_answered(admin: Admin) -> None:
    """Nothing else is on standard output."""
    assert json.loads(sluice(admin, "status", "demo", "--json").stdout)["revision"] == 7
    history = json.loads(sluice(admin, "history", "demo", "--json").stdout)
    assert history["rollouts"][0]["events"][1]["evidence"] == {"errors": "3 of 900"}


def test_history_says_who_when_why_on_what_evidence(admin: Admin) -> None:
    """One table a rollout."""
    told = lines(sluice(admin, "history", "demo").stdout)

    assert told[0] == "demo-r3"
    assert re.fullmatch(
        r"7 [\d-]+ [\d:]+Z went to step 2, weight 5 % controller the step has what it asks for",
        told[3],
    )
    assert told[4] == "errors: 3 of 900"


@pytest.mark.parametrize("verb", ["promote", "pause", "resume", "abort", "retry"])
def test_a_verb_is_told_with_reason_and_revision(admin: Admin, verb: str) -> None:
    """It says what it does to traffic, and where the rollout is then."""
    done = sluice(admin, verb, "demo", "--reason", "tickets", "--yes")

    assert done.returncode == 0, done.stderr
    order = {"reason": "tickets", "expected_revision": 7, "full": False}
    assert admin.asked == [(verb, order)]
    assert "v2" in done.stderr
    assert done.stdout.startswith("demo: v1 → v2")


def test_all_the_way_is_told_as_such(admin: Admin) -> None:
    """`full` is part of the order."""
    done = sluice(admin, "promote", "demo", "--full", "--reason", "outage", "--yes", "--json")

    assert json.loads(done.stdout)["revision"] == 8
    assert admin.asked[0][1]["full"] is True


@pytest.mark.parametrize(
    "arguments", [["abort", "demo"], ["retry", "demo"], ["promote", "demo", "--full"]]
)
def test_what_goes_against_evidence_needs_a_reason(admin: Admin, arguments: list[str]) -> None:
    """Wrong usage; nothing was asked for."""
    done = sluice(admin, *arguments, "--yes")

    assert done.returncode == 2
    assert "needs --reason" in done.stderr
    assert admin.asked == []


def test_nobody_can_be_asked_without_a_terminal(admin: Admin) -> None:
    """Wrong usage, and the way out is named."""
    done = sluice(admin, "pause", "demo")

    assert done.returncode == 2
    assert "give --yes" in done.stderr
    assert admin.asked == []


def test_a_rollout_that_has_moved_says_what_happened_meanwhile(admin: Admin) -> None:
    """Who, when, why; and nothing is done."""
    admin.meanwhile = Event(
        revision=8, at=time.time() - 12, kind="paused", who="grace", reason="odd scores"
    )
    done = sluice(admin, "promote", "demo", "--yes")

    assert done.returncode == 1
    assert "not at revision 7 any more; demo-r3 was paused (revision 8, by grace, " in done.stderr
    assert "odd scores" in done.stderr


def test_an_older_revision_is_refused_with_what_came_after_it(admin: Admin) -> None:
    """`--expected-revision` is what the person has looked at."""
    done = sluice(admin, "pause", "demo", "--yes", "--expected-revision", "6")

    assert done.returncode == 1
    assert "demo-r3 went to step 2 (revision 7, by controller" in done.stderr


def test_a_rollout_that_is_over_is_not_said_to_move(admin: Admin) -> None:
    """The gateway's own words, and no promise of what would happen to traffic."""
    admin.now = standing(phase="done", step=3)
    done = sluice(admin, "approve", "demo", "--yes")

    assert done.returncode == 1
    assert "goes on to" not in done.stderr


def test_what_cannot_follow_is_refused_in_the_gateways_words(admin: Admin) -> None:
    """Nothing has happened meanwhile: that is not the reason."""
    done = sluice(admin, "approve", "demo", "--yes")

    assert done.returncode == 1
    assert "a rollout that is progressing cannot be approved" in done.stderr


def test_watch_ends_with_the_rollout_and_tells_changes_as_lines(admin: Admin) -> None:
    """Exit 0 when the new version is production."""
    admin.coming = [
        standing(), standing(), standing(step=3, weight=100.0),
        standing(step=3, phase="done", rules=[rule(verdict="ok")]),
    ]  # fmt: skip
    done = sluice(admin, "watch", "demo", "--every", "0.1")
    told = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stderr
    assert told[1:] == [
        "progressing, step 2 of 4: weight 5 %",
        "errors is undecided: 1.02 [0.61, 1.72]",
        "progressing, step 4 of 4: weight 100 %",
        "done, step 4 of 4: weight 100 %",
        "errors is ok: 1.02 [0.61, 1.72]",
    ]


def test_watch_of_an_aborted_rollout_is_exit_code_1(admin: Admin) -> None:
    """With the reason."""
    admin.coming = [standing(), standing(phase="aborted", reason="errors: 3 times as many")]
    done = sluice(admin, "watch", "demo", "--every", "0.1")

    assert done.returncode == 1
    assert "demo-r3 was aborted: errors: 3 times as many" in done.stderr


def test_watch_until_the_next_step_goes_no_further(admin: Admin) -> None:
    """For a pipeline that waits."""
    admin.coming = [standing(), standing(), standing(step=2, phase="awaiting_approval")]
    done = sluice(admin, "watch", "demo", "--until", "step", "--every", "0.1", "--json")

    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["step"] for line in done.stdout.splitlines()][-1] == 2


def test_watch_of_a_rollout_that_another_follows_says_so(admin: Admin) -> None:
    """It is not the one that was to be watched."""
    admin.coming = [standing(), standing(id="demo-r4", phase="pending", step=0)]
    done = sluice(admin, "watch", "demo", "--every", "0.1")

    assert done.returncode == 1
    assert "demo-r3 is over: demo-r4 has taken its place" in done.stderr


async def test_on_a_terminal_the_picture_is_redrawn_in_place(admin: Admin) -> None:
    """The cursor goes up instead of the text going on."""
    admin.coming = [standing(), standing(), standing(phase="done", step=3)]
    ours, theirs = pty.openpty()
    child = await asyncio.create_subprocess_exec(
        *SLUICE, "watch", "demo", "--every", "0.1", "--admin", admin.url,
        stdin=theirs, stdout=theirs, stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "50"},
    )  # fmt: skip
    os.close(theirs)
    shown = await asyncio.to_thread(_all_of, ours)

    assert await child.wait() == 0
    assert shown.count("demo: v1 → v2") >= 3
    assert "\x1b[1A" in shown
    assert "done, step 4 of 4" in shown


def _all_of(descriptor: int) -> str:
    """What a terminal is told until nobody is there to tell it."""
    found = b""
    with open(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                found += (chunk := terminal.read(65536))
            except OSError:  # EIO: the other end is closed
                return found.decode()
            if not chunk:
                return found.decode()
