"""The soak test's report: a table, a plot in characters, a CSV, and the verdict. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import bench_report
import msgspec
from soak_verdict import Growth, Leak, Sample, growths, leaks, lost

if TYPE_CHECKING:
    from soak import Seen

__all__ = ["Verdict", "csv", "left_behind", "progress", "report", "verdict"]

STORE: Final = "store"
_BARS: Final = "▁▂▃▄▅▆▇█"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How each process grew, what leaks, and why that is not good; no reasons: it is."""

    growths: list[Growth]
    leaks: list[Leak]
    reasons: list[str]


def verdict(
    samples: Sequence[Sample], wrong: int, problems: Sequence[str], bound: float
) -> Verdict:
    """Judge a run. The store is shown and not judged: it keeps what it is given."""
    reasons = list(problems)
    if wrong:
        reasons.append(f"{wrong:,} requests were answered wrongly or not at all")
    phases = {one.phase for one in samples}
    if not {"warm-up", "plain", "busy"} <= phases:
        reasons.append("there is no sample of each phase: nothing can be said of growth")
        return Verdict(growths=[], leaks=[], reasons=reasons)
    grown = growths(samples)
    reasons += [f"{name} was not there all the time" for name in lost(samples)]
    reasons += [
        f"{one.process} has grown by {one.share:.1%}, more than {bound:.1%}: "
        f"{_mib(one.warm)} MiB when it was warm, {_mib(one.end)} MiB at the end"
        for one in grown
        if one.process != STORE and one.share > bound
    ]
    return Verdict(growths=grown, leaks=leaks(samples), reasons=reasons)


def progress(samples: Sequence[Sample]) -> str:
    """One line about the last sample."""
    last = samples[-1]
    sizes = ", ".join(f"{name} {_mib(held.rss)}" for name, held in last.held.items())
    return (
        f"{last.seconds:6.0f} s  {last.phase:7}  {last.requests:>9,} requests, {last.changes:>3} "
        f"changes, {last.loads:>2} loads  resident MiB: {sizes}"
    )


def report(seen: "Seen", judged: Verdict) -> str:
    """Everything for people."""
    last = seen.samples[-1]
    asked = (
        f"{last.requests:,} requests over {seen.connections:,} connections in {last.seconds:.0f} s "
        f"(the warm-up included); {seen.spans:,} spans"
    )
    head = f"{'process':12} {'warm MiB':>9} {'end MiB':>9} {'growth':>7} {'PSS MiB':>8}  resident, "
    lines = [
        bench_report.describe(bench_report.machine()),
        asked,
        "answered: " + _listed(seen.answered),
        "changed: " + _listed(seen.changed),
        "",
        head + "from the first sample to the last",
    ]
    for one in judged.growths:
        course = [sample.held[one.process].rss for sample in seen.samples]
        lines.append(
            f"{one.process:12} {_mib(one.warm):>9} {_mib(one.end):>9} {one.share:>+7.1%} "
            f"{_mib(last.held[one.process].pss):>8}  {_plot(course)}"
        )
    named = ("blocks/request", "bytes/request", "blocks/change", "bytes/change")
    lines += ["", "{:12} {:>15} {:>14} {:>14} {:>13}".format("left behind", *named)]
    lines += [left_behind(one) for one in judged.leaks]
    lines.append("")
    lines += [f"NOT GOOD: {reason}" for reason in judged.reasons] or ["good: nothing has grown"]
    return "\n".join(lines)


def left_behind(one: Leak) -> str:
    """One process's line of the lower table."""
    return (
        f"{one.process:12} {one.blocks_per_request:>15.4f} {one.bytes_per_request:>14.2f} "
        f"{one.blocks_per_change:>14.1f} {one.bytes_per_change:>13,.0f}"
    )


def csv(samples: Sequence[Sample]) -> str:
    """A line a sample and process."""
    lines = ["seconds,phase,requests,changes,loads,process,rss,pss,blocks,heap,free"]
    lines += [
        f"{one.seconds:.1f},{one.phase},{one.requests},{one.changes},{one.loads},{name},"
        f"{held.rss},{held.pss},{held.blocks},{held.heap},{held.free}"
        for one in samples
        for name, held in one.held.items()
    ]
    return "\n".join(lines) + "\n"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f}"


def _plot(course: Sequence[int]) -> str:
    """Heights between the least and the most, at most 60 of them."""
    step = max(1, -(-len(course) // 60))
    kept = course[::step]
    low, high = min(kept), max(kept)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0
    bars = "".join(_BARS[round((one - low) * scale)] for one in kept)
    return f"{bars}  {_mib(low)} to {_mib(high)}"
