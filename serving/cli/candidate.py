"""`sluice candidate`: what came out of a training becomes a shadow."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.output import CommandError, Output, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from serving.models.candidate import Brought

__all__ = ["candidate"]


@click.command(short_help="Add a newly trained model file as a shadow.")
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--version", required=True, metavar="NAME", help="Name of the new version.")
@click.option(
    "--config",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Configuration directory that is edited.",
)
@click.option(
    "--golden",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Golden examples [default: those of production's version].",
)
@click.option(
    "--percent",
    default=100.0,
    show_default=True,
    type=click.FloatRange(0, 100, min_open=True),
    help="Requests that are copied to it.",
)
@click.option("--apply", "applied", is_flag=True, help="Apply the configuration afterwards.")
@gateway_options
@output_options
def candidate(
    model: str,
    file: Path,
    *,
    version: str,
    directory: Path,
    golden: Path | None,
    percent: float,
    applied: bool,
    where: Where,
    output: Output,
) -> None:
    """Check FILE, copy it into the configuration, and add it to MODEL as a shadow.

    The file is opened in a throw-away process, and its golden examples are run there: inputs with
    the outputs that they must give. The model's YAML gets the version and an entry of
    `traffic.shadow`; everything else in it stays as it is. The version is marked as a candidate:
    `sluice apply` makes it production or canary only after it has been a shadow in a published
    revision. Exits with 1, and changes nothing, if anything is wrong with it.

    \b
    Examples:
      sluice candidate employment configs/demo/artifacts/employment-v2.onnx --version v3 \\
          --config configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    brought = _bring(directory, model, file, version=version, golden=golden, percent=percent)
    output.answer(brought, lambda: _words(brought))
    if applied:
        _apply(directory, brought, where, output)


def _bring(
    directory: Path, model: str, file: Path, *, version: str, golden: Path | None, percent: float
) -> "Brought":
    from tempfile import TemporaryDirectory

    from serving.errors import InvalidArtifact
    from serving.models.candidate import bring

    with ExitStack() as stack:
        remembered = Path(stack.enter_context(TemporaryDirectory(prefix="sluice-candidate-")))
        try:
            return bring(
                directory, model, file,
                version=version, checked=remembered, golden=golden, percent=percent,
            )  # fmt: skip
        except InvalidArtifact as error:
            raise CommandError(
                f"{file.name} must not be served: {error.message}", hint="nothing was changed"
            ) from error


def _words(brought: "Brought") -> str:
    examples = "its golden examples hold" if brought.golden else "it has no golden examples"
    return (
        f"{brought.model}/{brought.version} is a shadow of {brought.percent:g} % in the "
        f"configuration ({brought.file}); {examples}"
    )


def _apply(directory: Path, brought: "Brought", where: Where, output: Output) -> None:
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.control.admin.answers import ApplyAnswer
    from serving.control.admin.questions import ApplyRequest

    with AdminClient(find_admin(where, directory), where.token()) as client:
        answer = client.post(
            "/api/v1/config/apply",
            ApplyRequest(
                directory=str(directory.absolute()),
                reason=f"{brought.model}/{brought.version} is a candidate",
            ),
            ApplyAnswer,
        )
    for warning in answer.warnings:
        output.note(warning)
    output.say(f"published revision {answer.revision}")
