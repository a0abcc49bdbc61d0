"""What the benchmark sends: a model, requests for it, and the answers they must get."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
import orjson
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from serving.config.snapshot import RolloutTraffic
from serving.protocol._generated import inference_pb2 as pb

__all__ = [
    "DEMO",
    "FREE_PORTS",
    "PAYLOADS",
    "ROLLOUT",
    "Workload",
    "build",
    "gateway_directory",
    "open_session",
]

PEOPLE: Final = 4096
"""Of the demo, asked for in turn: so many that hardly two requests at a time want the same."""

ROWS: Final = 16
"""Different requests, sent in turn: a reply that belongs to another connection shows."""

DEMO: Final = Path(__file__).parents[1] / "configs" / "demo"
FREE_PORTS: Final = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"}

TREES: Final = 100
DEPTH: Final = 3
COLUMNS: Final = 30

ROLLOUT: Final = RolloutTraffic(
    id="bench-r1",
    revision=1,
    canary="v2",
    production="v1",
    weight=5.0,
    salt="bench-r1",
    counting=True,
    latency_bounds={"slow": [0.005, 0.02, 0.05]},
    bins={"scores": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]},
)
"""From v1 to v2 of the model `bench`, as workers see it; `slow` and `scores` are rules of it."""


class Workload(NamedTuple):
    """One model and `ROWS` requests for it.

    `http` are JSON bodies, `grpc` serialised `ModelInferRequest`s with raw contents;
    `expected[i]` are the probabilities, shape [2], that request i must be answered with.
    `floor` are JSON bodies for the floor, where it cannot be asked the same. `near_cache` is what
    the gateway may keep of what it reads from the store, None for a payload that reads nothing.
    """

    name: str
    model: str
    artifact: Path
    http: list[bytes]
    grpc: list[bytes]
    expected: list[list[float]]
    floor: tuple[bytes, ...] = ()
    near_cache: str | None = None

    @property
    def ready_made(self) -> "Workload":
        """The same for a server without a store: rows are sent where keys would be."""
        return self._replace(http=list(self.floor)) if self.floor else self


def open_session(artifact: Path) -> onnxruntime.InferenceSession:
    """One thread, sequential, as the gateway runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])


def gateway_directory(workload: Workload, folder: Path, *, record: bool = False) -> Path:
    """Write a configuration that serves the workload on free ports, without shadow copies.

    Every worker keeps its newest prediction records in memory; with `record` it also writes all
    of them to the prediction log.

    The floor runs the model once per request, so the gateway must not run it more often.
    """
    artifact = folder / "artifacts" / "v1.onnx"
    artifact.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(workload.artifact, artifact)
    source = {
        "path": "../artifacts/v1.onnx",
        "sha256": hashlib.sha256(artifact.read_bytes()).hexdigest(),
    }
    model: dict[str, Any] = {"schema_version": 1, "model": workload.model}
    gateway: dict[str, Any] = {"schema_version": 1, "listen": FREE_PORTS}
    if workload.model == "employment":
        shutil.copytree(DEMO / "features", folder / "features", dirs_exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        shutil.copyfile(DEMO / "data" / "people.parquet", folder / "data" / "people.parquet")
        # A machine that stalls costs latency, not answers.
        gateway["features"] = {"near_cache": workload.near_cache or "0B", "timeout": "5s"}
        model = yaml.safe_load((DEMO / "models" / "employment.yaml").read_text())
        for asks_for_more in ("rollout", "monitoring"):  # a second version, a reference
            del model[asks_for_more]
        if workload.name.startswith("join3"):
            model["inputs"]["X"]["features"] = _three_views(folder / "features")
    model |= {"versions": {"v1": source}, "traffic": {"production": "v1"}}
    if record:
        gateway["log"] = {}
    # A machine that stalls for a moment must cost latency, not answers.
    model["serve"] = {**model.get("serve", {}), "deadline": "10s"}
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "bench.yaml").write_text(yaml.safe_dump(model))
    (folder / "gateway.yaml").write_text(yaml.safe_dump(gateway))
    return folder


def _trees_1x30(folder: Path) -> Workload:
    """100 trees of depth 3 over 30 columns, seeded, built node by node: nothing is trained."""
    artifact = folder / "trees.onnx"
    artifact.write_bytes(_tree_model().SerializeToString())
    rows = np.random.default_rng(30).normal(size=(ROWS, COLUMNS)).round(4).astype(np.float32)
    tensors = [[("input", "FP32", row.reshape(1, COLUMNS))] for row in rows]
    return _workload("1x30", "bench", artifact, tensors, rows)


def _demo(folder: Path) -> Workload:
    """The demo's v1 with every feature sent, for sixteen ages of the example's person."""
    del folder
    inputs = json.loads((DEMO / "example-request-features.json").read_text())["inputs"]
    artifact = DEMO / "artifacts" / "employment-v1.onnx"
    columns = json.loads(
        open_session(artifact).get_modelmeta().custom_metadata_map["feature_names"]
    )
    dtypes = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}
    requests = []
    for index in range(ROWS):
        changed = {"AGEP": [18.0 + 4 * index], "person_id": [index + 1]}
        requests.append(
            [
                (
                    tensor["name"],
                    tensor["datatype"],
                    np.array(
                        changed.get(tensor["name"], tensor["data"]), dtypes[tensor["datatype"]]
                    ).reshape(tensor["shape"]),
                )
                for tensor in inputs
            ]
        )
    rows = np.array(
        [[{n: a.item() for n, _, a in tensors}[c] for c in columns] for tensors in requests],
        np.float32,
    )
    return _workload("demo", "employment", artifact, requests, rows)


def _three_views(features: Path) -> list[str]:
    """Split the demo's two views into three, of 8, 4 and 4 fields; say what a model takes."""
    profile = yaml.safe_load((features / "person_profile.yaml").read_text())
    senses = {name: profile["fields"].pop(name) for name in ("DIS", "DEAR", "DEYE", "DREM")}
    third = {**profile, "view": "person_senses", "fields": senses}
    for view in (profile, third):
        (features / f"{view['view']}.yaml").write_text(yaml.safe_dump(view))
    return ["person_profile.*", "person_senses.*", "person_household.*"]


def _join(folder: Path, name: str = "join", near_cache: str = "0B") -> Workload:
    """The demo's v1 asked by `person_id` alone; the floor is sent that person's row, ready made."""
    del folder
    artifact = DEMO / "artifacts" / "employment-v1.onnx"
    columns = json.loads(
        open_session(artifact).get_modelmeta().custom_metadata_map["feature_names"]
    )
    table = pq.read_table(DEMO / "data" / "people.parquet").slice(0, PEOPLE)
    rows = np.stack([table[name].to_numpy() for name in columns], 1).astype(np.float32)
    keys = [[("person_id", "INT64", np.array([one]))] for one in table["person_id"].to_pylist()]
    made = _workload(name, "employment", artifact, keys, rows)
    whole = [
        [(name, "FP32", row[at : at + 1, None]) for at, name in enumerate(columns)] for row in rows
    ]
    return made._replace(floor=tuple(_json(tensors) for tensors in whole), near_cache=near_cache)


PAYLOADS: Final = {
    "1x30": _trees_1x30,
    "demo": _demo,
    "join": _join,
    # Three views. Without a near cache; with one that is too small for people asked in turn, so
    # that every row is missed, kept and driven out; and with one that holds them all.
    "join3": partial(_join, name="join3"),
    "join3-missed": partial(_join, name="join3-missed", near_cache="256KiB"),
    "join3-hit": partial(_join, name="join3-hit", near_cache="64MiB"),
}


def build(name: str, folder: Path) -> Workload:
    """Make the payload `name`, one of `PAYLOADS`, with whatever files it needs in `folder`."""
    return PAYLOADS[name](folder)


Tensors = list[tuple[str, str, NDArray[Any]]]


def _workload(
    name: str, model: str, artifact: Path, requests: list[Tensors], rows: NDArray[np.float32]
) -> Workload:
    session = open_session(artifact)
    [model_input] = (tensor.name for tensor in session.get_inputs())
    # One row at a time, as both servers are asked.
    answers = [session.run(["probabilities"], {model_input: row[None]})[0][0] for row in rows]
    return Workload(
        name,
        model,
        artifact,
        [_json(tensors) for tensors in requests],
        [_protobuf(model, tensors) for tensors in requests],
        [answer.tolist() for answer in answers],
    )


def _json(tensors: Tensors) -> bytes:
    inputs = [
        {"name": name, "datatype": datatype, "shape": data.shape, "data": data.ravel()}
        for name, datatype, data in tensors
    ]
    return orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY)


def _protobuf(model: str, tensors: Tensors) -> bytes:
    message = pb.ModelInferRequest(model_name=model)
    for name, datatype, data in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=data.shape)
        message.raw_input_contents.append(data.tobytes())
    return message.SerializeToString()


def _tree_model() -> ModelProto:
    """Complete binary trees, numbered as a heap: node n's children are 2n + 1 and 2n + 2."""
    random = np.random.default_rng(100)
    inner, leaves = 2**DEPTH - 1, 2**DEPTH
    nodes = [(tree, node) for tree in range(TREES) for node in range(inner + leaves)]
    is_leaf = [node >= inner for _, node in nodes]
    leaf_nodes = [pair for pair, leaf in zip(nodes, is_leaf, strict=True) if leaf]
    ensemble = helper.make_node(
        "TreeEnsembleClassifier",
        ["input"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[tree for tree, _ in nodes],
        nodes_nodeids=[node for _, node in nodes],
        nodes_featureids=[
            0 if leaf else int(column)
            for leaf, column in zip(is_leaf, random.integers(0, COLUMNS, len(nodes)), strict=True)
        ],
        nodes_values=[
            0.0 if leaf else float(value)
            for leaf, value in zip(is_leaf, random.normal(size=len(nodes)), strict=True)
        ],
        nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        nodes_truenodeids=[
            0 if leaf else 2 * n + 1 for leaf, (_, n) in zip(is_leaf, nodes, strict=True)
        ],
        nodes_falsenodeids=[
            0 if leaf else 2 * n + 2 for leaf, (_, n) in zip(is_leaf, nodes, strict=True)
        ],
        class_treeids=[tree for tree, _ in leaf_nodes],
        class_nodeids=[node for _, node in leaf_nodes],
        class_ids=[0] * len(leaf_nodes),
        class_weights=[float(weight) for weight in random.normal(0, 0.1, len(leaf_nodes))],
        classlabels_int64s=[0, 1],
        post_transform="LOGISTIC",
    )
    graph = helper.make_graph(
        [ensemble],
        "trees",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)
