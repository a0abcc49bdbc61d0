"""Lines that tests want people to see, after the run: `record_property("seen", "…")`."""

from typing import Any

import pytest


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
