"""What must hold of `rollout.notify`."""

from pathlib import Path

import pytest
from rollout_rules_kit import RolloutDirectory

SIGNED = "webhook: 'https://ci.example/x', secret_file: ci.key"


@pytest.fixture
def directory(tmp_path: Path) -> RolloutDirectory:
    """A sound plan with a secret beside it."""
    (tmp_path / "ci.key").write_bytes(b"key")
    (tmp_path / "ci.key").chmod(0o600)
    return RolloutDirectory(tmp_path)


def findings(directory: RolloutDirectory, notice: str, gateway: str = "log: {}") -> list[str]:
    """With one entry."""
    return directory.findings(rollout=f"  notify: [{{{notice}}}]", gateway=gateway)


@pytest.mark.parametrize("notice", [SIGNED, "file: rollouts.jsonl", "file: rollouts/demo.jsonl"])
def test_a_whole_entry_has_no_findings(directory: RolloutDirectory, notice: str) -> None:
    """A signed webhook, or a file under the data directory."""
    assert findings(directory, notice) == []


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        ("events: [paused]", "error: rollout.notify[0]: nobody is told"),
        (SIGNED + ", file: a.jsonl", "notify[0].file: it names a webhook and a file"),
        ("webhook: 'https://a.example/x'", "warning: rollout.notify[0].webhook: without `secret_"),
        ("webhook: 'http://u:p@a.example/x'", "webhook: it holds a name or password"),
        ("webhook: 'http://169.254.169.254/x'", "webhook: `169.254.169.254` is link-local"),
        ("webhook: 'https://a.example/x', secret_file: gone", "`gone`: there is no such file"),
        ("file: ../rollouts.jsonl", "notify[0].file: it leaves the data directory"),
        ("file: /var/log/rollouts.jsonl", "notify[0].file: it leaves the data directory"),
        ("file: rollouts/", "notify[0].file: this names no file"),
        ("file: a.jsonl, secret_file: ci.key", "warning: rollout.notify[0].secret_file: lines in"),
    ],
)
def test_a_mistake_is_named(directory: RolloutDirectory, notice: str, words: str) -> None:
    """With the option it is in."""
    found = findings(directory, notice)

    assert any(words in line for line in found), found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.7"])
def test_what_is_private_is_told_only_if_that_is_meant(
    directory: RolloutDirectory, host: str
) -> None:
    """Elsewhere it is an address that was copied from somewhere."""
    notice = f"webhook: 'http://{host}:9000/x', secret_file: ci.key"
    meant = "log: {}\nnotify: {private: true}"

    assert any("is private, which is allowed only" in line for line in findings(directory, notice))
    assert findings(directory, notice, meant) == []


def test_only_hosts_that_are_listed_are_told(directory: RolloutDirectory) -> None:
    """If any are."""
    listed = "log: {{}}\nnotify: {{hosts: ['{}']}}"

    assert findings(directory, SIGNED, listed.format("ci.example")) == []
    [line] = [
        line for line in findings(directory, SIGNED, listed.format("*.ci.example"))
        if line.endswith("`ci.example` is not one of `notify.hosts` in gateway.yaml")
    ]  # fmt: skip
    assert "error: rollout.notify[0].webhook" in line


def test_a_secret_that_others_may_read_is_told_of(directory: RolloutDirectory) -> None:
    """As for the other secrets."""
    (directory.root / "ci.key").chmod(0o644)

    assert any("others may read the secret (mode 0644)" in line for line in
               findings(directory, SIGNED))  # fmt: skip
