"""`sluice up DIR`: start everything on this machine and keep it running."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click
import msgspec

from serving.cli.duration import read_duration
from serving.cli.output import Output, output_options
from serving.config.addresses import listener_parts
from serving.config.schema import EngineConfig, GatewayConfig

if TYPE_CHECKING:
    from serving.engine.log_lines import LineSink
    from serving.engine.programs import Options, Programs
    from serving.engine.seeding import Seeding
    from serving.engine.stages import Engine

__all__ = ["run", "up"]

_DRAIN_GRACE_SECONDS: Final = 2.0
_REMIND_SECONDS: Final = 20.0
_WATCH_WAIT_SECONDS: Final = 10.0


@click.command(short_help="Start the store, the workers and the control process.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    help="Who supervises the processes [default: what gateway.yaml says].",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Data-plane processes [default: what gateway.yaml says].",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where state is kept [default: DIR/.sluice].",
)
@click.option(
    "--insecure-bind",
    is_flag=True,
    help="Listen beyond this machine although TLS or tokens are missing.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Apply each change in DIR that passes `check`, once its files stand still.",
)
@click.option(
    "--patience",
    callback=read_duration,
    metavar="TIME",
    default="5m",
    show_default=True,
    help="Give up if not everything is ready by then.",
)
@output_options
def up(
    directory: Path,
    *,
    engine: Literal["local", "ray"] | None,
    workers: int | None,
    data: Path | None,
    insecure_bind: bool,
    watch: bool,
    patience: float,
    output: Output,
) -> None:
    """Start the gateway that DIR configures, and keep it running until Ctrl-C.

    Starts the store, the control process and the workers on this machine, shows when each is
    ready, and prints where they listen. Processes that die are started again. Log lines go to
    standard error. Exits with 1 if the configuration has mistakes, if a process keeps dying or
    every worker refuses a model, and if not everything is ready in time; nothing is left running.

    With `--watch` a change in DIR is applied as `sluice apply DIR --watch` would.

    \b
    Examples:
      sluice up configs/demo
      sluice up configs/demo --workers 2
      sluice up configs/demo --engine ray
      sluice up configs/demo --watch
      sluice up configs/demo --json > addresses.json     for a script
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    run(
        directory,
        engine=engine,
        workers=workers,
        data=data,
        insecure_bind=insecure_bind,
        watch=watch,
        patience=patience,
        output=output,
    )


def run(
    directory: Path,
    *,
    output: Output,
    engine: Literal["local", "ray"] | None = None,
    workers: int | None = None,
    data: Path | None = None,
    insecure_bind: bool = False,
    watch: bool = False,
    patience: float = 300.0,
    programs: "Programs | None" = None,
) -> None:
    """Check the configuration, then run an engine until a signal ends it.

    Raises:
        InvalidConfig: The configuration has mistakes.
        EngineError: A port or the data directory is taken, a process does not start, or not
            everything is ready after `patience` seconds.
    """
    from serving.cli import up_announcement
    from serving.config.check import require_valid

    started = time.monotonic()
    loaded, warnings = require_valid(directory, insecure=insecure_bind)
    for warning in warnings:
        output.note(str(warning))
    gateway = loaded.configuration.gateway
    config = _engine_config(gateway.engine, engine, workers)
    options = _options(directory, gateway, config, data=data, insecure=insecure_bind)
    models = list(loaded.configuration.models)

    def build(lines: "LineSink", changed: Callable[[], None]) -> "Engine":
        return _build(config, options, programs, lines, changed)

    def announce(running: "Engine") -> None:
        up_announcement.announce(running, gateway, models, output, time.monotonic() - started)

    seeds = sum(view.seed is not None for view in loaded.configuration.views.values())
    asyncio.run(
        _until_stopped(options, build, announce, output, patience, seeds=seeds, watch=watch)
    )


def _options(
    directory: Path,
    gateway: GatewayConfig,
    engine: EngineConfig,
    *,
    data: Path | None,
    insecure: bool,
) -> "Options":
    from serving.engine.programs import Options

    listen = gateway.listen
    return Options(
        configuration=directory,
        data=data if data is not None else directory / ".sluice",
        workers=_always_running(engine),
        http=listener_parts(listen.http)[0],
        grpc=listener_parts(listen.grpc)[0],
        admin=listener_parts(listen.admin)[0],
        store=gateway.store,
        insecure_bind=insecure,
        drain_seconds=gateway.limits.drain_timeout + _DRAIN_GRACE_SECONDS,
    )


def _engine_config(
    engine: EngineConfig, kind: Literal["local", "ray"] | None, workers: int | None
) -> EngineConfig:
    """What the file says, except where the command line says otherwise."""
    if kind is not None:
        engine = msgspec.structs.replace(engine, kind=kind)
    return engine if workers is None else msgspec.structs.replace(engine, workers=workers)


def _build(
    config: EngineConfig,
    options: "Options",
    programs: "Programs | None",
    lines: "LineSink",
    changed: Callable[[], None],
) -> "Engine":
    if config.kind == "ray":
        from serving.engine.ray_serve.engine import RayEngine

        return RayEngine(options, config, lines=lines, on_change=changed)
    from serving.engine.local import LocalEngine

    return LocalEngine(options, lines=lines, programs=programs, on_change=changed)


def _always_running(engine: EngineConfig) -> int:
    return engine.workers if isinstance(engine.workers, int) else engine.workers.min


async def _until_stopped(
    options: "Options",
    build: Callable[["LineSink", Callable[[], None]], "Engine"],
    announce: Callable[["Engine"], None],
    output: Output,
    patience: float,
    *,
    seeds: int,
    watch: bool,
) -> None:
    from serving.cli.progress import progress_for, stages
    from serving.engine.log_lines import LineQueue
    from serving.engine.seeding import Seeding

    lines = LineQueue()
    progress = progress_for(silent=output.json)
    seeding: Seeding | None = None

    def changed() -> None:
        progress.update(stages(engine, seeding))

    engine = build(lines, changed)
    if seeds:
        seeding = Seeding(options.configuration, seeds, lines=lines, on_change=changed)
    stop = _stop_on_signals(engine, output)
    try:
        await engine.start()
        try:
            with progress:
                ready = await _unless(stop, _until_ready(engine, seeding, lines, patience))
            if ready:
                announce(engine)
                beside = _watching(options, lines) if watch else None
                await _unless(stop, _until_broken(engine, beside))
        finally:
            await engine.stop()
    finally:
        await asyncio.to_thread(lines.close)


async def _until_broken(engine: "Engine", beside: Coroutine[None, None, None] | None) -> None:
    from serving.tasks import end

    work = [asyncio.create_task(one) for one in (engine.until_broken(), beside) if one is not None]
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end(*work)


async def _watching(options: "Options", lines: "LineSink") -> None:
    """Apply each change in the configuration directory; never returns."""
    from serving.cli.watching import Watcher, keep_looking, through_control
    from serving.cli.where import Where
    from serving.clock import SystemClock

    def say(words: str, wrong: bool) -> None:
        del wrong
        for line in words.splitlines():
            lines("watch", line)

    where = Where(data=options.data)
    apply = through_control(options.configuration, where, reason="watch", wait=_WATCH_WAIT_SECONDS)
    await keep_looking(Watcher(options.configuration, apply, say, SystemClock()))


def _stop_on_signals(engine: "Engine", output: Output) -> asyncio.Event:
    """The first signal asks for a drain, the second one kills."""
    stop = asyncio.Event()

    def heard() -> None:
        if stop.is_set():
            engine.kill()
        else:
            stop.set()
            output.note("stopping: requests in flight are finished first (Ctrl-C again to kill)")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, heard)
    return stop


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do `work` unless `stop` comes first; whether it was done. Raises what `work` raises."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait({working, stopping})


async def _until_ready(
    engine: "Engine", seeding: "Seeding | None", lines: "LineSink", patience: float
) -> None:
    """Wait, say after a while what for, and raise EngineError when patience is at its end."""
    from serving.errors import EngineError
    from serving.tasks import end

    reminder = asyncio.create_task(_remind(engine, seeding, lines))
    loading = asyncio.create_task(seeding.run(engine.store_url)) if seeding is not None else None
    try:
        async with asyncio.timeout(patience):
            await engine.until_ready()
            if loading is not None:
                await loading
    except TimeoutError as error:
        waiting = await _still_waiting(engine, seeding)
        raise EngineError(f"not ready after {patience:g} s; {waiting}") from error
    finally:
        await end(reminder, *([loading] if loading is not None else []))


async def _remind(engine: "Engine", seeding: "Seeding | None", lines: "LineSink") -> None:
    await asyncio.sleep(_REMIND_SECONDS)
    more = "`sluice status` in another terminal says more"
    lines("engine", f"{await _still_waiting(engine, seeding)}. {more}")


async def _still_waiting(engine: "Engine", seeding: "Seeding | None") -> str:
    from serving.cli.progress import stages

    missing = ", ".join(
        f"{stage.name} ({stage.text})" for stage in stages(engine, seeding) if not stage.done
    )
    reason = await engine.waits_for()
    return f"still waiting for: {missing}{'; ' if reason else ''}{reason}"
