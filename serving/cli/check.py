"""`sluice check DIR`: every mistake of a configuration, before anybody serves it."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from serving.cli.output import ExitCode, Output, output_options
from serving.config.problems import Problem

if TYPE_CHECKING:
    from serving.config.load import Loaded

__all__ = ["Verdict", "check"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice check --json` prints."""

    ok: bool
    errors: int
    warnings: int
    models: int
    versions: int
    views: int
    problems: list[Problem]


@click.command(short_help="Say everything that is wrong with a configuration directory.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--no-models", is_flag=True, help="Do not look at model files.")
@click.option(
    "--insecure-bind", is_flag=True, help="Judge as `sluice up --insecure-bind` would start it."
)
@output_options
def check(directory: Path, *, no_models: bool, insecure_bind: bool, output: Output) -> None:
    """Say everything that is wrong with the configuration in DIR.

    Every file is read, every option checked, and every model file is opened in a throw-away
    process. A mistake is one line, `file:line:column: error: path: what is wrong`. Exits with
    1 if there are errors; warnings alone exit with 0.

    \b
    Examples:
      sluice check configs/demo
      sluice check configs/demo --no-models     in CI, where model files are elsewhere
      sluice check configs/demo --json | jq .problems
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    loaded, problems = _examine(directory, models=not no_models, insecure=insecure_bind)
    errors = sum(problem.severity == "error" for problem in problems)
    configuration = loaded.configuration if loaded is not None else None
    models = list(configuration.models.values()) if configuration else []
    verdict = Verdict(
        ok=errors == 0,
        errors=errors,
        warnings=len(problems) - errors,
        models=len(models),
        versions=sum(len(model.versions) for model in models),
        views=len(configuration.views) if configuration else 0,
        problems=problems,
    )
    output.answer(verdict, lambda: _lines(verdict, looked=not no_models))
    if errors:
        click.get_current_context().exit(ExitCode.NO)


def _examine(
    directory: Path, *, models: bool, insecure: bool
) -> tuple["Loaded | None", list[Problem]]:
    """Read, judge, and, once nothing else is wrong, open the model files."""
    from serving.config.check import check as judge
    from serving.config.facts import gather
    from serving.config.load import load_directory
    from serving.config.problems import in_file_order
    from serving.errors import InvalidConfig

    try:
        loaded = load_directory(directory)
    except InvalidConfig as error:
        return None, [problem for problem in error.problems if isinstance(problem, Problem)]
    facts = gather(loaded, artifacts=models)
    problems = judge(loaded, facts, insecure=insecure)
    if models:
        sound = {key for key, fact in (facts.artifacts or {}).items() if fact.sha256}
        problems += _open_models(loaded, sound)
    return loaded, in_file_order(problems)


def _open_models(loaded: "Loaded", keys: set[tuple[str, str]]) -> list[Problem]:
    """Open the files of these (model, version) in a throw-away process and compare."""
    from tempfile import TemporaryDirectory

    from serving.config.check import check_signatures
    from serving.config.load import resolve_artifacts
    from serving.models.artifact import check_many
    from serving.models.golden_files import golden_problems
    from serving.types import Signature

    paths = {key: path for key, path in resolve_artifacts(loaded).items() if key in keys}
    if not paths:
        return []
    with ExitStack() as stack:
        remembered = loaded.root / ".sluice" / "checked"
        if not remembered.is_dir():  # a directory nobody runs from stays as it is
            remembered = Path(stack.enter_context(TemporaryDirectory(prefix="sluice-check-")))
        verdicts = check_many(paths.values(), checked_dir=remembered)
    problems: list[Problem] = []
    signatures: dict[str, dict[str, Signature]] = {}
    for (model, version), path in paths.items():
        verdict = verdicts[path]
        if isinstance(verdict, Signature):
            signatures.setdefault(model, {})[version] = verdict
        else:
            file, place = loaded.model_files[model], ("versions", version, "path")
            message = f"the model file must not be served: {verdict.message}"
            problems.append(loaded.sources.problem(file, place, message))
    problems += check_signatures(loaded, signatures)
    sound = {key: path for key, path in paths.items() if isinstance(verdicts[path], Signature)}
    return problems + golden_problems(loaded, sound)


def _lines(verdict: Verdict, *, looked: bool) -> object:
    from rich.text import Text

    text = Text()
    for problem in verdict.problems:
        line = Text(f"{problem}\n")
        line.highlight_words([" error: "], "bold red")
        line.highlight_words([" warning: "], "bold yellow")
        text.append(line)
    warnings = f", {_count(verdict.warnings, 'warning')}" if verdict.warnings else ""
    if not verdict.ok:
        return text.append(f"{_count(verdict.errors, 'error')}{warnings}")
    contents = ", ".join(
        (
            _count(verdict.models, "model"),
            _count(verdict.versions, "version"),
            _count(verdict.views, "feature view"),
        )
    )
    unseen = "" if looked else " (model files not looked at)"
    return text.append(f"ok: {contents}{warnings}{unseen}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
