"""`sluice loadtest --model M`: a scenario from options, for who has no file yet."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from serving.cli.duration import read_duration
from serving.cli.output import CommandError, Unreachable
from serving.cli.where import Where

if TYPE_CHECKING:
    from serving.loadtest.quick import Keys

__all__ = ["NOBODY", "Wanted", "here", "quick_options", "quick_text"]

_Callback = TypeVar("_Callback", bound=Callable[..., Any])
_ROWS: Final = "1"

NOBODY: Final = "`sluice up DIR` starts a gateway; --target asks one elsewhere"
"""What to try if nobody listens."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say of a scenario that is no file."""

    model: str | None = None
    entity: tuple[str, ...] = ()
    body: Path | None = None
    rows: str | None = None
    connections: int | None = None
    deadline: float | None = None
    slos: tuple[str, ...] = ()
    printed: bool = False

    @property
    def given(self) -> bool:
        """Whether any of them was."""
        return self != Wanted()


def quick_options(callback: _Callback) -> _Callback:
    """Add the options that stand for a scenario, and pass them as the keyword `wanted`."""

    @click.option("--model", metavar="NAME", help="Without SCENARIO: the model asked.")
    @click.option(
        "--entity",
        multiple=True,
        metavar="NAME=FIRST..LAST",
        help="Its entity's keys, popular by Zipf [default: the model's own, 1..1000].",
    )
    @click.option(
        "--body",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Instead of keys: a whole request in JSON, sent each time.",
    )
    @click.option("--rows", metavar="N,N,…", help="Rows of a request, one drawn each time [1].")
    @click.option("--connections", type=click.IntRange(1, 10_000), help="Open at once [16].")
    @click.option(
        "--deadline", callback=read_duration, metavar="TIME", help="Of each request, such as 100ms."
    )
    @click.option(
        "--slo",
        "slos",
        multiple=True,
        metavar="NAME=LIMIT",
        help="What must hold: p99=50ms, error_rate=0.001, goodput=0.99, …",
    )
    @click.option(
        "--print", "printed", is_flag=True, help="Print the scenario as a file; send nothing."
    )
    @functools.wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        wanted = Wanted(**{name: kwargs.pop(name) for name in Wanted.__struct_fields__})
        return callback(*args, wanted=wanted, **kwargs)

    return wrapped  # type: ignore[return-value]


def here(where: Where) -> tuple[str, Where]:
    """The HTTP listener of the gateway on this machine, and how it is spoken to."""
    from serving.cli import infer_call

    found = infer_call.find(where, "http", None)
    if found.tls is None:
        return f"http://{found.address}", where
    return f"https://{found.address}", msgspec.structs.replace(where, tls=found.tls)


def quick_text(
    wanted: Wanted, where: Where, *, target: str, seconds: float | None, rate: float | None
) -> str:
    """The scenario file that the options stand for.

    Without `--entity` and `--body` the target is asked what the model takes.

    Raises:
        click.UsageError: an option is no such thing.
        CommandError, Unreachable: the target cannot say what the model takes.
    """
    from serving.config.units import Seconds
    from serving.loadtest.quick import Quick, scenario_text

    if wanted.model is None:
        raise click.UsageError("--model says which model is asked, if there is no SCENARIO")
    if wanted.body is not None and (wanted.entity or wanted.rows):
        raise click.UsageError("--body is the whole request; leave --entity and --rows out")
    quick = Quick(
        target=target,
        model=wanted.model,
        entity={} if wanted.body else _entity(wanted, where, target),
        body=str(wanted.body or ""),
        rows=_rows(wanted.rows or _ROWS),
        deadline="" if wanted.deadline is None else str(Seconds(wanted.deadline)),
        slos=[_slo(text) for text in wanted.slos],
    )
    more = {"seconds": seconds, "rate": rate, "connections": wanted.connections}
    given = {name: value for name, value in more.items() if value is not None}
    return scenario_text(msgspec.structs.replace(quick, **given))


def _entity(wanted: Wanted, where: Where, target: str) -> "dict[str, Keys]":
    from serving.loadtest.quick import Keys, NoEntity, entity_of, keys_of

    found: dict[str, Keys] = {}
    for text in wanted.entity:
        name, equals, span = text.partition("=")
        if not equals or not name:
            hint = "expected NAME=FIRST..LAST, such as person_id=1..1000"
            raise click.UsageError(f"--entity {text}: {hint}")
        try:
            found[name] = keys_of(span)
        except ValueError as error:
            raise click.UsageError(f"--entity {text}: {error}") from error
    if found:
        return found
    assert wanted.model is not None
    try:
        name, datatype = entity_of(wanted.model, _declared(wanted.model, where, target))
    except NoEntity as error:
        hint = "--body FILE sends a request of your own"
        raise CommandError(error.message, hint=hint) from error
    return {name: Keys(datatype=datatype)}


def _declared(model: str, where: Where, target: str) -> Any:
    from serving.cli import infer_call
    from serving.loadtest.target import InvalidTarget, parse_target

    try:
        grpc = parse_target(target).grpc
    except InvalidTarget as error:
        raise click.UsageError(error.message) from error
    one = infer_call.find(where, "http", target)
    call: infer_call.Call = (infer_call.GrpcCall if grpc else infer_call.HttpCall)(one)
    try:
        return call.inputs(model, "")
    except Unreachable as error:
        hint = one.tls.hint(error.message, NOBODY) if one.tls is not None else NOBODY
        raise Unreachable(error.message, hint=hint) from error
    finally:
        call.close()


def _rows(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.UsageError(f"--rows {text}: expected numbers of rows, such as 1,2,8")
    return [int(part) for part in parts]


def _slo(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value or "\n" in text:
        raise click.UsageError(f"--slo {text}: expected NAME=LIMIT, such as p99=50ms")
    return key.strip(), value.strip()
