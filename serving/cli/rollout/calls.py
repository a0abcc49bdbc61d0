"""Asking the admin port about rollouts, and telling it what a person wants."""

from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from serving.cli.admin_address import find_admin
from serving.cli.client import AdminClient, Refused
from serving.cli.output import CommandError
from serving.cli.where import Where
from serving.control.admin.answers import RolloutHistory
from serving.control.admin.questions import RolloutRequest
from serving.rollout.standing import RolloutStanding

__all__ = ["RolloutClient"]

_PATH: Final = "/api/v1/rollouts"
_FOR_ADMINS: Final = ("promote", "retry")


class RolloutClient:
    """The admin port, as far as rollouts go; a context manager.

    Raises:
        Unreachable, CommandError: as `AdminClient`, from every method.
    """

    def __init__(self, where: Where) -> None:
        self._client = AdminClient(find_admin(where), where.token())

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def all(self) -> list[RolloutStanding]:
        """The last rollout of every model that has had one."""
        return self._client.get(_PATH, list[RolloutStanding])

    def standing(self, model: str) -> RolloutStanding:
        """The last rollout of a model."""
        try:
            return self._client.get(_of(model), RolloutStanding)
        except Refused as error:
            raise self._explained(model, error) from error

    def history(self, model: str) -> RolloutHistory:
        """Everything that happened in a model's rollouts."""
        try:
            return self._client.get(f"{_of(model)}/history", RolloutHistory)
        except Refused as error:
            raise self._explained(model, error) from error

    def tell(
        self, model: str, verb: str, *, reason: str, expected_revision: int, full: bool = False
    ) -> RolloutStanding:
        """Do something to a rollout. Raises Refused with 409 if it is not where it was."""
        body = RolloutRequest(reason=reason, expected_revision=expected_revision, full=full)
        role = "admin" if verb in _FOR_ADMINS else "operator"
        try:
            return self._client.post(f"{_of(model)}/{verb}", body, RolloutStanding, role=role)
        except Refused as error:
            raise self._explained(model, error) from error

    def _explained(self, model: str, error: Refused) -> CommandError:
        """A model without a rollout: how one begins, and who has one."""
        if error.status != 404:
            return error
        hints = []
        if "unknown model" not in error.message:
            hints.append(
                f"a section `rollout` in the file of {model}, with `canary` and `steps`, and "
                "`sluice apply DIR` begin one"
            )
        if others := ", ".join(one.model for one in self.all()):
            hints.append(f"there are rollouts of {others}")
        return CommandError(error.message, hint="; ".join(hints))


def _of(model: str) -> str:
    return f"{_PATH}/{quote(model, safe='')}"
