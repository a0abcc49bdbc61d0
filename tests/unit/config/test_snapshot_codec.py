"""Snapshots as bytes and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.schema import ModelConfig, ServeConfig, TrafficConfig, VersionSource
from serving.config.snapshot import Snapshot, StagedVersion
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.config.units import Seconds
from serving.errors import InvalidConfig
from serving.types import Signature, TensorMetadata


def snapshot(deadline: float) -> Snapshot:
    """A snapshot of one model with this deadline in seconds."""
    config = ModelConfig(
        model="employment",
        versions={"v1": VersionSource(path="a.onnx", sha256="0" * 64)},
        serve=ServeConfig(deadline=Seconds(deadline)),
        traffic=TrafficConfig(production="v1"),
    )
    signature = Signature(
        inputs=[TensorMetadata("X", "FP32", (-1, 3))],
        outputs=[TensorMetadata("y", "FP32", (-1, 2))],
        batchable=True,
        metadata={"feature_names": '["a"]'},
    )
    staged = StagedVersion(path="artifacts/0.onnx", sha256="0" * 64, signature=signature)
    return Snapshot(
        revision=7,
        published_at=1.5,
        author="ops",
        models={"employment": config},
        views={},
        staged={"employment": {"v1": staged}},
    )


@given(st.floats(min_value=0, max_value=1e9))
def test_a_snapshot_survives_the_trip_without_rounding(deadline: float) -> None:
    """Decoding gives back exactly what was encoded, odd durations included."""
    before = snapshot(deadline)

    after = decode_snapshot(encode_snapshot(before))

    assert after == before
    assert type(after.models["employment"].serve.deadline) is Seconds


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"revision": "seven"}', b"[" * 100_000, b'{"revision": 1}'],
)
def test_foreign_bytes_are_refused_by_name(data: bytes) -> None:
    """Whatever lies in the store or on disk, a worker gets InvalidConfig and no other error."""
    with pytest.raises(InvalidConfig, match="snapshot"):
        decode_snapshot(data)


def test_a_snapshot_with_an_unknown_option_is_refused() -> None:
    """An option this release does not know is an error, not something to drop silently."""
    data = encode_snapshot(snapshot(1.0)).replace(b'"max_batch_size"', b'"max_future_size"')

    with pytest.raises(InvalidConfig, match="max_future_size"):
        decode_snapshot(data)
