"""What a server is asked, when its answer is right, and what its CPU time is divided by."""

from pathlib import Path

import compare_kit
import msgspec
import pytest
import script_kit

from serving.protocol import rest, tensors
from serving.protocol._generated import inference_pb2 as pb

servers = script_kit.module("compare_servers")
measure = script_kit.module("compare_measure")
catalogue = script_kit.module("peers.catalogue")
LIMITS = tensors.TensorLimits(max_elements=1 << 20, max_inputs=16, max_json_depth=16)


def test_a_binary_request_says_what_the_grpc_one_says() -> None:
    """The gateway's own reader finds the same tensor in it, and that the answer is to be binary."""
    message = pb.ModelInferRequest(model_name="bench")
    message.inputs.add(name="input", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.append(b"\0\0\x80?\0\0\0@")

    body, json_length = measure.binary_message(message.SerializeToString())
    read = rest.decode_infer(body, json_length, model="bench", version="", limits=LIMITS)

    [tensor] = read.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("input", "FP32", [1, 2])
    assert bytes(tensors.to_raw(tensor)) == message.raw_input_contents[0]
    assert read.parameters["binary_data_output"] is True


@pytest.mark.parametrize(
    "body",
    [
        b'{"outputs":[{"name":"probabilities","data":[0.25,0.75]}]}',
        b'{"outputs":[{"name":"label","data":[1]},{"name":"probabilities","data":[[0.25,0.75]]}]}',
    ],
)
def test_the_models_numbers_are_right_flat_or_nested(body: bytes) -> None:
    """The protocol allows both."""
    assert servers.wrong(body, [0.25, 0.75]) == ""


@pytest.mark.parametrize(
    "body",
    [
        b'{"outputs":[{"name":"probabilities","data":[0.75,0.25]}]}',
        b'{"outputs":[{"name":"probabilities","data":[0.25]}]}',
        b'{"outputs":[{"name":"probabilities","data":["a","b"]}]}',
        b'{"outputs":[{"name":"label","data":[1]}]}',
        b'{"predictions":[[0.25,0.75]]}',
        b"[]",
        b"<html>",
        b"",
    ],
)
def test_anything_else_is_wrong(body: bytes) -> None:
    """Other numbers, too few, none, another protocol, no JSON: 200 alone proves nothing."""
    assert servers.wrong(body, [0.25, 0.75]).startswith("WRONG")


def test_what_a_server_uses_anyhow_is_not_the_requests() -> None:
    """A tenth of a core for two seconds, off half a second of CPU; never below nothing."""
    found = measure.net_us(
        {"worker": 0.5, "manager": 0.01}, {"worker": 0.1, "manager": 0.02}, seconds=2, requests=1000
    )

    assert found == {"worker": pytest.approx(300.0), "manager": 0.0}


@pytest.mark.parametrize("peer", catalogue.PEERS, ids=lambda one: one.name)
def test_a_peer_has_a_script_and_says_what_it_needs(peer: object) -> None:
    """The package whose version is told is pinned among its requirements."""
    assert peer.script.exists()
    assert f"{peer.package}==" in peer.requirements.read_text()


def test_a_peer_that_is_not_installed_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment whose installation did not come to its end does not count."""
    peer = catalogue.PEERS[0]
    monkeypatch.setattr(catalogue, "ENVIRONMENTS", tmp_path)
    (tmp_path / peer.name / "bin").mkdir(parents=True)

    assert f"python -m loadtests.peers install {peer.name}" in catalogue.installed(peer)

    (tmp_path / peer.name / catalogue.MARK).touch()
    assert catalogue.installed(peer) == ""


def test_no_two_rows_share_a_name() -> None:
    """Names are what `--only` takes and figures are found by."""
    names = [row.name for server in servers.SERVERS for row in server.rows]

    assert len(set(names)) == len(names)
    assert {row.protocol for server in servers.SERVERS for row in server.rows} == {
        "http",
        "binary",
        "grpc",
    }


def test_every_aim_is_about_a_row_that_there_is() -> None:
    """A renamed row would leave its aim unmeasured for ever."""
    names = {row.name for server in servers.SERVERS for row in server.rows}

    assert {aim.row for aim in script_kit.module("compare_figures").AIMS} <= names


def test_figures_survive_their_file() -> None:
    """What `--json` writes is what `--from` reads."""
    made = compare_kit.report(compare_kit.row("x", compare_kit.sample(1, 100.0, p99=300.0)))

    assert msgspec.json.decode(msgspec.json.encode(made), type=type(made)) == made
