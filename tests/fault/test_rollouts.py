"""Rollouts with everything real: two workers, control, a store, clients with keys, and faults."""

import contextlib
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gateway_kit
import pytest
import rollout_load_kit as kit
from ray_kit import ON_RAY

pytestmark = pytest.mark.timeout(240)

Say = Callable[[str, object], None]
RULES = [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}]
GUARDRAILS = {"rules": RULES}


def quick(weight: float, samples: int = 50) -> dict[str, object]:
    """A step that ends as soon as the canary has answered so many."""
    return {"weight": weight, "bake": {"min": "1s", "max": "1h", "min_samples": samples}}


@pytest.mark.parametrize("engine", ["local", ON_RAY])
def test_a_good_version_becomes_production_and_no_key_goes_back(
    tmp_path: Path, engine: str, record_property: Say
) -> None:
    """Shadow, three weights, done; no request is lost, no user returns to the old version."""
    folder = tmp_path / "conf"
    shadow = {"shadow": 50, "bake": {"min": "1s", "min_samples": 20, "max": "1h"}}
    kit.configure(
        folder, [shadow, quick(5, 10), quick(25), quick(100)], engine=engine, guardrails=GUARDRAILS
    )
    with gateway_kit.running(folder) as gateway, kit.users(gateway, 400, rate=150) as load:
        kit.until_phase(gateway, "done")
        kit.eventually(
            lambda: load.answers and {one.version for one in load.answers[-300:]} == {"v2"},
            "everybody is answered by the new version",
        )
        events = kit.history(gateway)
    record_property("seen", load.summary())

    assert load.failures == []
    assert [one["step"] for one in events if one["kind"] == "stepped"] == [0, 1, 2, 3]
    assert [one["revision"] for one in events] == list(range(1, len(events) + 1))
    seen: dict[int, str] = {}
    back = [
        one.key
        for one in load.answers
        if seen.get(one.key) == "v2" != one.version
        or seen.update({one.key: one.version}) is not None
    ]
    assert back == []
    roles = {one.role for one in load.by("v2")}
    assert roles == {"canary", "production"}


@pytest.mark.parametrize("engine", ["local", ON_RAY])
def test_a_version_that_always_fails_is_out_within_seconds(
    tmp_path: Path, engine: str, record_property: Say
) -> None:
    """From its first failure to the last request that it fails anywhere."""
    folder = tmp_path / "conf"
    kit.configure(
        folder, [quick(10, 100_000), {"weight": 100}], engine=engine, guardrails=GUARDRAILS
    )
    with gateway_kit.running(folder) as gateway, kit.users(gateway, 1000, rate=100) as load:
        kit.eventually(lambda: load.by("v2"), "the canary answers")
        load.value = lambda _: kit.BAD
        aborted = kit.until_phase(gateway, "aborted")
        end = len(load.answers)
        kit.eventually(lambda: len(load.answers) > end + 200, "it goes on")
    failed = [one for one in load.answers if one.status != 200]
    seconds = failed[-1].ended - failed[0].ended
    record_property("seen", f"{len(failed)} failed in {seconds:.2f} s: {aborted['reason']}")

    assert "errors" in aborted["reason"] or "hard stop" in aborted["reason"]
    assert all(one.status == 200 and one.version == "v1" for one in load.answers[-100:])


def test_an_abort_at_the_last_step_finds_production_s_processes_warm(
    tmp_path: Path, record_property: Say
) -> None:
    """Versions with processes of their own: nobody has asked production's for a while."""
    folder = tmp_path / "conf"
    all_of_it = {"weight": 100, "bake": {"min": "1h", "max": "2h"}}
    kit.configure(
        folder,
        [quick(50), all_of_it],
        guardrails=GUARDRAILS,
        serve={"placement": "dedicated", "hosts": {"min": 0, "max": 1, "downscale_delay": "1s"}},
    )
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(gateway_kit.running(folder))
        kit.until_phase(gateway, "progressing")  # which it is when the new version answers
        kit.eventually(lambda: kit.ask(gateway, 0) == 200, "production is there")
        load = stack.enter_context(kit.users(gateway, 200, rate=100))
        kit.eventually(lambda: kit.standing(gateway).get("weight") == 100, "everybody has it")
        end = len(load.answers) + 400  # the load's length: longer than `downscale_delay`
        kit.eventually(lambda: len(load.answers) > end, "it goes on")
        assert {one.version for one in load.answers[-200:]} == {"v2"}
        code, said = kit.say(gateway, "abort")
        assert code == 200, said
        kit.until_phase(gateway, "aborted")
        end = len(load.answers) + 100
        kit.eventually(lambda: len(load.answers) > end, "it goes on")
    record_property("seen", load.summary())

    assert {one.version for one in load.answers[-50:]} == {"v1"}
    assert load.failures == []


def test_with_a_fallback_nobody_sees_the_canary_fail(tmp_path: Path, record_property: Say) -> None:
    """Its failures count against it all the same."""
    folder = tmp_path / "conf"
    kit.configure(
        folder,
        [quick(10, 100_000), {"weight": 100}],
        guardrails=GUARDRAILS,
        traffic={"fallback": {"on_canary_error": "production", "budget": 0.5}},
    )
    with gateway_kit.running(folder) as gateway, kit.users(gateway, 1000, rate=100) as load:
        kit.eventually(lambda: load.by("v2"), "the canary answers")
        load.value = lambda _: kit.BAD
        kit.until_phase(gateway, "aborted")
    record_property("seen", load.summary())

    assert load.failures == []


@pytest.mark.parametrize("victim", ["control", "store", "worker-0"])
def test_a_rollout_goes_on_after_kill_9(tmp_path: Path, victim: str, record_property: Say) -> None:
    """Of control, the store or a worker, in every step: no step is skipped or done twice."""
    folder = tmp_path / "conf"
    kit.configure(
        folder, [quick(5, 20), quick(25, 200), quick(50, 300), quick(100, 200)],
        guardrails=GUARDRAILS,
    )  # fmt: skip
    killed = 0
    with gateway_kit.running(folder) as gateway, kit.users(gateway, 400, rate=150) as load:
        for step in range(3):
            kit.eventually(
                lambda step=step: (now := kit.standing(gateway)) and now["step"] >= step,
                f"step {step}",
            )
            for pid in gateway.pids(victim):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        kit.until_phase(gateway, "done")
        events = kit.history(gateway)
    record_property("seen", f"{killed} killed; {load.summary()}")

    assert killed >= 3
    steps = [one["step"] for one in events if one["kind"] == "stepped"]
    assert steps == [0, 1, 2, 3]
    assert all(later["revision"] == one["revision"] + 1 for one, later in pairwise(events))
    assert len(load.failures) <= (0 if victim != "worker-0" else 3 * load.most)


@pytest.mark.parametrize("victim", ["", "control", "store", "worker-0"])
def test_what_is_counted_is_what_clients_were_told(
    tmp_path: Path, victim: str, record_property: Say
) -> None:
    """Requests, keys and failures of the canary, exactly, though somebody is killed in between.

    Of a killed worker at most a second of requests is missing, and who had one in flight has a
    failure of the version that it was drawn for.
    """
    folder = tmp_path / "conf"
    kit.configure(
        folder,
        [quick(25, 1_000_000), {"weight": 100}],
        guardrails={
            **GUARDRAILS,
            "dry_run": ["errors"],
            "hard_stops": {"consecutive_errors": 0, "min_requests": 1_000_000},
        },
    )
    with gateway_kit.running(folder) as gateway:
        kit.eventually(lambda: kit.standing(gateway).get("weight") == 25, "it is weighted")
        value = lambda user: kit.FINE if user % 10 else kit.BAD  # noqa: E731
        with kit.users(gateway, 300, value=value, rate=150) as load:
            kit.eventually(lambda: len(load.answers) > 300, "everybody has asked")
            for pid in gateway.pids(victim) if victim else ():
                os.kill(pid, signal.SIGKILL)
            enough = len(load.answers) + 900
            kit.eventually(lambda: len(load.answers) > enough, "everybody has asked again")
        asked = [one for one in load.answers if one.version == "v2" or one.status >= 500]
        reset = [one for one in load.outcomes if one.status == 0]
        failing = {one.key for one in asked if one.status != 200}
        fewest = len(asked) - (150 if victim == "worker-0" else 0)

        def counted() -> dict[str, object] | None:
            now = kit.standing(gateway)
            return now if now and now["canary_requests"] >= fewest else None

        now = kit.eventually(counted, "all is counted")
    [errors] = now["rules"]
    record_property(
        "seen",
        f"{now['canary_requests']} of {len(asked)} requests, {now['canary_keys']} keys, "
        f"{errors['canary_events']} of {len(failing)} failing, {len(reset)} reset",
    )

    assert now["canary_requests"] <= len(asked) + len(reset)
    assert 0 <= now["canary_keys"] - len({one.key for one in asked}) <= len(reset)
    assert 0 <= errors["canary_events"] - len(failing) <= len(reset)
    assert errors["production_events"] <= len(reset)
