"""What belongs to the whole run: second tries, lines to see after it, the end of what tests share.

A test has a line printed after the run with `record_property("seen", "…")`.
"""

import os
import signal
from typing import Any

import pytest

_BESIDE_OTHERS = ("fault", "integration", "conformance")
"""Folders whose tests start processes, and share two cores with as many others."""

_TIMEOUT = pytest.StashKey[object]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In CI, try a test that starts processes once more before it counts as failed.

    Such a try is told as `RERUN` with its reason and counted in the last line. Nothing else is
    tried twice, and on a developer's machine nothing is.
    """
    if os.environ.get("CI") != "true":
        return
    for item in items:
        if item.path.relative_to(config.rootpath / "tests").parts[0] in _BESIDE_OTHERS:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=3))


def pytest_configure() -> None:
    """Interrupts count, in what tests start, too: a shell's background jobs ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: object) -> None:
    """Keep the bound of the first try; whoever comes after this sets it."""
    item.stash[_TIMEOUT] = settings


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Bound the second try, as the first: the timeout is set once for both."""
    if getattr(item, "execution_count", 1) > 1 and (timeout := item.stash.get(_TIMEOUT, None)):
        item.ihook.pytest_timeout_set_timer(item=item, settings=timeout)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what the test processes share, in the one that outlives the others."""
    if "PYTEST_XDIST_WORKER" not in os.environ and not session.config.option.collectonly:
        from ray_kit import end_shared

        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        end_shared(factory.getbasetemp())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what failed once, and what tests have seen: requests, failures, gaps."""
    seen = [
        (report.nodeid.rpartition("::")[2], text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == "seen"
    ]
    again = terminalreporter.stats.get("rerun", [])
    if again:
        terminalreporter.section("failed once, beside others")
        for report in again:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash is not None else str(report.longrepr)
            terminalreporter.write_line(f"{report.nodeid}: {reason.splitlines()[0]}")
    if seen:
        terminalreporter.section("seen")
        for test, text in seen:
            terminalreporter.write_line(f"{test}: {text}")
