import json
from typing import Any

import msgspec
import numpy as np
import pytest

from feature_cache.views import FeatureView
from serving.config.schema import ModelConfig
from serving.errors import InvalidConfig, InvalidRequest
from serving.types import InferRequest, RequestedOutput, Signature, Tensor, TensorMetadata
from serving.worker.join import JoinPlan
from serving.worker.join_compiler import compile_join

VIEWS = {
    "person": msgspec.convert(
        {
            "view": "person",
            "entity": {"person_id": "int64"},
            "fields": {"age": {"type": "float32"}, "school": {"type": "int32"}},
        },
        FeatureView,
    )
}
WIDE = Signature(
    inputs=[TensorMetadata("X", "FP32", (-1, 2))],
    outputs=[TensorMetadata("label", "INT64", (-1,)), TensorMetadata("p", "FP32", (-1, 2))],
    batchable=True,
    metadata={"feature_names": json.dumps(["school", "age"])},
)


def plan(signature: Signature = WIDE, **model: Any) -> JoinPlan:
    """Compile a join; by default X is assembled from the view in the file's own order."""
    model.setdefault("inputs", {"X": {"features": ["person.*"], "order": "onnx_metadata"}})
    model.setdefault("entity", {"person_id": "INT64"})
    config = {
        "model": "m",
        "versions": {"v1": {"path": "v1.onnx", "sha256": "0" * 64}},
        "traffic": {"production": "v1"},
        **model,
    }
    return compile_join(msgspec.convert(config, ModelConfig), signature, VIEWS)


def tensor(name: str, datatype: str, data: Any, dtype: str) -> Tensor:
    """Make a tensor of nested lists."""
    return Tensor(name, datatype, np.array(data, dtype))


def request(*tensors: Tensor, outputs: list[RequestedOutput] | None = None) -> InferRequest:
    """Ask for `m` with these tensors."""
    return InferRequest("m", "", list(tensors), outputs=outputs or [])


AGE = tensor("age", "FP32", [30, 40], "f4")
SCHOOL = tensor("school", "INT32", [1, 2], "i4")
X = tensor("X", "FP32", [[1, 30], [2, 40]], "f4")


def test_features_become_columns_in_the_files_own_order() -> None:
    """The metadata key `feature_names` decides, not the order of the view or the request."""
    joined = plan().join(request(AGE, SCHOOL))

    np.testing.assert_array_equal(joined.feed["X"], [[1, 30], [2, 40]])
    assert joined.feed["X"].dtype == np.float32
    assert joined.rows == 2


def test_the_whole_input_is_passed_on_as_it_is() -> None:
    """A client that sends X pays no copy."""
    assert plan().join(request(X)).feed["X"] is X.data


def test_a_feature_sent_along_wins_over_its_column() -> None:
    """X is copied, not changed: it may be a read-only view of the request's bytes."""
    joined = plan().join(request(X, tensor("age", "FP32", [[70], [80]], "f4")))

    np.testing.assert_array_equal(joined.feed["X"], [[1, 70], [2, 80]])
    np.testing.assert_array_equal(X.data, [[1, 30], [2, 40]])


def test_entity_keys_are_checked_and_left_out_of_the_feed() -> None:
    """The key chooses a version; the model never sees it."""
    key = tensor("person_id", "INT64", [7, 8], "i8")

    assert set(plan().join(request(key, AGE, SCHOOL)).feed) == {"X"}


def test_outputs_are_answered_in_the_order_asked() -> None:
    """The request's order wins over the model's."""
    wanted = [RequestedOutput("p"), RequestedOutput("label")]

    assert plan().join(request(X, outputs=wanted)).outputs == ("p", "label")


def test_configured_outputs_are_the_default() -> None:
    """`outputs:` saves computing what nobody reads."""
    assert plan(outputs=["p"]).join(request(X)).outputs == ("p",)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([AGE], "missing features 'school' of input 'X'"),
        ([], "missing features 'age', 'school'"),
        ([X, tensor("height", "FP32", [1, 2], "f4")], "unknown input 'height'"),
        ([tensor("X", "FP64", [[1, 2]], "f8")], "'X' has datatype FP64, but model 'm' takes FP32"),
        ([tensor("X", "FP32", [1, 2], "f4")], r"'X' has shape \[2\]"),
        ([tensor("X", "FP32", [[1, 2, 3]], "f4")], r"shape \[1, 3\].*takes \[-1, 2\]"),
        ([tensor("X", "FP32", np.empty((0, 2)), "f4")], "'X' has no rows"),
        ([X, tensor("age", "FP32", [1], "f4")], "'age' has 1 rows, but 'X' has 2"),
        ([X, tensor("age", "FP32", [[1, 2], [3, 4]], "f4")], "one value a row"),
        ([X, tensor("age", "INT64", [1, 2], "i8")], "'age' has datatype INT64"),
        ([X, tensor("person_id", "BYTES", [b"7", b"8"], "O")], "'person_id' has datatype BYTES"),
        ([X, tensor("person_id", "INT64", 7, "i8")], r"'person_id' has shape \[\]"),
    ],
)
def test_what_does_not_fit_is_named(tensors: list[Tensor], words: str) -> None:
    """Every refusal names the input and says what the model takes."""
    with pytest.raises(InvalidRequest, match=words):
        plan().join(request(*tensors))


def test_a_scalar_is_refused_where_rows_are_plain_values() -> None:
    """A model of shape [n] has an empty tail, as a scalar has; it still takes rows."""
    rows = Signature([TensorMetadata("X", "FP32", (-1,))], WIDE.outputs, batchable=True)

    with pytest.raises(InvalidRequest, match=r"'X' has shape \[\], but model 'm' takes \[-1\]"):
        plan(rows, inputs={}).join(request(tensor("X", "FP32", 7, "f4")))


def test_an_unknown_output_is_named() -> None:
    """So is an output that the model does not have."""
    with pytest.raises(InvalidRequest, match="unknown output 'q': model 'm' has 'label', 'p'"):
        plan().join(request(X, outputs=[RequestedOutput("q")]))


def test_a_model_without_batches_takes_its_input_whole() -> None:
    """Where the first dimension is fixed, a request is one row whatever its shape."""
    fixed = Signature([TensorMetadata("X", "FP32", (3,))], WIDE.outputs, batchable=False)

    joined = plan(fixed, inputs={}).join(request(tensor("X", "FP32", [1, 2, 3], "f4")))

    assert joined.rows == 1


def test_a_missing_direct_input_is_named_with_its_shape() -> None:
    """An input that no feature fills must be sent."""
    with pytest.raises(InvalidRequest, match=r"missing input 'X'.*FP32 of shape \[-1, 2\]"):
        plan(inputs={}, entity={}).join(request())


def test_metadata_lists_keys_features_and_inputs() -> None:
    """Whatever can be left out is marked optional, so generic clients know."""
    listed = {spec.name: spec.optional for spec in plan().client_inputs()}

    assert listed == {"person_id": True, "school": True, "age": True, "X": True}
    assert [spec.optional for spec in plan(inputs={}, entity={}).client_inputs()] == [False]


@pytest.mark.parametrize(
    ("signature", "model", "words"),
    [
        (WIDE, {"inputs": {"Y": {"features": ["person.*"]}}}, "has no input 'Y'"),
        (WIDE, {"inputs": {"X": {"features": ["person.age"]}}}, "takes .*the configuration lists"),
        (
            msgspec.structs.replace(WIDE, metadata={}),
            {},
            "metadata key 'feature_names'",
        ),
        (
            Signature([TensorMetadata("X", "INT64", (-1, 2))], WIDE.outputs, True, WIDE.metadata),
            {},
            "feature 'age' is float32",
        ),
        (WIDE, {"outputs": ["q"]}, "no output 'q'"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_at_compile_time(
    signature: Signature, model: dict[str, Any], words: str
) -> None:
    """Features that do not fit the file are found before a request is."""
    with pytest.raises(InvalidConfig, match=words):
        plan(signature, **model)
