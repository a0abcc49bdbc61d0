"""A scenario file to a `Scenario`, with every mistake in it: file, line, key, what to do."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, get_args

import msgspec

from feature_cache.status import Status
from serving.config.decode import decode
from serving.config.problems import Path as KeyPath
from serving.config.problems import Problem, Sources, did_you_mean, in_file_order
from serving.errors import InvalidConfig
from serving.loadtest.answers import Expected, Limits
from serving.loadtest.scenario import Bounds, Multiples, Phase, Range, RequestKind, Scenario, Slo
from serving.loadtest.target import InvalidTarget, parse_target
from serving.traffic.table import TrafficRole

__all__ = ["expected", "override", "read_scenario", "scenario_of"]

_MAX_BYTES: Final = 1 << 20
_SHAPES: Final = ("rate", "ramp", "steps", "spike", "trace", "log")
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection"}
    | {"x-request-timeout", "grpc-timeout", "inference-header-content-length"}
)
_LATENCIES: Final = {
    **{name: name for name in ("p50", "p90", "p99", "max", "rejected_p99")},
    "p99.9": "p999",
}
_ROLES: Final = get_args(TrafficRole)
_FEATURE_WORDS: Final = (*Status.__members__, "SENT")
"""`SENT`: all of a view's fields came with the request (`serving.worker.features.summary`)."""

_Found = tuple[KeyPath, str, str]


def read_scenario(path: Path) -> Scenario:
    """Read and judge a file.

    Raises:
        InvalidConfig: it cannot be read or has mistakes; `problems` has all of them.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidConfig(f"{path} is larger than {_MAX_BYTES >> 20} MiB: no scenario")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path}: not a text file") from error
    return scenario_of(text, str(path), path.parent)


def scenario_of(text: str, file: str, folder: Path) -> Scenario:
    """Read and judge a scenario's text; `file` is what problems call it.

    Raises:
        InvalidConfig: it has mistakes; `problems` has all of them.
    """
    decoded = decode(text, file, Scenario)
    problems = list(decoded.problems)
    if decoded.value is not None:
        sources = Sources(decoded.locations)
        problems = [
            sources.problem(file, where, message, suggestion)
            for where, message, suggestion in _judge(decoded.value, folder)
        ]
    if problems:
        raise InvalidConfig(_summary(problems), tuple(in_file_order(problems)))
    scenario: Scenario = decoded.value
    return scenario


def override(
    scenario: Scenario, *, target: str | None, seconds: float | None, rate: float | None
) -> Scenario:
    """The scenario with another target, `seconds` for the whole run, `rate` at its highest.

    Phases become shorter or longer in proportion, warm-up too; so do their rates. A recorded
    load keeps its length and rates: its own options change them.
    """
    phases = list(scenario.phases)
    if seconds is not None:
        whole = sum(float(phase.length or 0) for phase in phases)
        if whole:
            phases = [_longer(phase, seconds / whole) for phase in phases]
            warmup = type(scenario.warmup)(scenario.warmup * min(seconds / whole, 1.0))
            scenario = msgspec.structs.replace(scenario, warmup=warmup)
    if rate is not None:
        highest = max((_highest(phase) for phase in phases), default=0.0)
        if highest:
            phases = [_faster(phase, rate / highest) for phase in phases]
    more = {"target": target} if target is not None else {}
    return msgspec.structs.replace(scenario, phases=phases, **more)


def expected(kind: RequestKind) -> Expected:
    """What the answers of a kind must be."""
    return Expected(
        model=kind.model,
        version=kind.version,
        rows=kind.expect.rows and bool(kind.entity),
        outputs={
            name: Limits(one.at_least, one.at_most) for name, one in kind.expect.outputs.items()
        },
    )


def _longer(phase: Phase, factor: float) -> Phase:
    if phase.length is None:
        return phase
    length = type(phase.length)(phase.length * factor)
    spike = phase.spike
    if spike is not None:
        at, lasts = (type(one)(one * factor) for one in (spike.at, spike.lasts))
        spike = msgspec.structs.replace(spike, at=at, lasts=lasts)
    return msgspec.structs.replace(phase, length=length, spike=spike)


def _highest(phase: Phase) -> float:
    if phase.rate is not None:
        return phase.rate
    if phase.spike is not None:
        return max(phase.spike.base, phase.spike.peak)
    change = phase.ramp or phase.steps
    return max(change.start, change.to) if change is not None else 0.0


def _faster(phase: Phase, factor: float) -> Phase:
    replace = msgspec.structs.replace
    if phase.rate is not None:
        return replace(phase, rate=phase.rate * factor)
    if phase.spike is not None:
        spike = phase.spike
        spike = replace(spike, base=spike.base * factor, peak=spike.peak * factor)
        return replace(phase, spike=spike)
    if phase.ramp is not None:
        ramp = phase.ramp
        return replace(phase, ramp=replace(ramp, start=ramp.start * factor, to=ramp.to * factor))
    if phase.steps is not None:
        steps = phase.steps
        steps = replace(steps, start=steps.start * factor, to=steps.to * factor)
        return replace(phase, steps=steps)
    return phase


# --- what the schema alone cannot see --------------------------------------------------------


def _judge(scenario: Scenario, folder: Path) -> Iterator[_Found]:
    try:
        parse_target(scenario.target)
    except InvalidTarget as error:
        yield ("target",), error.message, ""
    yield from _headers(("headers",), scenario.headers)
    yield from _requests(scenario, folder)
    yield from _phases(scenario, folder)
    for position, slo in enumerate(scenario.slos):
        yield from _slo(("slos", position), slo, scenario)
    length = sum(float(phase.length or 0) for phase in scenario.phases)
    recorded = any(phase.trace or phase.log for phase in scenario.phases)
    if not recorded and scenario.warmup >= length:
        yield ("warmup",), f"the whole run is {length:g} s long: nothing is left to measure", ""
    if all(phase.warmup for phase in scenario.phases):
        yield ("phases",), "all phases are warm-up: nothing is left to measure", ""


def _headers(where: KeyPath, headers: dict[str, str]) -> Iterator[_Found]:
    for name, value in headers.items():
        lower = name.lower()
        if not lower or not all(c.isalnum() or c in "-_." for c in lower) or not lower.isascii():
            yield (*where, name), "this is no name of a header", ""
        elif lower in _OURS:
            yield (*where, name), "this header is set by the load test itself", ""
        elif lower == "authorization":
            hint = "put the token into $SLUICE_TOKEN or a --token-file"
            yield (*where, name), "a credential does not belong in a scenario", hint
        if not value.isprintable() or not value.isascii():
            yield (*where, name), "a header holds printable ASCII only", ""


def _requests(scenario: Scenario, folder: Path) -> Iterator[_Found]:
    for position, kind in enumerate(scenario.requests):
        where: KeyPath = ("requests", position)
        yield from _headers((*where, "headers"), kind.headers)
        if bool(kind.entity) == bool(kind.body):
            yield where, "a request needs either `entity` or `body`", ""
        if kind.body and not (folder / kind.body).is_file():
            yield (*where, "body"), f"there is no file {kind.body}", "paths start at the scenario"
        for name, output in kind.expect.outputs.items():
            yield from _ordered((*where, "expect", "outputs", name), output)
        for name, entity in kind.entity.items():
            if entity.file and not (folder / entity.file).is_file():
                hint = "paths start at the scenario"
                yield (*where, "entity", name, "file"), f"there is no file {entity.file}", hint


def _phases(scenario: Scenario, folder: Path) -> Iterator[_Found]:
    seen: set[str] = set()
    models = {kind.model for kind in scenario.requests}
    for position, phase in enumerate(scenario.phases):
        where: KeyPath = ("phases", position)
        if phase.name in seen:
            yield (*where, "name"), f"there are two phases `{phase.name}`", ""
        seen.add(phase.name)
        shapes = [name for name in _SHAPES if getattr(phase, name) is not None]
        if len(shapes) != 1:
            found = " and ".join(f"`{name}`" for name in shapes) or "none"
            yield where, f"a phase needs exactly one of {', '.join(_SHAPES)}; found {found}", ""
        if phase.length is None and not phase.trace and not phase.log:
            yield where, "missing key `for` (a duration)", ""
        if phase.length is not None and phase.length <= 0:
            yield (*where, "for"), "a phase must be longer than 0", ""
        yield from _shape(where, phase, folder, models)


def _shape(where: KeyPath, phase: Phase, folder: Path, models: set[str]) -> Iterator[_Found]:
    spike = phase.spike
    if spike is not None and phase.length is not None and spike.at + spike.lasts > phase.length:
        yield (*where, "spike"), f"the spike ends after the phase ({phase.length})", ""
    if phase.trace is not None and not (folder / phase.trace.file).is_file():
        yield (*where, "trace", "file"), f"there is no file {phase.trace.file}", ""
    if phase.log is not None:
        if not (folder / phase.log.folder).is_dir():
            message = f"there is no folder {phase.log.folder}"
            yield (*where, "log", "folder"), message, "it is `predictions` in the data directory"
        if phase.log.model not in models:
            message = f"no kind of request asks `{phase.log.model}`"
            yield (*where, "log", "model"), message, did_you_mean(phase.log.model, models)


def _slo(where: KeyPath, slo: Slo, scenario: Scenario) -> Iterator[_Found]:
    """An SLO must name something that this scenario measures."""
    phases = {phase.name for phase in scenario.phases}
    if slo.phase and slo.phase not in phases:
        hint = did_you_mean(slo.phase, phases)
        yield (*where, "phase"), f"there is no phase `{slo.phase}`", hint
    if slo.phase and any(phase.warmup for phase in scenario.phases if phase.name == slo.phase):
        yield (*where, "phase"), f"`{slo.phase}` is warm-up, which counts for no SLO", ""
    yield from _limits(where, slo, scenario)
    for key in ("goodput", "goodput_rps"):
        if getattr(slo, key) is not None and scenario.deadline is None:
            message = "goodput is measured against `deadline`, which this scenario does not set"
            yield (*where, key), message, ""
    tables = ("versions", "roles", "feature_status")
    for table in tables:
        for name, bounds in getattr(slo, table).items():
            if bounds.at_least is None and bounds.at_most is None:
                yield (*where, table, name), "expected `at_least`, `at_most` or both", ""
            yield from _ordered((*where, table, name), bounds)
    yield from _known((*where, "roles"), slo.roles, _ROLES)
    yield from _known((*where, "feature_status"), slo.feature_status, _FEATURE_WORDS)
    if slo.against is not None and slo.against == Multiples():
        hint = "such as `{p99: 1.2, throughput: 0.95}`"
        yield (*where, "against"), "bounds that bound nothing", hint
    if slo == Slo(phase=slo.phase):
        yield where, "an SLO that asks for nothing", "such as `p99: 50ms` or `error_rate: 0.01`"


def _ordered(where: KeyPath, bounds: Bounds | Range) -> Iterator[_Found]:
    low, high = bounds.at_least, bounds.at_most
    if low is not None and high is not None and low > high:
        yield where, f"nothing is at least {low:g} and at most {high:g}", ""


def _known(where: KeyPath, named: Iterable[str], words: Sequence[str]) -> Iterator[_Found]:
    """What no answer can ever say would always have a share of 0."""
    for name in named:
        if name not in words:
            yield (*where, name), f"no answer says `{name}`", did_you_mean(name, words)


def _limits(where: KeyPath, slo: Slo, scenario: Scenario) -> Iterator[_Found]:
    """A limit that silence would keep is none."""
    for key, attribute in _LATENCIES.items():
        limit = getattr(slo, attribute)
        if limit is not None and limit >= scenario.timeout:
            message = f"requests without an answer count with `timeout` ({scenario.timeout})"
            yield (*where, key), message, "a limit must be below it to notice them"


def _summary(problems: list[Problem]) -> str:
    more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"
