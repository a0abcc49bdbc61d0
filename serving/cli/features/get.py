"""`sluice features get`: what a model would be given for one entity."""

import asyncio
from typing import TYPE_CHECKING, Any

import click
import msgspec

from serving.cli.features.place import Place, connected, place_options, read_entity
from serving.cli.output import CommandError, Output, output_options, plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from feature_cache.inspection import Explained
    from feature_cache.keys import EntityValue

__all__ = ["FoundFeature", "FoundView", "get"]


class FoundFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One value; `stored` is false where a default stands in."""

    value: Any
    stored: bool


class FoundView(msgspec.Struct, frozen=True, kw_only=True):
    """One view in `sluice features get --json`; `age_ms` is null where there is no row."""

    view: str
    status: str
    age_ms: int | None
    features: dict[str, FoundFeature]


@click.command(short_help="Show what a model would be given for one entity.")
@click.option(
    "--entity",
    "entity",
    metavar="KEY=VALUE",
    multiple=True,
    required=True,
    help="Whose features; once for each key.",
)
@click.option("--view", "only", metavar="VIEW", multiple=True, help="Only this view.")
@place_options
@output_options
def get(entity: tuple[str, ...], *, only: tuple[str, ...], place: Place, output: Output) -> None:
    """Show values, status and age of one entity's features, as a model would be given them.

    Values in brackets are the view's defaults: nothing is stored for them. Exits with 1 if no
    view has anything stored.

    \b
    Examples:
      sluice features get --entity person_id=42 --config configs/demo
      sluice features get --entity person_id=42 --view person_profile --config configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    keys = read_entity(place, entity)
    wanted = [place.view(name).view for name in only] or [
        name for name, view in place.views.items() if view.entity.keys() <= keys.keys()
    ]
    if not wanted:
        names = ", ".join(sorted(keys))
        raise CommandError(f"no view is looked up by {names} alone", "give each of a view's keys")
    for name in wanted:
        if lacking := place.view(name).entity.keys() - keys.keys():
            raise CommandError(f"`{name}` is also looked up by {', '.join(sorted(lacking))}")
    explained = asyncio.run(_explain(place, keys, wanted))
    found = [_found(one) for one in explained]
    output.answer(found, lambda: _table(found))
    if not any(one.stored for view in found for one in view.features.values()):
        raise CommandError(f"nothing is stored for {' '.join(entity)}")


async def _explain(
    place: Place, keys: "dict[str, EntityValue]", views: list[str]
) -> "list[Explained]":
    from feature_cache.errors import StoreRefused, Unavailable
    from feature_cache.inspection import explain
    from feature_cache.keys import InvalidEntity
    from serving.cli.output import Unreachable

    async with connected(place) as cache:
        deadline = asyncio.get_running_loop().time() + 5.0
        try:
            return [
                await explain(
                    cache, view, {name: keys[name] for name in place.view(view).entity}, deadline
                )
                for view in views
            ]
        except InvalidEntity as error:
            raise CommandError(str(error)) from error
        except (StoreRefused, Unavailable) as error:
            raise Unreachable(str(error)) from error


def _found(one: "Explained") -> FoundView:
    from feature_cache.status import Status, describe

    return FoundView(
        view=one.view,
        status=describe(one.status & ~Status.CACHED),
        age_ms=one.age_ms if one.age_ms >= 0 else None,
        features={
            field.field: FoundFeature(value=field.value, stored=field.stored)
            for field in one.fields
        },
    )


def _table(found: list[FoundView]) -> "Table":
    table = plain_table("VIEW", "FEATURE", "VALUE", "STATUS", "AGE")
    for view in found:
        first = True
        for name, feature in view.features.items():
            shown = _shown(feature.value)
            table.add_row(
                view.view if first else "",
                name,
                shown if feature.stored else f"({shown})",
                view.status if first else "",
                _age(view.age_ms) if first else "",
            )
            first = False
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _age(age_ms: int | None) -> str:
    if age_ms is None:
        return "-"
    seconds = age_ms / 1e3
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
