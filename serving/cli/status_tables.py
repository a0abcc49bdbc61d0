"""`sluice status` for people: a head, the processes, the models."""

import time
from collections.abc import Iterable
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.cli.output import plain_table
from serving.cli.overview import Overview
from serving.cli.roll import progress_line
from serving.cli.rollout.words import glance, is_over
from serving.cli.span import age
from serving.config.keys import node_name
from serving.control.admin.answers import ModelStatus, Status, VersionStatus, WorkerStatus
from serving.drift.verdict import LEVELS
from serving.engine.inspection import ProcessStatus
from serving.engine.report import EngineReport
from serving.rollout.standing import RolloutStanding

__all__ = ["memory", "render"]

_COLOURS: Final = {
    "ready": "green",
    "starting": "yellow",
    "loading": "yellow",
    "draining": "yellow",
    "backing_off": "red",
    "unhealthy": "red",
    "silent": "red",
    "inform": "cyan",
    "alert": "yellow",
    "trigger": "red",
    "paused": "yellow",
    "awaiting_approval": "yellow",
    "aborting": "red",
}
_NOTHING: Final = "–"


def render(overview: Overview) -> RenderableType:
    """Everything there is to see, most general first."""
    control, now = overview.control, time.time()
    parts: list[RenderableType] = []
    if overview.engine is not None:
        table = _processes(overview.processes, now, ray=overview.engine.engine == "ray")
        parts += [_engine_head(overview.engine, now), "", table]
    elif control is not None:
        parts.append(_workers(control.workers))
    parts.append("")
    if control is None:
        parts.append(Text(overview.control_problem, style="red"))
    else:
        parts += [_revision_line(control, now), "", _models(control)]
    return Group(*parts)


def memory(size: int | None) -> str:
    """Bytes in MiB."""
    return _NOTHING if size is None else f"{size / (1 << 20):.0f} MiB"


def _engine_head(engine: EngineReport, now: float) -> Text:
    addresses = engine.addresses
    return Text(
        f"engine {engine.engine}, pid {engine.pid}, up {age(now - engine.started_at)}, "
        f"serving {engine.configuration}\n"
        f"http {addresses.http}   grpc {addresses.grpc}   admin {addresses.admin}"
    )


def _processes(processes: Iterable[ProcessStatus], now: float, *, ray: bool) -> Table:
    table = plain_table(
        *("process", "pid", "state", "for", "revision", "in flight", "busy", "memory"),
        *(("node", "replica", "restarts") if ray else ("restarts",)),
    )
    table.columns[0].no_wrap = True
    node = node_name()
    for process in processes:
        word = process.state
        if process.state == "ready" and process.says not in {"", "ready"}:
            word = process.says
        table.add_row(
            process.serves or process.name,
            _or_nothing(process.pid),
            _state(word),
            age(now - process.since),
            _or_nothing(process.revision),
            _or_nothing(process.in_flight),
            _share(process.busy),
            memory(process.resident_bytes),
            *((node, process.replica or _NOTHING) if ray else ()),
            _restarts(process),
        )
    return table


def _restarts(process: ProcessStatus) -> str:
    return f"{process.restarts} (last: {process.last_exit})" if process.last_exit else "0"


def _share(busy: float | None) -> str:
    return _NOTHING if busy is None else f"{busy:.0%}"


def _workers(workers: Iterable[WorkerStatus]) -> Table:
    table = plain_table("worker", "node", "pid", "state", "revision", "in flight", "busy", "memory")
    for worker in workers:
        table.add_row(
            worker.worker,
            worker.node,
            str(worker.pid),
            _state(worker.state),
            str(worker.revision),
            str(worker.in_flight),
            _share(worker.busy),
            memory(worker.resident_bytes),
        )
    return table


def _revision_line(control: Status, now: float) -> Text:
    if control.revision == 0:
        line = Text("nothing has been published yet")
    else:
        published = age(now - control.published_at)
        line = Text(f"revision {control.revision} by {control.author}, {published} ago")
        if control.origin is not None:
            line.append(f"\nfrom {control.origin}")
    if not control.store.up:
        line.append("\nthe store does not answer", style="red")
    if control.problem:
        line.append(
            f"\nthe configuration directory is not what is served: {control.problem}", "red"
        )
    if control.roll.failed:
        line.append(f"\nthe workers were not replaced: {control.roll.failed}", "red")
    elif not control.roll.done:
        line.append(f"\nreplacing: {progress_line(control.roll)}", "yellow")
    for worker in control.workers:
        if worker.refused_revision > worker.revision:
            line.append(
                f"\n{worker.worker} refused revision {worker.refused_revision}: "
                f"{worker.refused_reason}",
                "red",
            )
    _add_rollouts(line, control.rollouts)
    for one in control.quarantined:
        line.append(
            f"\n{one.model}/{one.version} is quarantined for {age(now - one.since)}: {one.reason}; "
            f"`sluice quarantine lift {one.model} {one.version}` lets it back",
            "red",
        )
    return line


def _add_rollouts(line: Text, rollouts: Iterable[RolloutStanding]) -> None:
    for one in rollouts:
        if not is_over(one):
            line.append(f"\nrollout of {glance(one)}", _COLOURS.get(one.phase, ""))


def _models(control: Status) -> Table:
    watched = ("drift",) if control.drift else ()
    table = plain_table("model", "version", "role", "ready", "requests/s", "failed/s", *watched)
    anybody = any(worker.state == "ready" for worker in control.workers)
    kept_out = {(one.model, one.version) for one in control.quarantined}
    for model in control.models:
        for version in model.versions:
            rates = [
                rate
                for rate in control.rates
                if (rate.model, rate.version) == (model.model, version.version)
            ]
            table.add_row(
                model.model,
                version.version,
                _roles(version),
                Text("quarantined", style="red")
                if model.loaded and (model.model, version.version) in kept_out
                else _readiness(model, version, anybody=anybody),
                f"{sum(rate.requests_per_second for rate in rates):.1f}",
                f"{sum(rate.failed_per_second for rate in rates):.1f}",
                *([_drift(control, model, version)] if watched else ()),
            )
    return table


def _drift(control: Status, model: ModelStatus, version: VersionStatus) -> Text:
    """The gravest verdict of a version, and in which role if it has several."""
    found = [
        (LEVELS.index(one.level), one)
        for one in control.drift
        if (one.model, one.version) == (model.model, version.version)
    ]
    if not found:
        return Text(_NOTHING)
    _, worst = max(found, key=lambda pair: pair[0])
    role = f" ({worst.role})" if len(found) > 1 else ""
    return Text(f"{worst.level}{role}", style=_COLOURS.get(worst.level, ""))


def _roles(version: VersionStatus) -> str:
    return ", ".join(f"{share.role} {share.percent:g} %" for share in version.roles) or _NOTHING


def _readiness(model: ModelStatus, version: VersionStatus, *, anybody: bool) -> Text:
    if not model.loaded:
        return Text("unloaded", style="yellow")
    if version.not_ready:
        reasons = ", ".join(f"{worker}: {why}" for worker, why in version.not_ready.items())
        return Text(f"no ({reasons})", style="red")
    return Text("yes", style="green") if anybody else Text("no (no worker is ready)", style="red")


def _state(word: str) -> Text:
    return Text(word.replace("_", " "), style=_COLOURS.get(word, ""))


def _or_nothing(value: object | None) -> str:
    return _NOTHING if value is None else str(value)
