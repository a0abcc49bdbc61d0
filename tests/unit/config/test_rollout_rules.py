"""What must hold of the steps and the versions of a rollout."""

import hashlib
from pathlib import Path

import pytest
from rollout_rules_kit import STEPS, RolloutDirectory


@pytest.fixture
def directory(tmp_path: Path) -> RolloutDirectory:
    """A sound plan, to be changed."""
    return RolloutDirectory(tmp_path)


def test_a_sound_plan_has_no_findings(directory: RolloutDirectory) -> None:
    """Neither errors nor warnings."""
    assert directory.findings() == []


def test_a_problem_says_file_line_column_and_path(directory: RolloutDirectory) -> None:
    """As compilers do, with the nearest name as a hint."""
    assert directory.findings(canary="v3")[0] == (
        "models/demo.yaml:11:11: error: rollout.canary: `v3` is none of `versions` "
        "(known here: `v1`, `v2`)"
    )


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            "[{weight: 25, bake: {min: 1m}}, {weight: 5, bake: {min: 1m}}, {weight: 100}]",
            "error: rollout.steps[1].weight: 5 % after 25 %: weights only grow",
        ),
        (
            "[{weight: 5, bake: {min: 1m}}, {weight: 5, bake: {min: 1m}}, {weight: 100}]",
            "error: rollout.steps[1].weight: 5 % after 5 %",
        ),
        ("[{weight: 0, bake: {min: 1m}}, {weight: 100}]", "at 0 % nobody meets the new version"),
        ("[{weight: 5, bake: {min: 1m}}]", "error: rollout.steps[0]: the last step must be"),
        ("[{weight: 100}, {approve: {}}]", "error: rollout.steps[1]: the last step must be"),
        ("[{bake: {min: 1m}}, {weight: 100}]", "error: rollout.steps[0]: a step is one of"),
        (
            "[{shadow: 5, weight: 5, bake: {min: 1m}}, {weight: 100}]",
            "weight: a step is one of `shadow`, `weight` and `approve`; this is shadow and weight",
        ),
        (
            "[{weight: 5, bake: {min: 1m}}, {shadow: 5, bake: {min: 1m}}, {weight: 100}]",
            "warning: rollout.steps[1].shadow: at 5 % the new version answers already",
        ),
        ("[{shadow: 0, bake: {min: 1m}}, {weight: 100}]", "at 0 % nothing is copied"),
        (
            "[{weight: 5, bake: {min: 2m, max: 1m}}, {weight: 100}]",
            "error: rollout.steps[0].bake.max: max is 1m, which is less than min, 2m",
        ),
        ("[{weight: 5, bake: {max: 0s}}, {weight: 100}]", "bake.max: must be more than nothing"),
        (
            "[{approve: {timeout: 0s}}, {weight: 100}]",
            "error: rollout.steps[0].approve.timeout: nobody can approve in no time",
        ),
        (
            "[{approve: {}, bake: {min: 1m}}, {weight: 100}]",
            "warning: rollout.steps[0].bake: an approval waits for a person",
        ),
        (
            "[{shadow: 5, bake: {min_keys: 5}}, {weight: 100}]",
            "error: rollout.steps[0].bake.min_keys: copies are not assigned by key",
        ),
        (
            "[{shadow: 5}, {weight: 5}, {weight: 100}]",
            "warning: rollout.steps[0]: shadow 5 % is over at once",
        ),
        (
            "[{weight: 5, bake: {min: 1m}}, {weight: 100, bake: {min_samples: 5}}]",
            "warning: rollout.steps[1].bake: at 100 % nothing is counted any more",
        ),
    ],
)
def test_a_mistake_in_the_steps_is_named(
    directory: RolloutDirectory, steps: str, words: str
) -> None:
    """With the step it is in."""
    found = directory.findings(steps=steps)

    assert any(words in line for line in found), found


def test_a_misspelt_option_of_a_step_is_named(directory: RolloutDirectory) -> None:
    """Unknown keys are errors, with the near name."""
    found = directory.findings(steps="[{weigth: 5}, {weight: 100}]")

    assert any("did you mean `weight`?" in line for line in found), found


def test_keys_are_counted_only_where_there_are_keys(directory: RolloutDirectory) -> None:
    """`min_keys` needs an assignment key."""
    steps = "[{weight: 5, bake: {min_keys: 500}}, {weight: 100}]"
    directory.write(steps=steps)
    file = directory.root / "models" / "demo.yaml"
    keyed = directory.judged()
    file.write_text(file.read_text().replace("{key: person_id}", "{}"))

    assert keyed == []
    assert any("min_keys: requests have no key" in line for line in directory.judged())


def test_labels_need_a_log_and_a_meaning(directory: RolloutDirectory) -> None:
    """Without them none could be joined or compared."""
    steps = "[{weight: 5, bake: {require_labels: 10}}, {weight: 100}]"
    known = "monitoring: {prediction: {decision: label}}"

    no_log = directory.findings(steps=steps, model=known, gateway="")
    no_meaning = directory.findings(steps=steps)

    assert any("require_labels: without a prediction log" in line for line in no_log)
    assert any("require_labels: without `monitoring.prediction`" in line for line in no_meaning)
    assert directory.findings(steps=steps, model=known) == []


# --- versions and traffic -------------------------------------------------------------------


def test_production_cannot_be_its_own_canary(directory: RolloutDirectory) -> None:
    """Not as a trial of the plan either: the two would be told apart by nothing."""
    found = directory.findings(canary="v1", rollout="  aa_test: true")

    assert any("rollout.canary: `v1` is production already" in line for line in found)


def test_the_same_file_is_compared_only_if_that_is_meant(directory: RolloutDirectory) -> None:
    """Otherwise somebody has forgotten to change the digest."""
    (directory.root / "v2.onnx").write_bytes(b"v1")
    digests = {v: hashlib.sha256(v.encode()).hexdigest() for v in ("v1", "v2")}
    file = directory.root / "models" / "demo.yaml"
    found = []
    for aa_test in ("", "  aa_test: true"):
        directory.write(rollout=aa_test)
        file.write_text(file.read_text().replace(digests["v2"], digests["v1"]))
        found.append([line for line in directory.judged() if "error" in line])

    [[line], trial] = found
    assert "rollout.canary: `v2` is the same model file as production's" in line
    assert trial == []


def test_a_trial_needs_the_same_file(directory: RolloutDirectory) -> None:
    """An A/A test of two files would be a real rollout."""
    found = directory.findings(rollout="  aa_test: true")

    assert any("rollout.aa_test: `v2` is another model file" in line for line in found)


def test_there_is_one_canary_at_a_time(directory: RolloutDirectory) -> None:
    """The one of `traffic` and the rollout's would both claim keys."""
    found = directory.findings(traffic="  canary: {version: v2, weight: 5}")

    assert any("error: traffic.canary: `rollout` decides" in line for line in found)


def test_a_shadow_of_the_canary_is_told_of(directory: RolloutDirectory) -> None:
    """The rollout's own steps replace it while it lasts; the same share contradicts nothing."""
    steps = f"[{{shadow: 25, bake: {{min: 1m}}}}, {STEPS[1:]}"
    found = directory.findings(steps=steps, traffic="  shadow: [{version: v2}]")

    assert [line for line in found if "error" in line] == []
    assert any("traffic.shadow[0]: `rollout` copies 25 % to `v2`" in line for line in found)
    alike = "  shadow: [{version: v2, percent: 25}]"
    assert directory.findings(steps=steps, traffic=alike) == []


def test_a_canary_elsewhere_is_blocked_by_name_only(directory: RolloutDirectory) -> None:
    """It has no digest; whoever relies on it is told."""
    directory.write()
    file = directory.root / "models" / "demo.yaml"
    lines = file.read_text().splitlines()
    lines[3] = "  v2: {url: 'http://127.0.0.1:9000/v2/models/demo'}"
    file.write_text("\n".join(lines))

    found = directory.judged()
    assert any("block_same_digest: `v2` is at another server" in line for line in found), found
