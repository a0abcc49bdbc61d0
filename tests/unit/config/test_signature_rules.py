"""What must hold between a model's YAML and what its files turned out to take and give."""

from pathlib import Path

import msgspec
import pytest

from serving.config.check import check_signatures
from serving.config.load import Loaded, load_directory
from serving.types import Signature, TensorMetadata

MODEL = f"""\
model: employment
versions:
  v1: {{path: v1.onnx, sha256: {"1" * 64}, labels: ["no", "yes"]}}
  v2: {{path: v2.onnx, sha256: {"2" * 64}}}
entity: {{id: INT64}}
inputs:
  X: {{features: [person.*], order: onnx_metadata}}
outputs: [probabilities]
traffic:
  production: v1
  canary: {{version: v2, weight: 5}}
"""

VIEW = """\
view: person
entity: {id: int64}
fields:
  AGEP: {type: float32, default: 0}
  SCHL: {type: int32, default: 0}
"""

GOOD = Signature(
    inputs=[TensorMetadata("X", "FP32", (-1, 2))],
    outputs=[
        TensorMetadata("label", "INT64", (-1,)),
        TensorMetadata("probabilities", "FP32", (-1, 2)),
    ],
    batchable=True,
    metadata={"feature_names": '["SCHL", "AGEP"]'},
)


def inputs(*specs: TensorMetadata) -> Signature:
    """The good signature with other inputs."""
    return msgspec.structs.replace(GOOD, inputs=list(specs))


def names(text: str) -> Signature:
    """The good signature with another `feature_names`."""
    return msgspec.structs.replace(GOOD, metadata={"feature_names": text})


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """The configuration above, read from files."""
    for name, text in {
        "gateway.yaml": "",
        "models/employment.yaml": MODEL,
        "features/person.yaml": VIEW,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return load_directory(tmp_path)


def findings(loaded: Loaded, v1: Signature = GOOD, v2: Signature = GOOD) -> list[str]:
    """The problems of these two signatures, as lines without the file's name."""
    problems = check_signatures(loaded, {"employment": {"v1": v1, "v2": v2}})
    return [str(problem).removeprefix("models/employment.yaml:") for problem in problems]


def test_files_that_fit_have_no_findings(loaded: Loaded) -> None:
    """Column order may differ from the view's: the file's metadata decides."""
    assert findings(loaded) == []


def test_files_without_a_signature_are_left_out(loaded: Loaded) -> None:
    """A refused file has a problem of its own; rules speak about the others."""
    assert check_signatures(loaded, {"employment": {"v2": GOOD}, "unknown": {"v1": GOOD}}) == []


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (
            inputs(TensorMetadata("x", "FP32", (-1, 2))),
            (
                "7:3: error: inputs.X: the model file has no input `X` (version `v1`) "
                "(known here: `x`)"
            ),
        ),
        (
            inputs(TensorMetadata("X", "FP32", (-1, 16))),
            "7:7: error: inputs.X.features: 2 features listed, but `X` takes 16 columns",
        ),
        (
            inputs(TensorMetadata("X", "FP32", (-1, 2, 1))),
            "inputs.X.features: features fill a table of rows and columns; `X` is FP32 [-1, 2, 1]",
        ),
        (
            inputs(TensorMetadata("X", "INT32", (-1, 2))),
            "inputs.X.features: person.AGEP is float32, which does not fit `X`, INT32",
        ),
        (
            inputs(TensorMetadata("X", "BYTES", (-1, 2))),
            "inputs.X.features: person.SCHL is int32, which does not fit `X`, BYTES",
        ),
        (
            msgspec.structs.replace(GOOD, metadata={}),
            (
                "7:36: error: inputs.X.order: the model file has no metadata key `feature_names` "
                "(version `v1`) (use `order: listed`, or export the model with it)"
            ),
        ),
        (names("AGEP, SCHL"), "`feature_names` is no JSON list of names"),
        (names('{"AGEP": 1}'), "`feature_names` is no JSON list of names"),
        (names('["AGEP", 1]'), "`feature_names` is no JSON list of names"),
        (names("[" * 100_000), "`feature_names` is no JSON list of names"),
        (names('["AGEP", "SEX"]'), "the file wants `SEX`, which the features do not give"),
        (names('["AGEP", "SEX"]'), "the file does not know `SCHL`"),
        (names('["AGEP", "SCHL", "AGEP"]'), "`feature_names` repeats a name"),
        (
            msgspec.structs.replace(GOOD, outputs=[TensorMetadata("probability", "FP32", (-1, 2))]),
            (
                "8:11: error: outputs[0]: the model file has no output `probabilities` "
                "(version `v1`) (did you mean `probability`?)"
            ),
        ),
        (
            msgspec.structs.replace(
                GOOD, outputs=[TensorMetadata("probabilities", "FP32", (-1, 3))]
            ),
            "versions.v1.labels: 2 labels, but the outputs have 3 values a row",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_explained(
    loaded: Loaded, signature: Signature, expected: str
) -> None:
    """Each rule points at the YAML, names the version, and says what the file holds."""
    assert any(expected in finding for finding in findings(loaded, v1=signature))


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        (
            inputs(*GOOD.inputs, TensorMetadata("extra", "FP32", (-1, 1))),
            "11:3: error: traffic.canary: takes `extra`, which calls for production do not carry",
        ),
        (
            inputs(TensorMetadata("X", "FP64", (-1, 2))),
            "traffic.canary: takes `X` as FP64 [-1, 2], but production as FP32 [-1, 2]",
        ),
    ],
)
def test_a_canary_must_take_the_calls_of_production(
    loaded: Loaded, canary: Signature, expected: str
) -> None:
    """Callers do not know which version answers, so one call must fit both."""
    assert any(expected in finding for finding in findings(loaded, v2=canary))


def test_a_canary_may_not_lack_an_input_that_callers_send(loaded: Loaded) -> None:
    """An input of production that the canary does not know would be refused there."""
    production = inputs(*GOOD.inputs, TensorMetadata("extra", "FP32", (-1, 1)))

    assert findings(loaded, v1=production) == [
        (
            "11:3: error: traffic.canary: does not know `extra`, which calls for production carry "
            "(version `v2`)"
        )
    ]


def test_a_canary_may_have_optional_inputs_of_its_own(loaded: Loaded) -> None:
    """What may be left out does not stand in the way."""
    optional = TensorMetadata("extra", "FP32", (-1, 1), optional=True)

    assert findings(loaded, v2=inputs(*GOOD.inputs, optional)) == []
