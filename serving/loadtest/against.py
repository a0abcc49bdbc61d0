"""A run beside one before it: ratios, what chance may have done to them, what else differs."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from serving.errors import SluiceError
from serving.loadtest.report.document import (
    QUANTILES,
    Document,
    Figures,
    Latency,
    Part,
    figures,
    from_json,
)
from serving.loadtest.results import Against, Comparison, Result

__all__ = ["WHOLE", "NoBaseline", "compare", "read_baseline"]

WHOLE: Final = "whole run"
_MOST_BYTES: Final = 64 << 20
_SAME_LOAD: Final = 0.05
"""By which share length and requests may differ: Locust's runs do by some percent."""

_LIKELY: Final = 4.0
"""Standard deviations that two draws of one Poisson process do not differ by."""


class NoBaseline(SluiceError):
    """A file that is no report of a valid run."""


def read_baseline(path: Path) -> Document:
    """Read what `--json` wrote.

    Raises:
        NoBaseline: it cannot be read, is no report, or that run was no measurement.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise NoBaseline(f"{path} is larger than {_MOST_BYTES >> 20} MiB: no report of a run")
        found = from_json(path.read_bytes())
    except OSError as error:
        raise NoBaseline(f"{path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise NoBaseline(
            f"{path} is no report of a load test (--json writes one): {error}"
        ) from error
    if found.outcome == "invalid":
        raise NoBaseline(f"{path} is of a run that was no measurement: {'; '.join(found.invalid)}")
    return found


def compare(before: Document, now: Result, *, machine: Mapping[str, str]) -> Against:
    """Each figure of the whole run and of the phases that both have; `machine` is this one."""
    deadline = now.deadline is not None
    whole = Part(
        name=WHOLE,
        seconds=now.whole_seconds,
        figures=figures(now.whole, now.whole_seconds, deadline=deadline),
    )
    parts = {
        one.name: Part(
            name=one.name,
            seconds=one.seconds,
            figures=figures(one.counts, one.seconds, deadline=deadline),
        )
        for one in now.phases
        if not one.warmup
    }
    rows = list(_compared(WHOLE, before.whole, whole))
    for one in before.phases:
        if not one.warmup and one.name in parts:
            rows += _compared(one.name, one, parts[one.name])
    return Against(
        started=before.started, differences=list(_differences(before, now, machine)), figures=rows
    )


def _compared(place: str, before: Part, now: Part) -> Iterator[Comparison]:
    reason = _other_load(before, now)
    for name, _ in QUANTILES:
        yield _latency(place, name, before.figures.latency, now.figures.latency, reason)
    rates = (before.figures.ok_per_second, now.figures.ok_per_second)
    ratio = None if reason or not rates[0] or rates[1] is None else rates[1] / rates[0]
    yield Comparison(
        place=place,
        figure="throughput",
        before=rates[0],
        now=rates[1],
        ratio=ratio,
        reason="" if ratio is not None else reason or "nothing succeeded before",
    )
    for figure, of in (("error rate", "error_rate"), ("goodput", "goodput")):
        yield Comparison(
            place=place,
            figure=figure,
            before=_of(before.figures, of),
            now=_of(now.figures, of),
            reason="a share has no multiple",
        )


def _of(one: Figures, name: str) -> float | None:
    found: float | None = getattr(one, name)
    return found


def _latency(place: str, name: str, before: Latency, now: Latency, reason: str) -> Comparison:
    attribute = name.replace(".", "")
    old, new = getattr(before, attribute), getattr(now, attribute)
    if reason or not old or new is None:
        why = reason or "one of the runs has no latency"
        return Comparison(place=place, figure=name, before=old, now=new, reason=why)
    old_low, old_high = before.intervals.get(name, (None, None))
    new_low, new_high = now.intervals.get(name, (None, None))
    return Comparison(
        place=place,
        figure=name,
        before=old,
        now=new,
        ratio=new / old,
        low=new_low / old_high if new_low is not None and old_high else None,
        high=new_high / old_low if new_high is not None and old_low else None,
    )


def _other_load(before: Part, now: Part) -> str:
    """Why two phases are not comparable: another rate makes another latency."""
    old, new = before.figures.scheduled, now.figures.scheduled
    chance = _LIKELY * math.sqrt(old + new)
    if not math.isclose(before.seconds, now.seconds, rel_tol=_SAME_LOAD):
        return f"it was {before.seconds:.4g} s long before, and {now.seconds:.4g} s now"
    if abs(old - new) > max(_SAME_LOAD * max(old, new), chance):
        return f"it had {old} requests before, and {new} now"
    return ""


def _differences(before: Document, now: Result, machine: Mapping[str, str]) -> Iterator[str]:
    for name in ("scenario", "target", "protocol", "connections", "deadline"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            yield f"{name}: {_said(old)}, now {_said(new)}"
    old_kinds, new_kinds = ([one.name for one in run.kinds] for run in (before, now))
    if old_kinds != new_kinds:
        yield f"requests: {', '.join(old_kinds)}, now {', '.join(new_kinds)}"
    for old_facts, new_facts in (
        (before.labels, now.labels),
        (before.versions, now.versions),
        (before.machine, machine),
    ):
        for name in sorted({*old_facts, *new_facts}):
            old, new = old_facts.get(name), new_facts.get(name)
            if old != new:
                yield f"{name}: {_said(old)}, now {_said(new)}"


def _said(value: object) -> str:
    return "none" if value is None else str(value)
