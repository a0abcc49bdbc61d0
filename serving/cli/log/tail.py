"""`sluice log tail`: the newest rows, and those that come."""

import time
from collections.abc import Iterable
from typing import Any, Final

import click

from serving.cli.log.place import LogPlace, known_model, log_options
from serving.cli.output import Output, output_options

__all__ = ["tail"]

_LOOK_SECONDS: Final = 0.25
_WIDEST_LIST: Final = 6


@click.command(short_help="Show the newest rows, and those that come.")
@click.argument("model", required=False)
@click.option(
    "-n", "--rows", type=click.IntRange(0), default=10, show_default=True, help="How many."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["production", "canary", "shadow"]),
    help="Only those that a version in this role answered; may be given more than once.",
)
@click.option(
    "--code",
    "codes",
    multiple=True,
    metavar="CODE",
    help="Only those that ended so: OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED …",
)
@log_options
@output_options
def tail(
    model: str | None,
    *,
    rows: int,
    follow: bool,
    roles: tuple[str, ...],
    codes: tuple[str, ...],
    place: LogPlace,
    output: Output,
) -> None:
    """Show the newest predictions of MODEL, or of all, oldest first.

    A line says when, which version in which role, how it ended and how long it took, whom it was
    about and what came out; features that were not fresh are named. With --json each row is a line
    of JSON with everything that was kept.

    \b
    Examples:
      sluice log tail --data configs/demo
      sluice log tail employment -n 3 --role shadow --data configs/demo
      sluice log tail employment --data configs/demo --json | jq .outputs
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.recording.reading import OpenLog
    from serving.recording.tailing import Follower, Wanted, newest

    # Someone who follows waits for the first row of a model; others have mistyped its name.
    wanted = Wanted(model if follow else known_model(place, model), roles, codes)
    # Begun before the newest are read, so that no row is in neither.
    follower = Follower(place.log, wanted) if follow else None
    with OpenLog(place.log, None if model is None else {model}) as opened:
        found = newest(opened, wanted, rows) if rows else []
        for damage in opened.damages:
            output.note(f"{damage.file} is damaged and left out in part: {damage.reason}")
    _show(found, output)
    shown = {_key(row) for row in found}
    while follower is not None:
        _show([row for row in follower.more() if _key(row) not in shown], output)
        shown.clear()  # only the first look can see rows that were among the newest
        time.sleep(_LOOK_SECONDS)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("event_time", "prediction_id", "request_id", "row", "role", "version")
    return tuple(row.get(name) for name in names)


def _show(rows: Iterable[dict[str, Any]], output: Output) -> None:
    from serving.recording.row_document import as_json, document

    for row in rows:
        if output.json:
            click.echo(as_json(document(row)).decode())
        else:
            click.echo(_line(row))


def _line(row: dict[str, Any]) -> str:
    """One row for people."""
    when = row["event_time"].strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    version = f"{row['model']}/{row['version'] or '-'}"
    words = [when, version, row["role"] or "-", row["code"]]
    if (seconds := row.get("total_seconds")) is not None:
        words.append(f"{seconds * 1e3:.1f}ms")
    words += [f"{name}={_short(value)}" for name, value in _named(row, "entity.")]
    if outputs := [f"{name}={_short(value)}" for name, value in _named(row, "output.")]:
        words += ["→", *outputs]
    words += [f"({view}: {status})" for view, status in _named(row, "status.") if status != "OK"]
    return "  ".join(words)


def _named(row: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    return [
        (column.removeprefix(prefix), value)
        for column, value in row.items()
        if column.startswith(prefix) and value is not None
    ]


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_short(one) for one in value[:_WIDEST_LIST])
        return f"[{shown}{', …' if len(value) > _WIDEST_LIST else ''}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
