"""Train the demo's two model versions on 2015 and write them as ONNX.

    python configs/demo/train.py

v1 is gradient-boosted trees, v2 a small neural network whose graph holds the scaling of its
inputs. Both take `X`, FP32 [n, 16], and give `label`, INT64 [n], and `probabilities`,
FP32 [n, 2]; the file's metadata key `feature_names` says what the 16 columns are. The
script then scores both on people of later years. Seeds are fixed and one thread computes,
so the same machine and package versions give the same bytes again.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from census import DATA, FEATURES, Census, read
from numpy.typing import NDArray
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

TRAINED_ON: Final = 2015
HELD_OUT: Final = (2016, 2017, 2018)
SEED: Final = 2015
TREES: Final = 100
EPOCHS: Final = 40
# Both are older than the oldest ONNX Runtime we accept.
OPSET: Final = {"": 18, "ai.onnx.ml": 3}
TOLERANCE: Final = 1e-5

Session = onnxruntime.InferenceSession


def train_trees(train: Census) -> HistGradientBoostingClassifier:
    """Gradient-boosted trees, ten at a time so that progress shows."""
    model = HistGradientBoostingClassifier(
        learning_rate=0.1,
        max_leaf_nodes=15,
        min_samples_leaf=40,
        early_stopping=False,
        warm_start=True,
        random_state=SEED,
    )
    for trees in range(10, TREES + 1, 10):
        model.set_params(max_iter=trees).fit(train.features, train.employed)
        loss = log_loss(train.employed, model.predict_proba(train.features))
        print(f"v1  {trees:3}/{TREES} trees   log loss {loss:.4f}", flush=True)
    return model


def train_network(train: Census) -> Pipeline:
    """Two hidden layers on standardised inputs, epoch by epoch so that progress shows."""
    scale = StandardScaler().fit(train.features)
    inputs = scale.transform(train.features)
    network = MLPClassifier(
        hidden_layer_sizes=(64, 64),
        alpha=1e-2,
        batch_size=1024,
        learning_rate_init=1e-3,
        random_state=SEED,
    )
    for epoch in range(1, EPOCHS + 1):
        network.partial_fit(inputs, train.employed, classes=[0, 1])
        if epoch % 5 == 0:
            print(f"v2  {epoch:3}/{EPOCHS} epochs  log loss {network.loss_:.4f}", flush=True)
    return Pipeline([("scale", scale), ("network", network)])


def export(model: Any, path: Path, version: str) -> None:
    """Write ONNX: plain tensors (no ZipMap), column names in the file's own metadata."""
    graph = to_onnx(
        model,
        np.zeros((1, len(FEATURES)), np.float32),
        name=f"employment-{version}",
        options={"zipmap": False},
        target_opset=OPSET,
    )
    onnx.helper.set_model_props(graph, {"feature_names": json.dumps(FEATURES)})
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString(deterministic=True))


def open_session(path: Path) -> Session:
    """One thread, as the gateway runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return Session(path, options, providers=["CPUExecutionProvider"])


def verify(model: Any, session: Session, people: Census) -> float:
    """Compare the file with the model it came from, on everybody.

    Returns the largest difference of a probability. Raises SystemExit if it, or any label
    that is not a near tie, differs.
    """
    label, probabilities = session.run(["label", "probabilities"], {"X": people.features})
    expected = model.predict_proba(people.features)
    difference = float(np.abs(probabilities - expected).max())
    decided = np.abs(expected[:, 1] - 0.5) > TOLERANCE
    agree = (label == model.predict(people.features))[decided].all()
    if difference > TOLERANCE or not agree:
        raise SystemExit(f"the ONNX file differs from the trained model by {difference:.1e}")
    return difference


def single_row_microseconds(session: Session, rows: NDArray[np.float32]) -> float:
    """CPU time of one row, both outputs: the best of five passes over `rows`."""
    passes = []
    for _ in range(5):
        start = time.process_time()
        for index in range(len(rows)):
            session.run(None, {"X": rows[index : index + 1]})
        passes.append((time.process_time() - start) / len(rows) * 1e6)
    return min(passes)


def score(session: Session, people: Census) -> tuple[float, float, float]:
    """Accuracy, log loss and area under the ROC curve of the file itself."""
    label, probabilities = session.run(["label", "probabilities"], {"X": people.features})
    employed = probabilities[:, 1].astype(np.float64)
    return (
        accuracy_score(people.employed, label),
        log_loss(people.employed, employed),
        roc_auc_score(people.employed, employed),
    )


def table(sessions: dict[str, Session], data: Path, years: Iterable[int]) -> str:
    """Scores on people the models have not seen, one line a version and year."""
    lines = ["version  year  people  accuracy  log loss     AUC"]
    held_out = {year: read(data, {year}) for year in years}
    for version, session in sessions.items():
        for year, people in held_out.items():
            accuracy, loss, area = score(session, people)
            line = f"{version:7}  {year}  {len(people.year):6}"
            lines.append(f"{line}  {accuracy:8.4f}  {loss:8.4f}  {area:6.4f}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, train, export, verify, score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="Parquet file of people")
    parser.add_argument(
        "--out", type=Path, default=DATA.parents[1] / "artifacts", help="folder for the ONNX files"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    train = read(arguments.data, {TRAINED_ON})
    print(f"training on {len(train.year):,} people of {TRAINED_ON}")
    sessions, files = {}, []
    for version, fit in (("v1", train_trees), ("v2", train_network)):
        with threadpool_limits(1):  # sums in one order: the same bytes on every run
            model = fit(train)
        path = arguments.out / f"employment-{version}.onnx"
        export(model, path, version)
        session = sessions[version] = open_session(path)
        difference = verify(model, session, train)
        took = single_row_microseconds(session, train.features[:2000])
        print(f"{version}  ONNX equals scikit-learn within {difference:.0e}; {took:.1f} µs a row")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(f"{digest}  {path.name}  {path.stat().st_size:,} bytes")

    print("\n" + table(sessions, arguments.data, HELD_OUT) + "\n")
    print("\n".join(files))


if __name__ == "__main__":
    main()
