"""ModelInfer messages to an `InferRequest`. Messages: `_generated/inference.proto`."""

from collections.abc import Iterable, Mapping
from typing import Final

from serving.errors import InvalidRequest
from serving.protocol import elements
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.parameters import check_request, requested_output
from serving.protocol.shapes import TensorLimits, check_datatype, check_name, element_count
from serving.protocol.tensors import from_raw
from serving.types import InferRequest, ParameterValue, RequestedOutput, Tensor

__all__ = ["decode_infer"]

_FIELD: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where each datatype's values are; FP16 and BF16 travel raw only."""


def decode_infer(message: pb.ModelInferRequest, limits: TensorLimits) -> InferRequest:
    """Read an inference request, with raw or with typed contents.

    Raises:
        InvalidRequest: with the field that is wrong.
    """
    parameters = _parameters(message.parameters) if message.parameters else {}
    if parameters:
        check_request(parameters)
    return InferRequest(
        message.model_name,
        message.model_version,
        _inputs(message, limits),
        message.id,
        parameters,
        _outputs(message.outputs) if message.outputs else [],
    )


def _inputs(message: pb.ModelInferRequest, limits: TensorLimits) -> list[Tensor]:
    entries = message.inputs
    raw = message.raw_input_contents
    if not entries:
        raise InvalidRequest("inputs must not be empty")
    if len(entries) > limits.max_inputs:
        raise InvalidRequest(
            f"{len(entries)} inputs; at most {limits.max_inputs} are served (limits.max_inputs)"
        )
    if raw and len(raw) != len(entries):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(entries)} inputs; send one for"
            " every input, in their order, or none"
        )
    inputs: list[Tensor] = []
    names: set[str] = set()
    for index, entry in enumerate(entries):
        name = check_name(entry.name, "inputs", index)
        if name in names:
            raise InvalidRequest(f"input '{name}' is given twice")
        names.add(name)
        if entry.parameters and "shared_memory_region" in entry.parameters:
            raise InvalidRequest(f"input '{name}': shared memory is not served; send the tensor")
        if not raw:
            inputs.append(_typed(name, entry, limits))
        elif entry.HasField("contents") and entry.contents.ByteSize():
            raise InvalidRequest(
                f"input '{name}' has contents beside raw_input_contents; send one of them"
            )
        else:
            shape = list(entry.shape)
            inputs.append(from_raw(name, entry.datatype, shape, raw[index], limits))
    return inputs


def _typed(name: str, entry: pb.ModelInferRequest.InferInputTensor, limits: TensorLimits) -> Tensor:
    datatype = check_datatype(entry.datatype, name)
    field = _FIELD.get(datatype)
    if field is None:
        raise InvalidRequest(f"input '{name}': {datatype} is served in raw_input_contents only")
    shape = list(entry.shape)
    count = element_count(shape, name, limits)
    for other, _ in entry.contents.ListFields():
        if other.name != field:
            raise InvalidRequest(
                f"input '{name}' has values in {other.name}; {datatype} travels in {field}"
            )
    values = getattr(entry.contents, field)
    if len(values) != count:
        raise InvalidRequest(
            f"input '{name}' has {len(values)} elements in {field}; shape {shape} takes {count}"
        )
    return Tensor(name, datatype, elements.from_typed(name, datatype, shape, values))


def _parameters(given: Mapping[str, pb.InferParameter]) -> dict[str, ParameterValue]:
    parameters: dict[str, ParameterValue] = {}
    for key, parameter in given.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"parameter '{key[:64]}' has no value")
        parameters[key] = getattr(parameter, choice)
    return parameters


def _outputs(
    entries: Iterable[pb.ModelInferRequest.InferRequestedOutputTensor],
) -> list[RequestedOutput]:
    outputs: list[RequestedOutput] = []
    names: set[str] = set()
    for index, entry in enumerate(entries):
        name = check_name(entry.name, "outputs", index)
        if name in names:
            raise InvalidRequest(f"output '{name}' is asked for twice")
        names.add(name)
        outputs.append(requested_output(name, _parameters(entry.parameters)))
    return outputs
