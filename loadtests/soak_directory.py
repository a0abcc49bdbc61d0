"""The configuration of the soak test, and how it changes: what a busy year does to a gateway.

Three models. `employment` is the demo's, asked by key, with two feature views and a rollout that
goes on throughout. `trees` gets a new release every fourth change, the one before stays as its
shadow. `scores` begins a rollout every fourth change, which is over within a second or two. A
fourth, `coming`, is unloaded and loaded again through the repository calls.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any, Final

import onnx
import yaml
from bench_workloads import DEMO, FREE_PORTS, build

__all__ = ["Directory"]

_KINDS: Final = ("view", "release", "rollout", "shadow")
_STEADY: Final = {"errors", "slow", "missing"}
"""Rules of the demo's rollout that keep it going: its versions differ in their scores."""


class Directory:
    """A configuration directory on disk, and its changes."""

    def __init__(self, folder: Path, *, workers: int, otlp: str) -> None:
        self.folder = folder
        self._artifacts = folder / "artifacts"
        for name in ("models", "artifacts", "data"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(DEMO / "features", folder / "features")
        shutil.copyfile(DEMO / "data" / "people.parquet", folder / "data" / "people.parquet")
        self._trees = onnx.load(build("1x30", self._artifacts).artifact)
        (self._artifacts / "trees.onnx").unlink()
        self._percent = 25
        self._days = 1
        self._releases = [self._release("trees", 0)]
        self._scores = [self._release("scores", 0)]
        self._write(
            folder / "gateway.yaml",
            {
                "schema_version": 1,
                "listen": FREE_PORTS,
                "engine": {"kind": "local", "workers": workers},
                # As small as the keys that are asked for overflow soon: a full cache is a warm one.
                "features": {"near_cache": "1MiB", "timeout": "20s"},
                "limits": {"default_deadline": "60s"},
                "log": {
                    "path": "predictions",
                    "retention": "1d",
                    "max_size": "256MiB",
                    "segment_age": "10s",  # a segment is open for each version of that time
                },
                "tracing": {"otlp": otlp, "sample": 0.01},
            },
        )
        self._write_employment()
        self._write_trees()
        self._write_scores(rollout=False)
        self._write_model("coming", [self._release("coming", 0)], {"production": "r0"})

    @property
    def candidate(self) -> str:
        """The version of `scores` whose rollout began last; empty before the first."""
        return self._scores[-1] if len(self._scores) > 1 else ""

    def change(self, number: int, *, rollout_over: bool) -> str:
        """Make change `number`, from 1 on. A rollout must be over before the next can begin."""
        kind = _KINDS[number % len(_KINDS)]
        if kind == "rollout" and not rollout_over:
            kind = "shadow"
        match kind:
            case "release":
                self._releases = [*self._releases[-1:], self._release("trees", number)]
                self._write_trees()
            case "rollout":
                self._scores = [*self._scores[-1:], self._release("scores", number)]
                self._write_scores(rollout=True)
            case "shadow":
                self._percent = 10 if self._percent != 10 else 25
                self._write_trees()
            case "view":
                self._days = 3 - self._days
                path = self.folder / "features" / "person_household.yaml"
                view = yaml.safe_load(path.read_text())
                self._write(path, view | {"fresh_for": f"{self._days}d"})
        return kind

    def _release(self, model: str, number: int) -> str:
        """Write a file that no other release has; the same trees."""
        onnx.helper.set_model_props(self._trees, {"release": f"{model} {number}"})
        name = f"r{number}"
        (self._artifacts / f"{model}-{name}.onnx").write_bytes(self._trees.SerializeToString())
        return name

    def _write_employment(self) -> None:
        for version in ("v1", "v2"):
            shutil.copyfile(
                DEMO / "artifacts" / f"employment-{version}.onnx",
                self._artifacts / f"employment-{version}.onnx",
            )
        shutil.copyfile(
            DEMO / "artifacts" / "employment-reference.json",
            self._artifacts / "employment-reference.json",
        )
        model = yaml.safe_load((DEMO / "models" / "employment.yaml").read_text())
        model["serve"]["deadline"] = "60s"
        model["traffic"].pop("overrides")
        plan = model["rollout"]
        plan["steps"] = [{"weight": 10, "bake": {"min": "1d", "max": "7d"}}, {"weight": 100}]
        rules = [rule for rule in plan["guardrails"]["rules"] if rule["name"] in _STEADY]
        plan["guardrails"]["rules"] = [
            rule | ({"exceeds": "5s"} if rule["name"] == "slow" else {}) for rule in rules
        ]
        self._write(self.folder / "models" / "employment.yaml", model)

    def _write_trees(self) -> None:
        new = self._releases[-1]
        traffic: dict[str, Any] = {"production": new}
        if len(self._releases) > 1:
            traffic["shadow"] = [{"version": self._releases[0], "percent": self._percent}]
        self._write_model("trees", self._releases, traffic)

    def _write_scores(self, *, rollout: bool) -> None:
        quick = {"min": "0s", "max": "1h", "min_samples": 20}
        plan = {
            "canary": self._scores[-1],
            "steps": [{"weight": 50, "bake": quick}, {"weight": 100}],
            "guardrails": {"rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}]},
        }
        self._write_model(
            "scores",
            self._scores,
            {
                "production": self._scores[0],
                "assignment": {"header": "x-user", "on_missing_key": "random"},
            },
            **({"rollout": plan} if rollout else {}),
        )

    def _write_model(
        self, name: str, versions: list[str], traffic: dict[str, Any], **more: Any
    ) -> None:
        sources = {}
        for version in versions:
            path = self._artifacts / f"{name}-{version}.onnx"
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            sources[version] = {"path": f"../artifacts/{path.name}", "sha256": digest}
        document = {
            "schema_version": 1,
            "model": name,
            "versions": sources,
            "serve": {"deadline": "60s"},
            "traffic": traffic,
            **more,
        }
        self._write(self.folder / "models" / f"{name}.yaml", document)

    @staticmethod
    def _write(path: Path, document: dict[str, Any]) -> None:
        path.write_text(yaml.safe_dump(document, sort_keys=False))
