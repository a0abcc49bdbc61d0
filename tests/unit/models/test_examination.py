import onnx_models
import pytest

from serving.errors import InvalidArtifact
from serving.models.examination import examine
from serving.types import DATATYPES, TensorMetadata


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_is_read_and_batchable(datatype: str) -> None:
    """Names, datatypes and shapes come from the file, −1 for free dimensions."""
    signature = examine(onnx_models.identity(datatype, 3))

    assert signature.inputs == [TensorMetadata("INPUT0", datatype, (-1, 3))]
    assert signature.outputs == [TensorMetadata("OUTPUT0", datatype, (-1, 3))]
    assert signature.batchable


@pytest.mark.parametrize(
    ("model", "batchable"),
    [
        (onnx_models.linear(), True),
        (onnx_models.mlp(), True),
        (onnx_models.simple(), True),
        (onnx_models.picky(), True),
        (onnx_models.flexible_identity(), True),
        (onnx_models.fixed_batch(), False),
        (onnx_models.batch_mean(), False),
    ],
    ids=["linear", "mlp", "simple", "picky", "free inner size", "fixed batch", "batch mean"],
)
def test_only_independent_rows_are_batchable(model: bytes, batchable: bool) -> None:
    """A free first dimension is not enough: rows together must answer as rows alone."""
    assert examine(model).batchable is batchable


def test_the_files_own_metadata_is_kept() -> None:
    """`feature_names` and the like travel with the signature."""
    assert examine(onnx_models.linear(2)).metadata == {"feature_names": '["f0", "f1"]'}


def test_a_loop_is_noted() -> None:
    """Its length may depend on the values, so such a model never runs on the event loop."""
    assert examine(onnx_models.patience()).loops
    assert not examine(onnx_models.linear()).loops


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (b"", "no graph"),
        (b"not a model", "not a readable ONNX file"),
        (onnx_models.external("weights.bin"), "'outside' is external data"),
        (onnx_models.external("../x", nested=True), "'outside' is external data"),
        (onnx_models.custom_operator(), "'Frobnicate' of domain 'com.example'"),
        (onnx_models.zipmap(), "export the classifier without ZipMap"),
        (onnx_models.always_failing(), "fails on an input of zeros"),
    ],
    ids=["nothing", "text", "external", "nested external", "custom", "zipmap", "failing"],
)
def test_what_cannot_be_served_is_refused_with_the_reason(model: bytes, reason: str) -> None:
    """The reason names the tensor, operator or output at fault, and no source file."""
    with pytest.raises(InvalidArtifact, match=reason) as refusal:
        examine(model)

    assert "onnxruntime_src" not in refusal.value.message


def test_a_model_local_function_may_have_its_own_domain() -> None:
    """Only operators without a definition are custom operators."""
    from onnx import ModelProto, helper

    model = ModelProto.FromString(onnx_models.custom_operator())
    model.functions.append(
        helper.make_function(
            "com.example",
            "Frobnicate",
            ["a"],
            ["b"],
            [helper.make_node("Add", ["a", "a"], ["b"])],
            [helper.make_opsetid("", 18)],
        )
    )

    assert examine(model.SerializeToString()).batchable


def test_external_data_inside_a_function_is_found() -> None:
    """Every place in the file that can hold a tensor is looked at."""
    from onnx import ModelProto, TensorProto, helper

    model = ModelProto.FromString(onnx_models.custom_operator())
    outside = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[1])
    outside.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Constant", [], ["b"], value=outside)
    model.functions.append(
        helper.make_function(
            "com.example", "Frobnicate", ["a"], ["b"], [node], [helper.make_opsetid("", 18)]
        )
    )

    with pytest.raises(InvalidArtifact, match="'hidden' is external data"):
        examine(model.SerializeToString())
