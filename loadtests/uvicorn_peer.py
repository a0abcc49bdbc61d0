"""A bare ASGI application on uvicorn as the benchmark's peer: one process, on loopback.

    python loadtests/uvicorn_peer.py --port 8000 --model model.onnx
    python loadtests/uvicorn_peer.py --port 8000 --model model.onnx --limit-concurrency 32

It answers every POST like the gateway does: Open Inference Protocol V2 in JSON, read and written by
orjson, one `session.run` a request, on the loop. uvloop and httptools are what uvicorn itself picks
where they are installed; there is no access log. Nothing bounds what waits, which is uvicorn's
default; `--limit-concurrency` has it answer 503 past so many open connections.

The process runs until it is told to end (SIGTERM, Ctrl-C).
"""

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from ray_serve_peer import Codec, Model


def application(path: str) -> Any:
    """A raw ASGI application with the model inside."""
    model = Model(path)
    codec = Codec(model.columns)

    async def infer(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message.get("more_body", False)
        answer = codec.answer(model.run(codec.row(body)))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return infer


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True, help="where it listens, on 127.0.0.1")
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file")
    parser.add_argument(
        "--limit-concurrency", type=int, help="answer 503 past so many connections (no limit)"
    )
    options = parser.parse_args()
    uvicorn.run(
        application(str(options.model.resolve(strict=True))),
        host="127.0.0.1",
        port=options.port,
        lifespan="off",
        log_level="warning",
        access_log=False,
        limit_concurrency=options.limit_concurrency,
    )


if __name__ == "__main__":
    main()
