"""`sluice infer MODEL`: ask a model, from the command line."""

from typing import TYPE_CHECKING, Any, Final

import click

from serving.cli.duration import read_duration
from serving.cli.output import CommandError, Output, output_options, plain_table
from serving.cli.where import Where, connection_options

if TYPE_CHECKING:
    from rich.console import Group

    from serving.cli.infer_call import Answer

__all__ = ["infer"]

_SHOWN: Final = 8


@click.command(short_help="Ask a model, from the command line.")
@click.argument("model")
@click.option("--entity", multiple=True, metavar="NAME=KEY", help="An entity's key, one per row.")
@click.option("--feature", multiple=True, metavar="NAME=VALUE", help="A feature, one per row.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=JSON", help="A whole tensor.")
@click.option(
    "--request",
    "file",
    type=click.File("rb"),
    metavar="FILE",
    help="A whole request as JSON; - reads standard input.",
)
@click.option("--version", default="", metavar="NAME", help="Ask this version.")
@click.option(
    "--deadline", callback=read_duration, metavar="TIME", help="Give up after this, such as 50ms."
)
@click.option("--grpc", "use_grpc", is_flag=True, help="Ask over gRPC.")
@click.option("--url", metavar="URL", help="The listener [default: the gateway on this machine].")
@connection_options
@output_options
def infer(
    model: str,
    *,
    entity: tuple[str, ...],
    feature: tuple[str, ...],
    inputs: tuple[str, ...],
    file: Any,
    version: str,
    deadline: float | None,
    use_grpc: bool,
    url: str | None,
    where: Where,
    output: Output,
) -> None:
    """Ask MODEL and print what it answers, which version did, in which role, and how fast.

    Datatypes come from the model's metadata. A name given again adds a row.

    \b
    Examples:
      sluice infer employment --request configs/demo/example-request.json
      sluice infer employment --request configs/demo/example-request.json --version v2 --grpc
      sluice infer employment --entity person_id=42 --deadline 50ms --json \\
          --input X='[[19, 19, 5, 17, 2, 0, 5, 1, 4, 1, 2, 2, 2, 2, 2, 6]]'
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli import infer_call
    from serving.cli.infer_inputs import build, pairs

    columns = {**pairs(entity, "--entity"), **pairs(feature, "--feature")}
    whole = pairs(inputs, "--input")
    if file is not None and (columns or whole):
        raise click.UsageError("--request is the whole request; leave the other values out")
    target = infer_call.find(where, "grpc" if use_grpc else "http", url)
    call: infer_call.Call = (infer_call.GrpcCall if use_grpc else infer_call.HttpCall)(target)
    try:
        request = file.read() if file is not None else None
        if request is None:
            request = build(call.inputs(model, version), columns, whole)
        answer = call.infer(model, version, request, deadline)
    finally:
        call.close()
    if not isinstance(answer.body.get("outputs"), list):
        raise CommandError("the answer is not one of this protocol")
    output.answer(answer.body, lambda: _shown(answer))


def _shown(answer: "Answer") -> "Group":
    from rich.console import Group
    from rich.text import Text

    body = answer.body
    parameters = body.get("parameters", {})
    facts = [
        body["model_name"],
        body.get("model_version", ""),
        str(parameters.get("model_role", "")),
        f"{answer.seconds * 1e3:.1f} ms",
    ]
    table = plain_table("output", "datatype", "shape", "values")
    for one in body["outputs"]:
        values = one["data"]
        shown = ", ".join(map(_value, values[:_SHOWN]))
        more = f", … ({len(values)} in all)" if len(values) > _SHOWN else ""
        table.add_row(one["name"], one["datatype"], str(one["shape"]), shown + more)
    others = [f"{name} {value}" for name, value in parameters.items() if name != "model_role"]
    return Group(
        Text(" · ".join(filter(None, facts))), table, Text(" · ".join(others), style="dim")
    )


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
