"""The image cannot be built in these tests, so its recipe is read."""

import json
import re
from fnmatch import fnmatch

import pytest
from deploy_kit import ROOT, Instruction, instructions


@pytest.fixture
def stages() -> list[list[Instruction]]:
    """The instructions of each stage, the final image last."""
    found: list[list[Instruction]] = []
    for instruction in instructions((ROOT / "Dockerfile").read_text()):
        if instruction.word == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def only(stage: list[Instruction], word: str) -> str:
    """The argument of the one instruction of this kind."""
    [rest] = [instruction.rest for instruction in stage if instruction.word == word]
    return rest


def copied(stage: list[Instruction]) -> list[str]:
    """Sources that a stage copies from the repository."""
    copies = [i.rest.split() for i in stage if i.word == "COPY" and "--from=" not in i.rest]
    return [source for words in copies for source in words[:-1]]


def test_every_base_image_is_a_slim_python_of_a_named_version(
    stages: list[list[Instruction]],
) -> None:
    """No `latest`, no missing tag; build and final image are the same, so the venv fits."""
    bases = {stage[0].rest.split()[0] for stage in stages}

    assert len(stages) == 2
    [base] = bases
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)


def test_third_party_packages_are_installed_by_hash_alone(
    stages: list[list[Instruction]],
) -> None:
    """Every pip install either requires hashes or takes no dependencies from an index."""
    installs = [
        i.rest for stage in stages for i in stage if i.word == "RUN" and "pip install" in i.rest
    ]

    assert any("--require-hashes" in line and "constraints.txt" in line for line in installs)
    assert all(
        "--require-hashes" in line or {"--no-deps", "--no-build-isolation"} <= set(line.split())
        for line in installs
    )
    assert "pip install" not in " ".join(i.rest for i in stages[-1])


def test_the_final_image_runs_as_a_numbered_user_other_than_root(
    stages: list[list[Instruction]],
) -> None:
    """A number, because orchestrators cannot tell whether a name is root; nothing undoes it."""
    final = stages[-1]

    assert only(final, "USER") == "10001:10001"
    after = final[[i.word for i in final].index("USER") :]
    assert not {"RUN", "COPY", "ADD"} & {i.word for i in after}


def test_only_the_data_directory_is_written_to(stages: list[list[Instruction]]) -> None:
    """The command keeps its data on the volume, so the root file system may be read-only."""
    final = stages[-1]
    [volume] = json.loads(only(final, "VOLUME"))
    command = json.loads(only(final, "CMD"))

    assert command[command.index("--data") + 1] == volume
    assert "PYTHONDONTWRITEBYTECODE=1" in only(final, "ENV")


def test_the_command_is_sluice_and_forces_nothing(stages: list[list[Instruction]]) -> None:
    """Exec form, so signals arrive; open listeners stay a decision of whoever runs it."""
    final = stages[-1]

    assert json.loads(only(final, "ENTRYPOINT")) == ["sluice"]
    assert json.loads(only(final, "CMD"))[0] == "up"
    assert "--insecure-bind" not in only(final, "CMD")
    assert only(final, "EXPOSE").split() == ["8000", "8001", "8002"]


def test_health_is_asked_with_python(stages: list[list[Instruction]]) -> None:
    """The slim image has no curl; the check is exec form and its program compiles."""
    flags, _, command = only(stages[-1], "HEALTHCHECK").partition("CMD ")
    program, option, source = json.loads(command)

    assert "--timeout=" in flags
    assert (program, option) == ("python", "-c")
    assert compile(source, "healthcheck", "exec")


def test_what_is_copied_exists_and_is_not_ignored(stages: list[list[Instruction]]) -> None:
    """Every source is in the tree, and .dockerignore lets it into the build."""
    sources = [source for stage in stages for source in copied(stage)]
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().split("\n") if line[:1] == "!"
    ]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert set(sources) == set(allowed)


def test_caches_stay_out_of_the_build() -> None:
    """Byte code of the checkout never enters an image."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    barred = [line.removeprefix("**/") for line in lines if line.startswith("**/")]

    assert lines[1] == "*"
    for name in ("__pycache__", "pipeline.cpython-311.pyc"):
        assert any(fnmatch(name, pattern) for pattern in barred)
