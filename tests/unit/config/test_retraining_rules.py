"""What must hold of `monitoring.retrain`."""

import hashlib
from pathlib import Path

import pytest

from serving.config.check import require_valid
from serving.config.destinations import address_refusal
from serving.errors import InvalidConfig

ONNX = b"not really a model"
MODEL = """\
model: demo
versions:
  v1: {{path: ../v1.onnx, sha256: {digest}}}
traffic: {{production: v1}}
monitoring:
  prediction: {{{prediction}}}
  retrain: {{{retrain}}}
"""
SIGNED = "webhook: 'https://trainer.example/x', secret_file: trainer.key"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory; `findings` writes the model."""
    (tmp_path / "models").mkdir()
    (tmp_path / "v1.onnx").write_bytes(ONNX)
    (tmp_path / "trainer.key").write_bytes(b"key")
    (tmp_path / "trainer.key").chmod(0o600)
    return tmp_path


def findings(
    root: Path, retrain: str, *, prediction: str = "decision: label, score: p", gateway: str = ""
) -> list[str]:
    """Problems, without where they are."""
    (root / "gateway.yaml").write_text(gateway or "log: {}\n")
    digest = hashlib.sha256(ONNX).hexdigest()
    text = MODEL.format(digest=digest, prediction=prediction, retrain=retrain)
    (root / "models" / "demo.yaml").write_text(text)
    try:
        _, problems = require_valid(root)
    except InvalidConfig as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return [str(problem).partition(": ")[2] for problem in problems]


def test_a_signed_webhook_has_no_findings(root: Path) -> None:
    """Neither errors nor warnings."""
    assert findings(root, SIGNED) == []


@pytest.mark.parametrize(
    ("retrain", "words"),
    [
        ("webhook: 'https://a.example/x'", "warning: monitoring.retrain.webhook: without"),
        ("metric: error", "warning: monitoring.retrain: nobody is asked"),
        (SIGNED + ", command: ['true']", "it names webhook and command: one request is for one"),
        ("command: [./gone]", "`./gone`: there is no such program that may be run"),
        ("webhook: 'http://u:p@a.example/x'", "it holds a name or password; use `secret_file`"),
        ("webhook: 'http://169.254.169.254/x'", "`169.254.169.254` is link-local"),
        ("airflow: 'https://a.example/api/v1/dags/d/dagRuns'", "does not end as Airflow 3's"),
        ("webhook: 'https://a.example/x', secret_file: gone", "`gone`: there is no such file"),
        (SIGNED + ", metric: squared_error", "`squared_error` is no metric of the task `binary`"),
        (SIGNED + ", timeout: 0s", "monitoring.retrain.timeout: must be more than nothing"),
        (
            "airflow: 'http://a.example/api/v2/dags/d/dagRuns', secret_file: trainer.key",
            "the bearer token would go over the network as it is",
        ),
    ],
)
def test_a_mistake_is_named(root: Path, retrain: str, words: str) -> None:
    """With the option it is in."""
    assert any(words in line for line in findings(root, retrain)), findings(root, retrain)


def test_a_metric_of_scores_needs_a_score(root: Path) -> None:
    """A decision alone has no Brier score."""
    [line] = findings(root, SIGNED + ", metric: brier", prediction="decision: label")

    assert "`brier` needs `monitoring.prediction.score`" in line


def test_without_a_log_nothing_can_be_joined(root: Path) -> None:
    """Labels would be orphans."""
    [line] = findings(root, SIGNED, gateway="schema_version: 1\n")

    assert "without a prediction log" in line


def test_loopback_is_for_gateways_on_loopback(root: Path) -> None:
    """There it means this machine; elsewhere a service that trusts its own."""
    local = "webhook: 'http://localhost:9000/x', secret_file: trainer.key"
    beyond = "log: {}\nlisten: {admin: '10.0.0.5:8002'}\nauth: {tokens: tokens.yaml}\n"
    (root / "tokens.yaml").write_text("tokens: []\n")

    assert findings(root, local) == []
    assert any("`localhost` is loopback" in line for line in findings(root, local, gateway=beyond))


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("trainer.example", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
    ],
)
def test_only_addresses_that_cannot_be_meant_are_refused(address: str, refused: bool) -> None:
    """Trainers live on private networks; credentials live on link-local addresses."""
    assert bool(address_refusal(address, loopback=False)) is refused
