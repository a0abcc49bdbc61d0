"""A bare ASGI application on uvicorn: httptools, uvloop, orjson, the model on the loop."""

from typing import Any

import orjson
import uvicorn
from open_inference import Trees, options


def application(model: Trees) -> Any:
    """Answers every POST."""

    async def infer(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        answer = orjson.dumps(
            model.answer(orjson.loads(body)["inputs"]), option=orjson.OPT_SERIALIZE_NUMPY
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return infer


if __name__ == "__main__":
    told = options()
    uvicorn.run(
        application(Trees(str(told.model))),
        host="127.0.0.1",
        port=told.http,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
