import model_kit
import numpy as np
import onnx_models
import pytest

from serving.errors import InferenceFailed, InvalidRequest, ServingError
from serving.models.batch import answer, cut, join, key, union


def test_requests_of_the_same_kind_may_share_a_run() -> None:
    """The number of rows does not matter; inner shape, dtype and names do."""
    one = key({"a": np.zeros((1, 3), "<f4")}, ["a"], 1)

    assert one == key({"a": np.ones((5, 3), "<f4")}, ["a"], 5)
    assert one != key({"a": np.zeros((1, 4), "<f4")}, ["a"], 1)
    assert one != key({"a": np.zeros((1, 3), "<f8")}, ["a"], 1)


@pytest.mark.parametrize(
    "feed",
    [
        {},
        {"b": np.zeros((2, 3))},
        {"a": np.zeros((2, 3)), "b": np.zeros((2, 3))},
        {"a": np.zeros((1, 3))},
        {"a": np.float64(1.0)},
    ],
    ids=["nothing", "another name", "one too many", "another number of rows", "scalar"],
)
def test_a_request_that_does_not_fit_the_mould_runs_alone(feed: model_kit.Feed) -> None:
    """It has no key, so it joins nobody, and ONNX Runtime judges it."""
    assert key(feed, ["a"], 2) is None


def test_outputs_are_asked_for_once() -> None:
    """The run computes what anybody wants, in the order it was first named."""
    assert union([("a", "b")]) == ("a", "b")
    assert union([("b",), ("a", "b"), ("c",)]) == ("b", "a", "c")


def test_cutting_undoes_joining() -> None:
    """Every request gets its own rows back."""
    feeds = [{"x": np.arange(n * 2).reshape(n, 2) + 100 * n} for n in (1, 3, 2)]

    joined = join(feeds)
    parts = cut([joined["x"]], [1, 3, 2])

    assert all(np.array_equal(p[0], f["x"]) for p, f in zip(parts, feeds, strict=True))


def test_an_output_without_one_row_per_row_cannot_be_cut() -> None:
    """Rows must not be guessed."""
    with pytest.raises(InferenceFailed, match="one row per row"):
        cut([np.zeros((2, 1)), np.zeros((3, 1))], [1, 2])


def test_each_request_gets_the_outputs_it_asked_for() -> None:
    """Requests that want different outputs share a run all the same."""
    session = model_kit.session(onnx_models.simple())
    ones = np.ones((1, 16), "<i4")
    feeds = [{"INPUT0": ones * n, "INPUT1": ones} for n in (1, 2, 3)]

    answers, whole = answer(
        session, feeds, [1, 1, 1], [("OUTPUT1",), ("OUTPUT0", "OUTPUT1"), ("OUTPUT1", "OUTPUT0")]
    )

    values = [[int(part[0, 0]) for part in its] for its in answers]
    assert whole
    assert values == [[0], [3, 1], [2, 4]]


def test_only_the_guilty_member_of_a_failed_batch_fails() -> None:
    """The others are answered from runs of their own."""

    def refuse_nine(x: np.ndarray) -> np.ndarray:
        if 9.0 in x:
            raise InferenceFailed("nine")
        return x * 2

    runner = model_kit.FunctionRunner(refuse_nine)
    feeds = [model_kit.row(1), model_kit.row(9), model_kit.row(2, 3)]

    answers, whole = answer(runner, feeds, [1, 1, 2], [("Y",)] * 3)

    assert not whole
    assert answers[0][0].tolist() == [[2.0]]
    assert isinstance(answers[1], InferenceFailed)
    assert answers[2][0].tolist() == [[4.0], [6.0]]
    assert len(runner.runs) == 4


@pytest.mark.parametrize("error", [InvalidRequest("input 'X' is odd"), ValueError("secret")])
def test_whatever_a_run_raises_becomes_an_answer(error: Exception) -> None:
    """Our own errors keep their class and words; a foreign one says nothing of itself."""

    def fail(_: np.ndarray) -> np.ndarray:
        raise error

    answers, _ = answer(
        model_kit.FunctionRunner(fail), [model_kit.row(1), model_kit.row(2)], [1, 1], [("Y",)] * 2
    )

    for its in answers:
        assert isinstance(its, type(error) if isinstance(error, ServingError) else InferenceFailed)
        assert "secret" not in its.message
        assert its is not error
        assert its.__traceback__ is None


def test_a_stopped_batch_is_not_tried_again_one_by_one() -> None:
    """Nobody waits any more, so no member is worth another run."""
    stop = model_kit.Switch()

    def be_stopped(_: np.ndarray) -> np.ndarray:
        stop.terminate = True
        raise InferenceFailed("terminated")

    runner = model_kit.FunctionRunner(be_stopped)

    answers, whole = answer(
        runner, [model_kit.row(1), model_kit.row(2)], [1, 1], [("Y",)] * 2, stop
    )

    assert not whole
    assert len(runner.runs) == 1
    assert all(isinstance(its, InferenceFailed) for its in answers)
