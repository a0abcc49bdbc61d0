"""A configuration directory without a mistake, and what the rules say of it once edited."""

import hashlib
from pathlib import Path

from serving.config.check import require_valid
from serving.errors import InvalidConfig

ONNX = b"not really a model"
DIGEST = hashlib.sha256(ONNX).hexdigest()
OTHER = b"another model"
OTHER_DIGEST = hashlib.sha256(OTHER).hexdigest()

MODEL = f"""\
schema_version: 1
model: employment
versions:
  v1: {{path: ../v1.onnx, sha256: {DIGEST}}}
  v2: {{path: ../v2.onnx, sha256: {OTHER_DIGEST}}}
entity: {{person_id: INT64}}
inputs:
  X: {{features: [person.*]}}
traffic:
  production: v1
  canary: {{version: v2, weight: 5}}
  assignment: {{key: person_id}}
"""

VIEW = """\
view: person
entity: {person_id: int64}
fields:
  AGEP: {type: float32, default: 0}
  SCHL: {type: int8, default: 1}
"""

Edit = tuple[str, str]


def sound_directory(folder: Path) -> Path:
    """Write a directory without a mistake."""
    (folder / "models").mkdir()
    (folder / "features").mkdir()
    (folder / "gateway.yaml").write_text("schema_version: 1\n")
    (folder / "models" / "employment.yaml").write_text(MODEL)
    (folder / "features" / "person.yaml").write_text(VIEW)
    (folder / "v1.onnx").write_bytes(ONNX)
    (folder / "v2.onnx").write_bytes(OTHER)
    return folder


def findings(root: Path, *, insecure: bool = False, artifacts: bool = True) -> list[str]:
    """Every problem of a directory, errors and warnings, as lines."""
    try:
        _, warnings = require_valid(root, insecure=insecure, artifacts=artifacts)
    except InvalidConfig as error:
        return [str(problem) for problem in error.problems]
    assert all(problem.severity == "warning" for problem in warnings)
    return [str(problem) for problem in warnings]


def edit(file: Path, *edits: Edit) -> None:
    """Replace text in a file; what is replaced must be there."""
    text = file.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
