"""The benchmark's figures: what one run measured, ratios over rounds, and how they are printed."""

import os
import platform
import statistics
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["HEADER", "Run", "describe", "machine", "ratios", "row"]

# The packages whose versions move the figures.
PACKAGES: Final = (
    "onnxruntime", "uvloop", "httptools", "orjson", "numpy", "pygrpc-native", "grpcio",
)  # fmt: skip


class Run(msgspec.Struct):
    """One measurement. `cpu_us` is the whole tree's, `by_process_us` its parts; per request."""

    server: str
    protocol: str
    requests: int
    cpu_us: float
    by_process_us: dict[str, float]
    requests_per_second: float
    p50_us: float
    p99_us: float
    busiest_us: float = 0.0
    """Of the worker that used most: what limits how many requests all of them can answer."""


HEADER: Final = (
    f"{'round':5}  {'server':8}{'protocol':8}  {'CPU µs/request':>14}  {'requests/s':>10}"
    f"  {'p50 µs':>7}  {'p99 µs':>7}  CPU µs by process"
)


def row(number: int, run: Run) -> str:
    """One line under `HEADER`."""
    parts = ", ".join(f"{role} {used:.1f}" for role, used in sorted(run.by_process_us.items()))
    return (
        f"{number:5}  {run.server:8}{run.protocol:8}  {run.cpu_us:14.1f}"
        f"  {run.requests_per_second:10,.0f}  {run.p50_us:7.0f}  {run.p99_us:7.0f}  {parts}"
    )


def ratios(rounds: list[list[Run]]) -> dict[str, dict[str, float]]:
    """CPU of the gateway over CPU of the floor in the same round: median, least, most.

    `tree` counts all of the gateway's processes, `worker` those that answer.
    """
    found: dict[str, dict[str, float]] = {}
    for runs in zip(*(each[1:] for each in rounds), strict=True):
        floors = [each[0].cpu_us for each in rounds]
        for part, used in (
            ("tree", [run.cpu_us for run in runs]),
            ("worker", [run.by_process_us.get("worker", 0.0) for run in runs]),
        ):
            each = [own / floor for own, floor in zip(used, floors, strict=True)]
            found[f"{runs[0].protocol} {part}"] = {
                "median": statistics.median(each),
                "least": min(each),
                "most": max(each),
            }
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    native = find_spec("pygrpc_native") is not None
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES if native or name != "pygrpc-native"},
    }


def describe(about: dict[str, Any]) -> str:
    """Two lines that go above any figure."""
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    return (
        f"{about['date']}, {about['cores']} × {about['cpu']}, Linux {about['kernel']}\n"
        f"Python {about['python']}, {packages}"
    )
