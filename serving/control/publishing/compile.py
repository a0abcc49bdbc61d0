"""From a configuration directory to what can be published, or every reason why not.

Reads YAML, stages the model files by digest and has them checked in a throw-away process; other
servers are asked what they serve. Blocks on disk, on that process and on those servers: call it
from a thread. It changes nothing but the data directory's stock of staged files.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from serving.config.check import check, check_signatures
from serving.config.facts import Facts, gather
from serving.config.frozen_bins import Reference
from serving.config.load import Loaded, load_directory, resolve_artifacts
from serving.config.problems import Problem, raise_errors
from serving.config.schema import Configuration
from serving.config.snapshot import Snapshot, StagedVersion
from serving.control.publishing.foreign import describe
from serving.errors import InvalidArtifact
from serving.models import artifact
from serving.models.golden_files import golden_problems
from serving.rollout.applied import carried
from serving.types import Signature

__all__ = ["Compiled", "compile_configuration"]

Staged = dict[str, dict[str, StagedVersion]]


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that may be served, its model files staged and checked."""

    configuration: Configuration
    staged: Staged
    warnings: list[str]
    references: dict[str, Reference] = {}
    loaded: Loaded | None = None
    """What it was made of, to say in which line something is."""

    def snapshot(
        self, *, revision: int, author: str, at: float, before: Snapshot | None = None
    ) -> Snapshot:
        """Give it a revision.

        What was unloaded `before` stays so, and rollouts go on (`serving.rollout.applied.carried`).
        """
        models, unloaded = self.configuration.models, before.unloaded if before else ()
        return Snapshot(
            revision=revision,
            published_at=at,
            author=author,
            models=models,
            views=self.configuration.views,
            staged=self.staged,
            references=self.references,
            unloaded=[name for name in unloaded if name in models],
            rollouts=carried(before, models, self.staged),
        )


def compile_configuration(root: Path, data: Path, *, insecure: bool = False) -> Compiled:
    """Read, check, stage.

    Args:
        root: the configuration directory.
        data: the data directory; files go to `artifacts`, results of checks to `checked`.
        insecure: whether unprotected listeners were forced by name.

    Raises:
        InvalidConfig: with every problem that was found.
    """
    loaded = load_directory(root)
    facts = gather(loaded)
    problems = check(loaded, facts, insecure=insecure)
    paths, unstaged = _stage(loaded, facts, data / "artifacts")
    verdicts = artifact.check_many(sorted(set(paths.values())), checked_dir=data / "checked")
    signatures, unfit = _judge(loaded, paths, verdicts)
    # Nobody is asked about a configuration that is refused anyway.
    hopeless = any(problem.severity == "error" for problem in problems)
    foreign, silent = ({}, []) if hopeless else _ask_others(loaded)
    for (model, version), described in foreign.items():
        signatures.setdefault(model, {})[version] = described.signature
    problems += [*unstaged, *unfit, *silent, *check_signatures(loaded, signatures)]
    if not any(problem.severity == "error" for problem in problems):
        problems += golden_problems(loaded, paths)
    raise_errors(problems)
    return Compiled(
        configuration=loaded.configuration,
        staged={
            model: {
                version: foreign.get((model, version))
                or StagedVersion(
                    path=str(paths[model, version]),
                    sha256=source.sha256,
                    signature=signatures[model][version],
                )
                for version, source in config.versions.items()
            }
            for model, config in loaded.configuration.models.items()
        },
        warnings=[str(problem) for problem in problems],
        references={
            name: fact.reference
            for name, fact in (facts.references or {}).items()
            if fact.reference is not None
        },
        loaded=loaded,
    )


def _stage(
    loaded: Loaded, facts: Facts, folder: Path
) -> tuple[dict[tuple[str, str], Path], list[Problem]]:
    staged: dict[tuple[str, str], Path] = {}
    problems = []
    for (model, version), source in resolve_artifacts(loaded).items():
        sha256 = loaded.configuration.models[model].versions[version].sha256
        found = (facts.artifacts or {}).get((model, version))
        if found is None or found.sha256 != sha256:
            continue  # the check has said so already
        try:
            staged[model, version] = artifact.stage(source, sha256, folder)
        except InvalidArtifact as error:
            problems.append(_problem(loaded, model, version, error))
    return staged, problems


def _judge(
    loaded: Loaded,
    paths: Mapping[tuple[str, str], Path],
    verdicts: Mapping[Path, Signature | InvalidArtifact],
) -> tuple[dict[str, dict[str, Signature]], list[Problem]]:
    signatures: dict[str, dict[str, Signature]] = {}
    problems = []
    for (model, version), path in paths.items():
        verdict = verdicts[path]
        if isinstance(verdict, Signature):
            signatures.setdefault(model, {})[version] = verdict
        else:
            problems.append(_problem(loaded, model, version, verdict))
    return signatures, problems


def _ask_others(
    loaded: Loaded,
) -> tuple[dict[tuple[str, str], StagedVersion], list[Problem]]:
    found: dict[tuple[str, str], StagedVersion] = {}
    problems = []
    for model, config in loaded.configuration.models.items():
        for version, source in config.versions.items():
            if source.urls:
                try:
                    found[model, version] = describe(source.urls)
                except InvalidArtifact as error:
                    problems.append(_problem(loaded, model, version, error, "url"))
    return found, problems


def _problem(
    loaded: Loaded, model: str, version: str, error: InvalidArtifact, key: str = "path"
) -> Problem:
    path = ("versions", version, key)
    return loaded.sources.problem(loaded.model_files[model], path, error.message)
