import msgspec
import pytest

from serving.config.schema import ModelConfig, ServeConfig, TrafficConfig, VersionSource
from serving.config.snapshot import Snapshot, StagedVersion, decode, encode
from serving.config.units import Seconds
from serving.types import Signature, TensorMetadata


def test_a_snapshot_survives_the_wire() -> None:
    """Durations, nested models and signatures come back as they were."""
    tensor = TensorMetadata("X", "FP32", (-1, 4))
    snapshot = Snapshot(
        revision=7,
        published_at=1.5,
        author="ann",
        models={
            "m": ModelConfig(
                model="m",
                versions={"v1": VersionSource(path="v1.onnx", sha256="0" * 64)},
                traffic=TrafficConfig(production="v1"),
                serve=ServeConfig(deadline=Seconds(0.3)),
            )
        },
        views={},
        staged={
            "m": {
                "v1": StagedVersion(
                    path="/data/0.onnx",
                    sha256="0" * 64,
                    signature=Signature([tensor], [tensor], batchable=True, metadata={"a": "b"}),
                )
            }
        },
        unloaded=["m"],
    )

    again = decode(encode(snapshot))

    assert again == snapshot
    assert isinstance(again.models["m"].serve.deadline, Seconds)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"revision": "one"}', b"\xff"])
def test_what_is_no_snapshot_is_an_error_of_one_kind(content: bytes) -> None:
    """Callers catch one exception for whatever the store holds."""
    with pytest.raises(msgspec.MsgspecError):
        decode(content)
