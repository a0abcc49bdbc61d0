"""How a model's requests for training stand, in words."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from serving.cli.output import Output, plain_table
from serving.cli.where import Where

if TYPE_CHECKING:
    from rich.table import Table

    from serving.control.training.retraining import RetrainingStatus

__all__ = ["show", "tell"]


def tell(where: Where, model: str, verb: str, body: object) -> "RetrainingStatus":
    """Call a verb. Raises CommandError, Unreachable."""
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.control.training.retraining import RetrainingStatus

    path = f"/api/v1/retraining/{quote(model, safe='')}"
    with AdminClient(find_admin(where), where.token()) as client:
        if not verb:
            return client.get(path, RetrainingStatus)
        return client.post(f"{path}/{verb}", body, RetrainingStatus)


def show(status: "RetrainingStatus", output: Output) -> None:
    """Print the answer."""
    output.answer(status, lambda: _table(status))
    if status.person:
        output.note(
            f"a person has to look: {status.person}; "
            f"`sluice retraining resume {status.model}` goes on"
        )


def _table(status: "RetrainingStatus") -> "Table":
    from serving.cli.span import age

    table = plain_table("model", status.model)
    table.add_row("asks", status.asks)
    table.add_row("now", status.words)
    if status.harm_since is not None:
        table.add_row("harm is seen for", age(time.time() - status.harm_since))
    table.add_row("a training is running", "yes" if status.in_flight else "no")
    table.add_row("asked in 30 days", f"{len(status.asked)} of {status.budget}")
    table.add_row("in vain in a row", str(status.failures))
    request = status.request
    if request is not None:
        table.add_row("last request", request.id)
        table.add_row("  asked", f"{_moment(request.at)} by {request.asked_by}: {request.words}")
        tries = f"{request.attempts} attempt{'' if request.attempts == 1 else 's'}"
        table.add_row("  stage", f"{request.stage.replace('_', ' ')} ({tries})")
        if request.said:
            table.add_row("  said", request.said)
    return table


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%MZ")
