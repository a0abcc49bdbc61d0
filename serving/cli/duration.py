"""Options that take a time such as `50ms` or `5m`."""

import click

__all__ = ["read_duration"]


def read_duration(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Seconds, written as in the configuration; an option's callback."""
    from serving.config.units import Seconds

    del ctx, parameter
    try:
        return None if text is None else float(Seconds.parse(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
