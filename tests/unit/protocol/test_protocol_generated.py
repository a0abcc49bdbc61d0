"""The checked-in protobuf code."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from serving.protocol._generated import generate
from serving.protocol._generated import inference_pb2 as pb


def test_the_checked_in_protobuf_code_is_current(tmp_path: Path) -> None:
    """Generating again gives exactly the files in the repository."""
    texts = generate.generate(tmp_path)

    assert set(texts) == set(generate.WRITTEN)
    for name, text in texts.items():
        assert (generate.HERE / name).read_text(encoding="utf-8") == text, name


def test_our_messages_share_a_process_with_a_clients() -> None:
    """Both define `inference.ModelInferRequest`; in one descriptor pool the second would raise."""
    sent = service_pb2.ModelInferRequest(model_name="m").SerializeToString()

    assert pb.ModelInferRequest.FromString(sent).model_name == "m"
    assert pb.ModelInferRequest is not service_pb2.ModelInferRequest


def fields(message: Descriptor) -> dict[str, tuple[int, int, bool, str | None]]:
    """Number, wire type, repetition and message type of each field."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
        )
        for field in message.fields
    }


def nested(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """The messages and those declared inside them."""
    for message in messages:
        yield message
        yield from nested(message.nested_types)


def test_every_field_is_the_one_clients_know() -> None:
    """Names, numbers and types of all messages agree with the code tritonclient ships."""
    theirs = {
        message.full_name: fields(message)
        for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
        for message in nested(file.message_types_by_name.values())
    }
    ours = list(nested(pb.DESCRIPTOR.message_types_by_name.values()))

    assert len(ours) > 60
    for message in ours:
        known = theirs[message.full_name]
        for name, field in fields(message).items():
            assert known[name] == field, f"{message.full_name}.{name}"


def test_every_call_is_the_one_clients_know() -> None:
    """Names, messages and streaming of all calls agree with the code tritonclient ships."""

    def calls(service: ServiceDescriptor) -> dict[str, tuple[str, str, bool, bool]]:
        return {
            method.name: (
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }

    ours = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]

    assert ours.full_name == theirs.full_name
    assert calls(ours) == calls(theirs)


def test_every_datatype_has_the_number_clients_know() -> None:
    """The enumeration of the model configuration."""
    assert dict(pb.DataType.items()) == dict(model_config_pb2.DataType.items())
