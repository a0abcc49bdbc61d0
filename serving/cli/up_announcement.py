"""What `sluice up` says once the gateway answers: where everything is, and how to try it."""

import os
from typing import TYPE_CHECKING

import click
import msgspec

from serving.cli.example_request import EXAMPLE_FILE, body_from_snapshot, curl_line
from serving.cli.output import Output
from serving.config.addresses import listener_parts, parse_address
from serving.config.schema import GatewayConfig, Listener
from serving.engine.ports import reachable, written

if TYPE_CHECKING:
    from serving.engine.stages import Engine

__all__ = ["Started", "announce"]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice up --json` prints, on one line, once the gateway answers."""

    http: str
    grpc: str
    admin: str
    pid: int
    data: str
    admin_token_file: str


def announce(
    engine: "Engine",
    gateway: GatewayConfig,
    models: list[str],
    output: Output,
    seconds: float,
) -> None:
    """Say where everything is, and how to try it."""
    options, addresses = engine.options, engine.addresses
    token_file = options.data / "admin.token"
    if output.json:
        started = Started(
            http=addresses.http,
            grpc=addresses.grpc,
            admin=addresses.admin,
            pid=os.getpid(),
            data=str(options.data),
            admin_token_file=str(token_file),
        )
        click.echo(msgspec.json.encode(started))
        return
    listen = gateway.listen
    workers = f"{options.workers} worker{'s' if options.workers != 1 else ''}"
    output.say(f"\nSluice is up: {workers}, {seconds:.1f} s\n")
    output.say(f"  HTTP   {_url(addresses.http, listen.http)}")
    output.say(f"  gRPC   {addresses.grpc}{' (TLS)' if listener_parts(listen.grpc)[1] else ''}")
    output.say(f"  admin  {_url(addresses.admin, listen.admin)}")
    output.say(f"         verbs that change something need the token in {token_file}")
    if models and (line := _example(engine, gateway, models[0])):
        output.say(f"\nTry it:\n\n  {line}")
    output.say("\nCtrl-C stops everything.")


def _url(address: str, listener: str | Listener) -> str:
    scheme = "https" if listener_parts(listener)[1] else "http"
    return f"{scheme}://{written(reachable(parse_address(address)))}"


def _example(engine: "Engine", gateway: GatewayConfig, model: str) -> str | None:
    configuration = engine.options.configuration
    file = configuration / EXAMPLE_FILE
    body = f"@{file}" if file.is_file() else body_from_snapshot(engine.options.data, model)
    if body is None:
        return None
    return curl_line(
        http=parse_address(engine.addresses.http),
        gateway=gateway,
        configuration=configuration,
        model=model,
        body=body,
    )
