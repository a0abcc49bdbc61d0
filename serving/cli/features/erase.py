"""`sluice features erase`: one subject, out of every view, for good."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from serving.cli.features.place import Place, connected, place_options, read_entity
from serving.cli.output import CommandError, Output, Unreachable, output_options, plain_table

if TYPE_CHECKING:
    from feature_cache.keys import EntityValue
    from feature_cache.writing import Receipt

__all__ = ["ErasedKey", "ErasedView", "ErasureReceipt", "erase"]


class ErasedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that holds a tombstone now, and whether it held values."""

    key: str
    held: bool


class ErasedView(msgspec.Struct, frozen=True, kw_only=True):
    """One view. `kept_for` is how long the tombstones stay.

    `written_by` is empty, or who else writes this view: there nothing was done.
    """

    view: str
    keys: list[ErasedKey]
    kept_for: str
    written_by: str = ""


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice features erase --json` prints."""

    entity: dict[str, str]
    erased_at: datetime
    views: list[ErasedView]


@click.command(short_help="Remove one subject from every view, for good.")
@click.option(
    "--entity",
    "entity",
    metavar="KEY=VALUE",
    multiple=True,
    required=True,
    help="Whom; once for each key.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
@output_options
def erase(entity: tuple[str, ...], *, yes: bool, place: Place, output: Output) -> None:
    """Remove one subject from every view that has one of these keys, and print a receipt.

    What is left behind is a tombstone: it lives as long as the view keeps values, so that older
    rows of files and streams, loaded again, do not bring the subject back. Workers forget what
    they keep of the subject when the store tells them, within milliseconds. Views with more keys
    than are given are searched for every row with these. Views that Feast writes are left alone
    and listed. Exits with 1 if there are any of those, since something is left.

    \b
    Examples:
      sluice features erase --entity person_id=7 --config configs/demo
      sluice features erase --entity person_id=7 --config configs/demo --yes --json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    keys = read_entity(place, entity)
    views = [name for name, view in place.views.items() if view.entity.keys() & keys.keys()]
    subject = " ".join(entity)
    if not yes:
        click.confirm(f"Erase {subject} from {', '.join(views)}?", abort=True, err=True)
    receipt = asyncio.run(_erase(place, keys))
    answer = _receipt(place, receipt)
    output.answer(answer)
    table = plain_table("VIEW", "HELD VALUES", "TOMBSTONE STAYS", "KEY")
    table.columns[3].overflow = "fold"
    for view in answer.views:
        for one in view.keys:
            table.add_row(view.view, "yes" if one.held else "no", view.kept_for, one.key)
        if view.written_by:
            table.add_row(view.view, "", "", f"written by {view.written_by}: erase it there")
        elif not view.keys:
            table.add_row(view.view, "no", "", "none")
    output.say(f"erased {subject} at {answer.erased_at.isoformat(timespec='milliseconds')}\n")
    output.say(table)
    if foreign := [view.view for view in answer.views if view.written_by]:
        raise CommandError(f"{', '.join(foreign)} still holds the subject", "erase it there too")


async def _erase(place: Place, keys: "dict[str, EntityValue]") -> "Receipt":
    from feature_cache.errors import StoreRefused, Unavailable
    from feature_cache.keys import InvalidEntity

    async with connected(place) as cache:
        try:
            return await cache.erase(keys)
        except InvalidEntity as error:
            raise CommandError(str(error)) from error
        except StoreRefused as error:
            raise CommandError(f"the store refuses: {error}", "erasing again is safe") from error
        except Unavailable as error:
            raise Unreachable(f"{error}; erasing again is safe") from error


def _receipt(place: Place, receipt: "Receipt") -> ErasureReceipt:
    return ErasureReceipt(
        entity=receipt.entity,
        erased_at=datetime.fromtimestamp(receipt.erased_at_ms / 1e3, UTC),
        views=[
            ErasedView(
                view=one.view,
                keys=[
                    ErasedKey(key=key, held=held)
                    for key, held in zip(one.keys, one.had, strict=True)
                ],
                kept_for=place.view(one.view).keep_for,
                written_by="Feast" if one.foreign else "",
            )
            for one in receipt.erasures
        ],
    )
