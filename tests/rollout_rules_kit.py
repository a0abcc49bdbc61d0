"""A directory with a rollout in it, and what `sluice check` finds there."""

import hashlib
from pathlib import Path

from serving.config.check import require_valid
from serving.errors import InvalidConfig

__all__ = ["STEPS", "RolloutDirectory"]

STEPS = "[{weight: 5, bake: {min: 1m}}, {weight: 100}]"
RULES = "[{name: errors, metric: error_rate, tolerance: 1.5, prove: 2.0}]"

_MODEL = """\
model: demo
versions:
  v1: {{path: ../v1.onnx, sha256: {v1}}}
  v2: {{path: ../v2.onnx, sha256: {v2}}}
entity: {{person_id: INT64}}
traffic:
  production: v1
  assignment: {{key: person_id}}
{traffic}
rollout:
  canary: {canary}
  steps: {steps}
  guardrails: {{rules: {rules}{guardrails}}}
{rollout}
{model}
"""


class RolloutDirectory:
    """Writes one model with a rollout; what is not said is as in a sound plan."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "models").mkdir()
        for version in ("v1", "v2"):
            (root / f"{version}.onnx").write_bytes(version.encode())

    def write(
        self,
        *,
        canary: str = "v2",
        steps: str = STEPS,
        rules: str = RULES,
        guardrails: str = "",
        traffic: str = "",
        rollout: str = "",
        model: str = "",
        gateway: str = "log: {}",
    ) -> None:
        """Write the files. `traffic` and `rollout` are indented lines, `model` lines of the top."""
        (self.root / "gateway.yaml").write_text(f"schema_version: 1\n{gateway}\n")
        digests = {v: hashlib.sha256(v.encode()).hexdigest() for v in ("v1", "v2")}
        text = _MODEL.format(
            canary=canary, steps=steps, rules=rules, guardrails=guardrails and f", {guardrails}",
            traffic=traffic, rollout=rollout, model=model, **digests,
        )  # fmt: skip
        (self.root / "models" / "demo.yaml").write_text(text)

    def findings(self, **parts: str) -> list[str]:
        """What is found in the files once they are written so."""
        self.write(**parts)
        return self.judged()

    def judged(self) -> list[str]:
        """Every problem, as lines that begin with file, line and column."""
        try:
            _, problems = require_valid(self.root)
        except InvalidConfig as error:
            return [str(problem) for problem in error.problems]
        return [str(problem) for problem in problems]
