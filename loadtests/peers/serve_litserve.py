"""LitServe with one worker and its faster queue (ZeroMQ), without a log of requests.

The model runs in a process of its own, which LitServe has no way around. It ends its processes in
order only on a Ctrl-C, so SIGTERM is made one.
"""

import signal
from typing import Any

import litserve
from open_inference import Trees, options


class Api(litserve.LitAPI):  # type: ignore[misc]
    """The model behind LitServe's HTTP server."""

    def __init__(self, path: str, **given: Any) -> None:
        super().__init__(**given)
        self._path = path

    def setup(self, device: str) -> None:
        """Open the session, in the worker."""
        del device
        self._trees = Trees(self._path)

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        """One request; LitServe has read it, and writes what comes back."""
        answer = self._trees.answer(x["inputs"])
        for output in answer["outputs"]:
            output["data"] = output["data"].tolist()
        return answer


if __name__ == "__main__":
    told = options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = litserve.LitServer(
        Api(str(told.model), api_path="/v2/models/bench/infer"),
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=told.http,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
