"""Handmade figures of a comparison of servers, and the modules that make real ones."""

from typing import Any

import msgspec
import script_kit


def sample(number: int, cpu_us: float, floor_us: float = 100.0, **fields: Any) -> Any:
    """One row in one round; `p99` is at 1,000 requests a second."""
    figures = script_kit.module("compare_figures")
    p99, late = fields.pop("p99", None), fields.pop("late_us", 20.0)
    rates = [figures.AtRate(rate=1000.0, p50_us=p99 / 2, p99_us=p99, late_us=late)] if p99 else []
    given: dict[str, Any] = {
        "idle_percent": 1.0,
        "parts_us": {"server": cpu_us},
        "requests": 1000,
        "requests_per_second": 1e6 / cpu_us,
        "p50_us": 2 * cpu_us,
        "p99_us": 5 * cpu_us,
        "alone_p50_us": cpu_us,
        "pss_mib": 50.0,
        "rss_mib": 110.0,
        "start_seconds": 0.5,
        **fields,
    }
    return figures.Sample(round=number, cpu_us=cpu_us, floor_us=floor_us, rates=rates, **given)


def row(name: str, *samples: Any, group: str = "peer", trouble: str = "") -> Any:
    """A row of the tables."""
    return script_kit.module("compare_figures").RowReport(
        name=name,
        title=f"the {name}",
        server=f"server {name}",
        group=group,
        protocol="http",
        payload="1x30",
        samples=list(samples),
        trouble=trouble,
    )


def report(*rows: Any) -> Any:
    """A whole comparison."""
    figures = script_kit.module("compare_figures")
    about = {
        "date": "2026-11-30 04:00 UTC",
        "cpu": "a CPU",
        "cores": 2,
        "kernel": "6.1",
        "python": "3.11.7",
        "packages": {"onnxruntime": "1.32.0"},
    }
    return figures.Report(
        command="python loadtests/compare.py --rounds 2",
        about=about,
        versions=["uvicorn 0.54.0"],
        settings=figures.Settings(
            rounds=2, seconds=1.0, connections=16, rates=[1000.0], features="join3"
        ),
        took_seconds=90.0,
        rows=list(rows),
    )


def encoded(made: Any) -> bytes:
    """As `--json` writes it."""
    return msgspec.json.encode(made)
