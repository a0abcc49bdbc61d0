"""`sluice tokens new NAME`: credentials, of which only the hash is ever stored."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from serving.cli.output import CommandError, Output, output_options

if TYPE_CHECKING:
    from serving.config.schema import TokenEntry

__all__ = ["NewToken", "tokens"]


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice tokens new --json` prints; the only time the token is seen."""

    token: str
    name: str
    sha256: str
    roles: list[str]


def _usable_name(ctx: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse what the token file could not hold."""
    import re

    del ctx, parameter
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise click.BadParameter("a name has up to 64 lower-case letters, digits, `.`, `_` and `-`")
    return name


@click.group(short_help="Make credentials for callers.")
def tokens() -> None:
    """Make credentials for callers.

    \b
    Example:
      sluice tokens new web-shop
    """  # noqa: D301  - \b keeps click from re-wrapping the examples


@tokens.command()
@click.argument("name", callback=_usable_name)
@click.option(
    "--role",
    type=click.Choice(["infer", "operator", "admin"]),
    default="infer",
    show_default=True,
    help="What it may do; each role includes the ones before it.",
)
@click.option(
    "--append",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Add the entry to this token file (made if missing, readable by you only).",
)
@output_options
def new(name: str, *, role: str, file: Path | None, output: Output) -> None:
    """Draw a token for NAME and print it, once.

    The gateway stores only its SHA-256: whoever loses the token makes a new one. Put the
    entry into the file that `auth.tokens` of gateway.yaml names, or let --append do it.

    \b
    Examples:
      sluice tokens new web-shop
      sluice tokens new ana --role operator --append tokens.yaml
      TOKEN=$(sluice tokens new ci --role admin --append tokens.yaml --json | jq -r .token)
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.config.identity import hash_token, new_token

    token = new_token()
    drawn = NewToken(token=token, name=name, sha256=hash_token(token), roles=[role])
    entry = _entry(drawn)
    if file is None:
        output.answer(drawn, lambda: f"token: {token}\n\nentry for the token file:\n{entry}")
    else:
        _append(file, drawn, entry)
        output.answer(drawn, lambda: f"token: {token}")
        output.note(f"added `{name}` to {file}; this token is not shown again")


def _entry(drawn: NewToken) -> str:
    roles = ", ".join(drawn.roles)
    return f'  - {{name: "{drawn.name}", sha256: "{drawn.sha256}", roles: [{roles}]}}'


def _append(file: Path, drawn: NewToken, entry: str) -> None:
    """Write the file anew with one more entry, if the result reads back as exactly that."""
    import os
    import secrets

    file = file.resolve()
    before = _known(file) if file.exists() else []
    if any(known.name == drawn.name for known in before):
        raise CommandError(
            f"`{drawn.name}` has a token already", "choose another name, or remove its entry first"
        )
    text = file.read_text(encoding="utf-8") if before else "tokens:\n"
    text += "" if text.endswith("\n") else "\n"
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    mode = file.stat().st_mode & 0o777 if before else 0o600
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"{text}{entry}\n")
            stream.flush()
            os.fsync(descriptor)
        if not _reads_as(temporary, [*(known.name for known in before), drawn.name]):
            raise CommandError(
                "an entry cannot be added to the end of this file; it was left as it is",
                f"its `tokens:` must be its last key, one entry a line:\n{entry}",
            )
        temporary.replace(file)
    except OSError as error:
        raise CommandError(f"the token file cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _known(file: Path) -> list["TokenEntry"]:
    from serving.config.load import load_tokens

    return load_tokens(file).tokens


def _reads_as(file: Path, names: list[str]) -> bool:
    from serving.errors import InvalidConfig

    try:
        return [entry.name for entry in _known(file)] == names
    except InvalidConfig:
        return False
