"""What verbs have in common: they read, say what would happen, ask, and tell."""

import functools
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from serving.cli.output import CommandError, Output
from serving.cli.where import Where

if TYPE_CHECKING:
    from serving.cli.client import Refused
    from serving.cli.rollout.calls import RolloutClient

__all__ = ["Wish", "act", "require_reason", "wish_options"]

_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How a verb was asked for."""

    reason: str
    expected_revision: int | None
    yes: bool


def wish_options(callback: _Callback) -> _Callback:
    """Add `--reason`, `--expected-revision` and `--yes`; pass a `Wish` as the keyword `wish`."""

    @click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the history.")
    @click.option(
        "--expected-revision",
        type=click.IntRange(min=1),
        metavar="N",
        help="Do nothing unless the rollout is at this revision [default: the one just read].",
    )
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @functools.wraps(callback)
    def wrapped(
        *args: Any, reason: str, expected_revision: int | None, yes: bool, **kwargs: Any
    ) -> Any:
        wish = Wish(reason=reason.strip(), expected_revision=expected_revision, yes=yes)
        return callback(*args, wish=wish, **kwargs)

    return wrapped  # type: ignore[return-value]


def require_reason(wish: Wish, what: str) -> None:
    """Refuse what goes against the evidence without a word. Raises click.UsageError."""
    if not wish.reason:
        raise click.UsageError(f"{what} needs --reason TEXT: it stands in the history")


def act(
    verb: str, model: str, *, wish: Wish, where: Where, output: Output, full: bool = False
) -> None:
    """Do something to a rollout, once the person has seen what that means.

    Raises:
        CommandError: it was refused; of a rollout that has moved meanwhile, with what happened.
    """
    from serving.cli.client import Refused
    from serving.cli.rollout.calls import RolloutClient
    from serving.cli.rollout.words import effect, headline, is_over

    if not wish.yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    with RolloutClient(where) as client:
        before = client.standing(model)
        known = before.revision if wish.expected_revision is None else wish.expected_revision
        output.note(headline(before, time.time()))
        possible = is_over(before) == (verb == "retry")
        if possible:
            output.note(effect(verb, before, full=full))
        if possible and not wish.yes:
            click.confirm(f"{verb.capitalize()} {before.id}?", abort=True, err=True)
        try:
            after = client.tell(model, verb, reason=wish.reason, expected_revision=known, full=full)
        except Refused as error:
            raise _meanwhile(client, model, before.id, known, error) from error
    output.answer(after, lambda: headline(after, time.time()))


def _meanwhile(
    client: "RolloutClient", model: str, identifier: str, known: int, error: "Refused"
) -> CommandError:
    """Why a rollout took no order: what has happened since the revision that was known."""
    if error.status != 409:
        return error
    from serving.cli.rollout.words import happened
    from serving.cli.span import age

    now = client.standing(model)
    again = f"`sluice rollout status {model}` shows where it is"
    if (now.id, now.revision) == (identifier, known):
        return CommandError(error.message, hint=again)
    [past] = [one for one in client.history(model).rollouts if one.id == now.id]
    news = [
        f"{happened(event)} (revision {event.revision}, by {event.who}, "
        f"{age(time.time() - event.at)} ago{f': {event.reason}' if event.reason else ''})"
        for event in sorted(past.events, key=lambda one: one.revision)
        if now.id != identifier or event.revision > known
    ]
    if not news:
        return CommandError(error.message, hint=again)
    return CommandError(
        f"nothing was done: it is not at revision {known} any more; "
        f"{now.id} {', then '.join(news)}",
        hint=f"{again}; then say it again if it is still right",
    )
