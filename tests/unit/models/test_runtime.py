import threading
from types import SimpleNamespace

import numpy as np
import onnx_models
import onnxruntime
import pytest

from serving.models.runtime import Model, plain_reason, quick_run


def test_the_private_run_answers_as_the_public_one() -> None:
    """The faster way into ONNX Runtime exists in the installed release and agrees."""
    model = onnx_models.mlp()
    feed = {"X": np.random.default_rng(1).standard_normal((5, 30)).astype("<f4")}
    names = ["probabilities", "label"]
    public = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    private = quick_run(public)

    assert private != public.run
    for ours, theirs in zip(private(names, feed, None), public.run(names, feed), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_release_without_the_private_run_is_served_by_the_public_one() -> None:
    """Where `_sess`, or its `run`, is gone, the documented method is used."""

    def public() -> None:
        """Stand for the documented method."""

    without = SimpleNamespace(run=public)
    empty = SimpleNamespace(run=public, _sess=object())

    assert quick_run(without) is public
    assert quick_run(empty) is public


def test_bfloat16_bits_pass_through() -> None:
    """BF16 tensors go in and come out as bit patterns, empty ones too."""
    loaded = Model(onnx_models.identity("BF16", 2))
    bits = np.array([[0x3F80, 0x4000], [0x7FC0, 0xFF80]], "<u2")

    assert np.array_equal(loaded.run(["OUTPUT0"], {"INPUT0": bits}, None)[0], bits)
    assert loaded.run(["OUTPUT0"], {"INPUT0": bits[:0]}, None)[0].shape == (0, 2)


def test_a_stop_switch_ends_an_endless_run() -> None:
    """A run in another thread ends soon after its switch is set, and raises."""
    loaded = Model(onnx_models.endless())
    stop = loaded.stop_switch()
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            loaded.run(["Y"], {"X": np.zeros((1, 1), "<f4")}, stop)
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    stop.terminate = True
    thread.join(30)

    assert "terminate" in str(outcome[0])


def test_a_plain_reason_has_no_paths_and_one_line() -> None:
    """ONNX Runtime's prefix and the places in its sources are of no use to a reader."""
    raw = "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/a.cc:12 Bad\nthing in /home/x/m"

    assert plain_reason(RuntimeError(raw)) == "… Bad thing in …"


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_give_the_same_answer(threads: int) -> None:
    """`intra_op_threads` changes how, not what."""
    loaded = Model(onnx_models.linear(), threads=threads)
    feed = {"X": np.ones((3, 30), "<f4")}

    answer = loaded.run(["Y"], feed, None)[0]

    np.testing.assert_allclose(answer, Model(onnx_models.linear()).run(["Y"], feed, None)[0])
