"""`sluice log erase`: one subject, out of every file, for good."""

import hashlib
import sys
from typing import TYPE_CHECKING, Final

import click

from serving.cli.log.place import LogPlace, known_model, log_options
from serving.cli.output import CommandError, Output, output_options, plain_table

if TYPE_CHECKING:
    from serving.cli.client import AdminClient
    from serving.recording.erasing_labels import LabelsErased
    from serving.recording.erasures import AskHolder, LabelsWanted, Receipt

__all__ = ["erase"]

_SHOWN_DIGITS: Final = 12
_PREDICTIONS: Final = 5_000


@click.command(short_help="Remove every row of one subject, for good.")
@click.option(
    "--subject",
    "subject",
    metavar="KEY=VALUE",
    multiple=True,
    required=True,
    help="Whom, by an entity key; once for each key of an entity that has several.",
)
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Only rows of this model.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@log_options
@output_options
def erase(
    subject: tuple[str, ...],
    *,
    models: tuple[str, ...],
    yes: bool,
    place: LogPlace,
    output: Output,
) -> None:
    """Remove every row of one subject, and its labels, and print a receipt.

    Files that hold such rows are written anew without them; the old bytes are gone from the log's
    folder when this ends. Workers that are writing the subject down are asked to seal the file, and
    what is answered meanwhile is found too. Where a key is kept as a hash, the hash is what is
    looked for. The receipt is added to erasures.jsonl of the log, with digests of the files before
    and after, and the audit log of a gateway that runs gets a line. It names nobody.

    Not reached: copies that were shipped or backed up, and features (`sluice features erase`).
    Exits with 1 if a part of the log could not be searched.

    \b
    Examples:
      sluice log erase --subject person_id=7 --data configs/demo
      sluice log erase --subject person_id=7 --model employment --data configs/demo --yes --json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.recording.erasures import erase as erase_subject

    keys = dict(_key(one) for one in subject)
    for model in models:
        known_model(place, model)
    if not yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    if not yes:
        whose = " ".join(subject)
        click.confirm(f"Erase {whose} from {place.folder}, for good?", abort=True, err=True)
    receipt = erase_subject(place.log, keys, models or None, output.note, _holder(place, output))
    output.answer(receipt, lambda: _shown(receipt))
    _tell_control(place, receipt, output)
    if receipt.labels_held:
        raise CommandError(
            "the labels are written by the running gateway, and are as they were",
            "erase again when it answers, or is stopped",
        )
    if receipt.unreadable:
        files = ", ".join(damage.file for damage in receipt.unreadable)
        raise CommandError(
            f"these files cannot be read, so they could not be searched: {files}",
            "if nothing else can read them, remove them",
        )


def _key(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"`{text}` is not KEY=VALUE, such as person_id=42")
    return name, value


def _shown(receipt: "Receipt") -> object:
    if receipt.not_by_this_key:
        models = ", ".join(receipt.not_by_this_key)
        click.echo(f"rows of {models} are kept without this key: whose they are cannot be told")
    click.echo(
        f"erased {receipt.rows} rows in {len(receipt.files)} files and {receipt.labels} labels; "
        f"receipt {receipt.receipt}"
    )
    if not receipt.files:
        return None
    table = plain_table("FILE", "ROWS", "SHA-256 BEFORE", "AFTER")
    table.columns[0].overflow = "fold"
    for file in receipt.files:
        after = file.sha256_after[:_SHOWN_DIGITS] or "removed"
        table.add_row(file.file, str(file.rows), file.sha256_before[:_SHOWN_DIGITS], after)
    return table


def _holder(place: LogPlace, output: Output) -> "AskHolder":
    """Have control, which writes the labels of a gateway that runs, erase them."""
    from serving.errors import SluiceError
    from serving.recording.erasing_labels import LabelsErased

    def ask(wanted: "LabelsWanted") -> "LabelsErased | None":
        done = LabelsErased()
        client = _control(place)
        if client is None:
            return None
        try:
            with client:
                # Each part of the list by itself: a body has a bound.
                for first in range(0, max(len(wanted.predictions), 1), _PREDICTIONS):
                    body = {
                        "keys": wanted.keys,
                        "predictions": wanted.predictions[first : first + _PREDICTIONS],
                        "models": wanted.models,
                    }
                    path = f"/api/v1/labels/erasures/{wanted.receipt}"
                    part = client.post(path, body, LabelsErased)
                    done.labels += part.labels
                    done.files += part.files
        except SluiceError as error:
            output.note(f"the labels: {error.message}")
            return None
        done.files = sorted(set(done.files))
        return done

    return ask


def _control(place: LogPlace) -> "AdminClient | None":
    """The control process of the gateway that writes this log, if it runs."""
    from serving.cli.admin_address import local_admin, running_engine
    from serving.cli.client import AdminClient
    from serving.cli.tls import ClientTls

    report = running_engine(place.data)
    if report is None or place.data is None:
        return None
    return AdminClient(local_admin(report, place.data, ClientTls()), "")


def _tell_control(place: LogPlace, receipt: "Receipt", output: Output) -> None:
    """Have the audit log of a gateway that runs say so."""
    import msgspec

    from serving.control.admin.answers import ErasureNoted
    from serving.errors import SluiceError

    client = _control(place)
    if client is None:
        return
    digest = hashlib.sha256(msgspec.json.encode(receipt)).hexdigest()
    try:
        with client:
            client.post(f"/api/v1/log/erasures/{receipt.receipt}/{digest}", {}, ErasureNoted)
    except SluiceError as error:
        output.note(f"the gateway's audit log has no line of this: {error.message}")
