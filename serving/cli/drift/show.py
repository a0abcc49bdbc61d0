"""`sluice drift MODEL`: how a model's traffic compares with its reference."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from serving.cli.output import CommandError, ExitCode, Output, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from serving.cli.drift.gather import Findings

__all__ = ["LEVELS", "show"]

LEVELS: Final = ("none", "inform", "alert", "trigger")
"""Those of `serving.drift.verdict`, without what importing that costs."""
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Compare a model's traffic with its reference.")
@click.argument("model")
@click.option("--version", metavar="VERSION", default="", help="Only this version's traffic.")
@click.option(
    "--role",
    type=click.Choice(["production", "canary", "shadow"]),
    help="Only what it answered in this role.",
)
@click.option("--html", "page", metavar="FILE", type=_FILE, help="Write a page with plots, too.")
@click.option(
    "--fail-on",
    type=click.Choice(LEVELS[1:]),
    help="Exit with 1 if a verdict is of this level or a graver one.",
)
@gateway_options
@output_options
def show(
    model: str,
    *,
    version: str,
    role: str | None,
    page: Path | None,
    fail_on: str | None,
    where: Where,
    output: Output,
) -> None:
    """Compare MODEL's last window of traffic with its reference: drift, data quality, verdict.

    Columns are sorted, the one that moved most first. PSI* is the shift without the noise that few
    rows make (0: none; from monitoring.min_effect it is told), q the share of such findings that
    chance alone makes. One line has the course of PSI* over the windows, oldest first.

    Levels: `inform`, a column drifted; `alert`, the score or an important column keeps drifting,
    or data quality is broken; `trigger`, the model does harm. Drift alone is no harm. With labels
    the model's figures are shown, too, with their 95 % intervals.

    The page of --html is one file that loads nothing. --json prints everything as one document.

    \b
    Examples:
      sluice drift employment --data configs/demo
      sluice drift employment --version v1 --role production --fail-on alert --data configs/demo
      sluice drift employment --html drift.html --data configs/demo
      sluice drift employment --json --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.drift.gather import gather
    from serving.cli.drift.tables import render

    everything = output.json or page is not None
    by = ("version", "time", "slice") if everything else ("version",)
    found = gather(where, model, version=version, role=role or "", by=by)
    output.answer(found, lambda: render(found))
    if page is not None:
        _write(page, found, _command(model, version, role, page))
        output.note(f"{page} shows it")
    for words in found.notes:
        output.detail(words)
    if fail_on is not None and _worst(found) >= LEVELS.index(fail_on):
        click.get_current_context().exit(ExitCode.NO)


def _worst(found: "Findings") -> int:
    return max((LEVELS.index(one.verdict.level) for one in found.drift.watched), default=0)


def _write(file: Path, found: "Findings", command: str) -> None:
    import time

    from serving.report.page import ModelReport, page

    report = ModelReport(
        model=found.model,
        at=time.time(),
        sluice=found.sluice,
        command=command,
        words=found.drift.words,
        watched=found.drift.watched,
        performance=found.performance,
        notes=found.notes,
    )
    try:
        file.write_text(page(report), encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CommandError(f"{file} cannot be written: {reason}") from error


def _command(model: str, version: str, role: str | None, file: Path) -> str:
    """How the page is made again; which gateway is meant is everybody's own business."""
    import shlex

    words = ["sluice", "drift", model]
    words += ["--version", version] if version else []
    words += ["--role", role] if role else []
    return shlex.join([*words, "--html", str(file)])
