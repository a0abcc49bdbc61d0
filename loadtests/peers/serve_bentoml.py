"""BentoML with one worker, without access log, metrics and tracing.

`bentoml serve` imports this file again, in a process that it starts; the model's path travels in
the environment.
"""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
from open_inference import Trees, options

MODEL = "SLUICE_COMPARE_MODEL"


@bentoml.service(
    workers=1,
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
)
class Served:
    """The model behind BentoML's HTTP server."""

    def __init__(self) -> None:
        self._trees = Trees(os.environ[MODEL])

    @bentoml.api(route="/v2/models/bench/infer")
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """BentoML has read `inputs` of the body, and writes what comes back."""
        answer = self._trees.answer(inputs)
        for output in answer["outputs"]:
            output["data"] = output["data"].tolist()
        return answer


if __name__ == "__main__":
    told = options()
    os.environ[MODEL] = str(told.model.resolve(strict=True))
    program = Path(sys.executable).parent / "bentoml"
    here = ["--working-dir", str(Path(__file__).parent), "--quiet"]
    where = ["--host", "127.0.0.1", "--port", str(told.http)]
    os.execv(program, [str(program), "serve", f"{Path(__file__).stem}:Served", *where, *here])  # noqa: S606
