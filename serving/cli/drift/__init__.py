"""`sluice drift`: how traffic compares with what was frozen."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["drift"]

_COMMANDS: Final = {
    "show": "Compare a model's traffic with its reference; `sluice drift MODEL` is short for it.",
    "freeze": "Make a model's reference from a table or from the log.",
    "recount": "Judge a time of the log again, such as with another reference.",
}


class _ModelOrCommand(LazyGroup):
    """A first word that is no command is a model: `sluice drift MODEL` shows it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or take all words as those of `show`."""
        if args[0] in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        return "show", self.get_command(ctx, "show"), args

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Both ways to write it."""
        del ctx
        return ["MODEL [OPTIONS] | COMMAND ..."]


@click.group(
    cls=_ModelOrCommand,
    table=_COMMANDS,
    package="serving.cli.drift",
    short_help="Compare traffic with what was frozen, in words, tables and a page.",
    # Options before the model are those of `show`.
    context_settings={"ignore_unknown_options": True},
)
def drift() -> None:
    """Tell whether a model's traffic still looks like its reference, and freeze that reference.

    `sluice drift MODEL --help` lists the options of the comparison. A model that is called like a
    command is compared with `sluice drift show MODEL`.

    \b
    Examples:
      sluice drift employment --data configs/demo
      sluice drift employment --html drift.html --data configs/demo
      sluice drift freeze employment --config configs/demo --table people.parquet --out ref.json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
