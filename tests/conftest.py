"""What belongs to the whole run: lines to see after it, and the end of what tests share.

A test has a line printed after the run with `record_property("seen", "…")`.
"""

import os
from typing import Any

import pytest


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what the test processes share, in the one that outlives the others."""
    if "PYTEST_XDIST_WORKER" not in os.environ and not session.config.option.collectonly:
        from ray_kit import end_shared

        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        end_shared(factory.getbasetemp())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests have seen: requests, failures, gaps."""
    seen = [
        (report.nodeid.rpartition("::")[2], text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == "seen"
    ]
    if seen:
        terminalreporter.section("seen")
        for test, text in seen:
            terminalreporter.write_line(f"{test}: {text}")
