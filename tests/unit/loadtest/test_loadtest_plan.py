"""What is drawn before a run begins: mix, rows, keys."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from serving.config.decode import decode
from serving.loadtest.answers import Expected
from serving.loadtest.bodies import BinaryBodies, GrpcBodies, JsonBodies, KindSpec
from serving.loadtest.log_replay import CannotReplay
from serving.loadtest.plan import KeyColumn, Plan, TooLarge, make_plan
from serving.loadtest.popularity import draw
from serving.loadtest.scenario import Scenario
from serving.protocol import rest
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import TensorLimits

LIMITS = TensorLimits(max_elements=1000, max_inputs=10, max_json_depth=16)


def plan(
    folder: Path, requests: str, phases: str = "[{name: a, for: 10s, rate: 100}]", seed: int = 1
) -> Plan:
    """The plan of a scenario with these."""
    text = f"schema_version: 1\nname: p\nseed: {seed}\nrequests: {requests}\nphases: {phases}\n"
    decoded = decode(text, "scenario.yaml", Scenario)
    assert not decoded.problems
    return make_plan(decoded.value, folder)


def test_zipf_asks_for_a_key_in_proportion_to_its_rank() -> None:
    """The most popular of 100 keys has 1/H(100) of the requests; which it is, is drawn."""
    drawn = draw(100_000, 100, exponent=1.0, random=np.random.default_rng(1))
    counts = [count for _, count in Counter(drawn.tolist()).most_common()]
    harmonic = sum(1 / rank for rank in range(1, 101))

    assert counts[0] / 100_000 == pytest.approx(1 / harmonic, rel=0.05)
    assert counts[1] / counts[0] == pytest.approx(0.5, rel=0.1)
    assert {*drawn.tolist()} <= {*range(100)}


def test_without_an_exponent_all_keys_are_alike() -> None:
    """Each of ten keys has a tenth."""
    drawn = draw(100_000, 10, exponent=0, random=np.random.default_rng(1))

    assert np.bincount(drawn) / 100_000 == pytest.approx(np.full(10, 0.1), rel=0.1)


def test_the_mix_has_the_weights_asked_for(tmp_path: Path) -> None:
    """Three to one."""
    made = plan(
        tmp_path,
        "[{model: m, weight: 3, entity: {id: {}}}, {model: n, weight: 1, entity: {id: {}}}]",
    )

    assert (made.kind == 0).mean() == pytest.approx(0.75, abs=0.05)


def test_every_request_has_keys_of_its_own(tmp_path: Path) -> None:
    """Rows lie one after the other, of two entity tensors alike."""
    made = plan(tmp_path, "[{model: m, rows: [1, 4], entity: {a: {}, b: {first: 5000}}}]")
    order = np.argsort(made.offset)
    ends = made.offset[order] + made.rows[order]

    assert set(made.rows.tolist()) == {1, 4}
    assert made.offset[order][1:].tolist() == ends[:-1].tolist()
    [first, second] = made.columns[0]
    assert len(first.values) == len(second.values) == made.rows.sum()
    assert second.values.min() >= 5000


def test_phases_follow_each_other(tmp_path: Path) -> None:
    """The second begins where the first ends."""
    made = plan(
        tmp_path,
        "[{model: m, entity: {id: {}}}]",
        "[{name: a, for: 2s, rate: 50}, {name: b, for: 1s, rate: 50}]",
    )

    assert [(one.start, one.end) for one in made.phases] == [(0.0, 2.0), (2.0, 3.0)]
    assert (made.times[made.phase == 1] >= 2).all()
    assert (np.diff(made.times) >= 0).all()


def test_keys_come_from_a_file(tmp_path: Path) -> None:
    """Numbers as numbers, text as text; empty lines are none."""
    (tmp_path / "keys").write_text("7\n\n 9 \n")
    numbers = plan(tmp_path, "[{model: m, entity: {id: {file: keys}}}]")
    texts = plan(tmp_path, "[{model: m, entity: {id: {file: keys, datatype: BYTES}}}]")

    assert {*numbers.columns[0][0].values.tolist()} == {7, 9}
    assert texts.columns[0][0].table == [b"7", b"9"]


def test_a_file_with_a_key_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """Where numbers are asked for; it says which."""
    (tmp_path / "keys").write_text("7\nx\n")

    with pytest.raises(CannotReplay, match="key 2 is no whole number"):
        plan(tmp_path, "[{model: m, entity: {id: {file: keys}}}]")


def test_too_many_requests_are_refused_before_they_are_drawn(tmp_path: Path) -> None:
    """A plan is held in memory."""
    with pytest.raises(TooLarge, match="make it shorter or its rate lower"):
        plan(tmp_path, "[{model: m, entity: {id: {}}}]", "[{name: a, for: 1d, rate: 1000}]")


COLUMNS = [
    KeyColumn(name="id", datatype="INT64", values=np.array([3, 1, 2])),
    KeyColumn(name="who", datatype="BYTES", values=np.array([0, 1, 0]), table=[b"a", b"\xc3\xa9"]),
]
KIND = KindSpec(name="k", model="m", version="v1", expected=Expected(model="m"))


def test_every_encoding_says_the_same() -> None:
    """JSON, binary tensors and protobuf of rows 1 and 2 decode to the same tensors."""
    json_body, _ = JsonBodies(KIND, COLUMNS).make(1, 2)
    binary_body, length = BinaryBodies(KIND, COLUMNS).make(1, 2)
    proto, _ = GrpcBodies(KIND, COLUMNS).make(1, 2)

    for body, header in ((json_body, None), (binary_body, length)):
        request = rest.decode_infer(body, header, model="m", version="v1", limits=LIMITS)
        number, text = request.inputs
        assert number.data.tolist() == [1, 2]
        assert [bytes(one) for one in text.data] == [b"\xc3\xa9", b"a"]
    message = pb.ModelInferRequest.FromString(proto)
    assert (message.model_name, message.model_version) == ("m", "v1")
    assert [list(one.shape) for one in message.inputs] == [[2], [2]]
    assert message.raw_input_contents[0] == np.array([1, 2], "<i8").tobytes()
    assert message.raw_input_contents[1] == b"\x02\0\0\0\xc3\xa9\x01\0\0\0a"


def test_a_body_of_a_file_says_the_same_in_every_encoding() -> None:
    """Outputs asked for included."""
    document = (
        b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,2],"data":[[1,2]]}],'
        b'"outputs":[{"name":"y"}]}'
    )
    kind = KindSpec(name="k", model="m", body=document, expected=Expected(model="m"))
    body, length = BinaryBodies(kind, []).make(0, 1)
    request = rest.decode_infer(body, length, model="m", version="", limits=LIMITS)
    message = pb.ModelInferRequest.FromString(GrpcBodies(kind, []).make(0, 1)[0])

    assert JsonBodies(kind, []).make(0, 1) == (document, None)
    assert request.inputs[0].data.tolist() == [[1.0, 2.0]]
    assert [one.name for one in request.outputs] == ["y"]
    assert [one.name for one in message.outputs] == ["y"]
    assert message.raw_input_contents[0] == np.array([1, 2], "<f4").tobytes()
