"""Every metric in the table is emitted by a gateway that has seen a little of everything."""

import time
from pathlib import Path

import gateway_kit
import onnx_models
from prometheus_client.parser import text_string_to_metric_families

from serving.metric_families import FAMILIES

ROW = {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [21]}
# Spans need tracing; rows and ages a request that reads features: `test_gateway_features.py`.
# Evidence is lost where a worker is killed: `tests/fault/test_evidence_kill.py`.
NOT_HERE = {
    "sluice_spans_total",
    "sluice_feature_rows_total",
    "sluice_feature_age_seconds",
    "sluice_evidence_lost_total",
}


def test_every_metric_in_the_table_is_emitted(tmp_path: Path) -> None:
    """In Prometheus' own format, as Prometheus' own parser reads it, with the table's help."""
    folder = tmp_path / "gateway"
    gateway_kit.write_gateway(folder, log={"segment_age": "1s"})
    versions = {"v1": onnx_models.doubler(), "v2": onnx_models.slow(10)}
    gateway_kit.write_model(folder, "m", versions, {"shadow": [{"version": "v2"}]})
    one = {"v1": onnx_models.doubler()}
    gateway_kit.write_model(folder, "far", one, {}, serve={"placement": "dedicated"})
    failing = {"v1": onnx_models.picky(100), "v2": onnx_models.picky(10)}
    plan = {"canary": {"version": "v2", "weight": 100}}
    fallback = {"on_canary_error": "production"}
    gateway_kit.write_model(folder, "falls", failing, {**plan, "fallback": fallback})
    steps = [{"weight": 50, "bake": {"max": "1h", "min_samples": 1000}}, {"weight": 100}]
    rollout = {"canary": "v2", "steps": steps}
    gateway_kit.write_model(folder, "stops", failing, {}, rollout=rollout)
    with gateway_kit.running(folder) as gateway:
        assert gateway.infer("m", [ROW])[0] == 200
        assert gateway.infer("falls", [{**ROW, "datatype": "INT64", "data": [50]}])[0] == 200
        assert gateway.infer("far", [ROW])[0] == 200
        assert gateway.infer("m", [{**ROW, "datatype": "FP64"}])[0] == 400
        give_up = time.monotonic() + 30
        about = f"{gateway.admin}/api/v1/rollouts/stops"
        while time.monotonic() < give_up:
            for _ in range(20):  # until the canary, which fails, is stopped
                gateway.infer("stops", [{**ROW, "datatype": "INT64", "data": [50]}])
            code, said = gateway.ask(about, token=gateway.token)
            if code == 200 and said["phase"] in ("aborting", "aborted"):
                break
        found: dict[str, str] = {}
        give_up = time.monotonic() + 30
        while not set(FAMILIES) - NOT_HERE <= found.keys() and time.monotonic() < give_up:
            text = gateway.ask(f"{gateway.admin}/metrics")[1]
            found = {
                family.name + ("_total" if family.type == "counter" else ""): family.documentation
                for family in text_string_to_metric_families(text)
            }

    assert set(FAMILIES) - NOT_HERE - found.keys() == set()
    assert all(found[name] == FAMILIES[name].help for name in set(FAMILIES) - NOT_HERE)
