from pathlib import Path
from typing import Any

import pytest
from rollout_kit import Home, breach, compiled

from serving.control.rollouts.verbs import Verb
from serving.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotFound,
    StoreUnavailable,
)
from serving.rollout.standing import RolloutStanding


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    """A rollout at its first step, with copies."""
    made = Home(tmp_path)
    made.see()
    await made.start()
    await made.look()
    return made


async def test_a_verb_answers_with_what_it_made_of_it(home: Home) -> None:
    """The phase, the reason, and the revision to expect next."""
    standing = await home.verbs.act("demo", "pause", who="ann", reason="lunch")

    assert (standing.phase, standing.reason, standing.revision) == ("paused", "lunch", 3)
    assert home.kinds[-1] == "paused"
    assert home.audited()[-1] == "rollout paused"


async def test_a_paused_rollout_goes_nowhere_and_resumes(home: Home) -> None:
    """Time and evidence pass it by; a breach does not."""
    await home.verbs.act("demo", "pause", who="ann")
    await home.bake()
    assert home.state.step == 0
    await home.verbs.act("demo", "resume", who="ann")
    await home.look()
    assert home.state.step == 0, "ten seconds of pause are no baking"
    await home.bake()

    assert home.state.step == 1


async def test_a_paused_rollout_still_aborts_on_a_proven_breach(home: Home) -> None:
    """Nobody has to be there for that."""
    await home.verbs.act("demo", "pause", who="ann")
    home.see(breach())
    await home.look()

    assert home.state.phase == "aborting"


async def test_promote_goes_one_step_and_full_goes_all_the_way(home: Home) -> None:
    """In a person's name, traffic at once."""
    standing = await home.verbs.act("demo", "promote", who="ann")
    assert (standing.step, standing.weight) == (1, 5.0)
    assert home.put is not None
    assert home.put.weight == 5.0
    standing = await home.verbs.act("demo", "promote", who="ann", full=True)

    assert (standing.phase, home.put.weight) == ("promoting", 100.0)


async def test_an_approval_is_asked_for_again_after_a_pause(home: Home) -> None:
    """Resuming is not approving."""
    await home.verbs.act("demo", "promote", who="ann")
    await home.verbs.act("demo", "promote", who="ann")
    assert home.state.phase == "awaiting_approval"
    await home.verbs.act("demo", "pause", who="ann")
    standing = await home.verbs.act("demo", "resume", who="ann")

    assert standing.phase == "awaiting_approval"


async def test_a_verb_at_another_revision_is_refused_with_the_newer_standing(home: Home) -> None:
    """Whoever was slower sees what has happened meanwhile; nothing is done."""
    revision = home.state.revision
    await home.verbs.act("demo", "pause", who="ann", expected_revision=revision)
    with pytest.raises(Conflict) as caught:
        await home.verbs.act("demo", "abort", who="bob", expected_revision=revision)

    assert isinstance(caught.value.newer, RolloutStanding)
    assert (caught.value.newer.phase, caught.value.revision) == ("paused", revision + 1)
    assert home.state.phase == "paused"


@pytest.mark.parametrize("verb", ["resume", "approve", "retry"])
async def test_what_cannot_be_done_in_a_phase_is_refused_and_says_what_can(
    home: Home, verb: Verb
) -> None:
    """A progressing rollout is neither paused nor asks for approval nor is it over."""
    with pytest.raises(Conflict, match="progressing"):
        await home.verbs.act("demo", verb, who="ann", reason="why not")

    assert home.kinds == ["started", "stepped"]


@pytest.mark.parametrize("verb", ["promote", "pause", "resume", "approve", "abort"])
async def test_nothing_can_be_done_to_what_is_over(home: Home, verb: Verb) -> None:
    """Aborted is aborted."""
    await home.verbs.act("demo", "abort", who="ann")
    await home.look()
    before = home.kinds
    with pytest.raises(Conflict, match="is aborted"):
        await home.verbs.act("demo", verb, who="ann")

    assert home.kinds == before


async def test_retry_needs_a_reason_and_something_to_retry(home: Home) -> None:
    """The history must say why; a file without `rollout` asks for nothing."""
    await home.verbs.act("demo", "abort", who="ann")
    await home.look()
    with pytest.raises(InvalidRequest, match="reason"):
        await home.verbs.act("demo", "retry", who="ann", reason=" ")
    await home.apply(compiled(None))
    with pytest.raises(InvalidRequest, match="asks for no rollout"):
        await home.verbs.act("demo", "retry", who="ann", reason="again")


async def test_nobody_promotes_what_cannot_answer(home: Home) -> None:
    """A worker has not loaded it."""
    await home.heard(not_ready={"demo/v2": "loading"})
    for full in (False, True):
        with pytest.raises(ModelNotReady, match="loading"):
            await home.verbs.act("demo", "promote", who="ann", full=full)


@pytest.mark.parametrize(("verb", "phase"), [("pause", "paused"), ("abort", "aborting")])
async def test_what_takes_traffic_back_does_not_wait_for_the_store(
    home: Home, verb: Verb, phase: str
) -> None:
    """It is written down, and reaches workers when the store is back."""
    home.store.available = False

    assert (await home.verbs.act("demo", verb, who="ann")).phase == phase


async def test_what_moves_traffic_on_waits_for_the_store(home: Home) -> None:
    """Nobody would hear of it, and nobody could be heard."""
    home.store.available = False
    with pytest.raises(StoreUnavailable):
        await home.verbs.act("demo", "promote", who="ann")

    assert home.kinds == ["started", "stepped"]


@pytest.mark.parametrize(("model", "error"), [("demo", NotFound), ("nobody", ModelNotFound)])
async def test_without_a_rollout_there_is_nothing_to_do(
    tmp_path: Path, model: str, error: Any
) -> None:
    """The model never had one, or is none."""
    home = Home(tmp_path)
    home.file = compiled(None)
    await home.start()

    with pytest.raises(error):
        await home.verbs.act(model, "pause", who="ann")
