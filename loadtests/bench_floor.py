"""The least a Python server can do, against which everything else is measured."""

import asyncio
import json
from typing import Any

import httptools
import numpy as np
import orjson

__all__ = ["Floor"]


class Floor(asyncio.Protocol):
    """Answers every POST with the model's probabilities. Checks nothing, knows no other verb."""

    def __init__(self, session: Any) -> None:
        self._run = session.run
        self._input = session.get_inputs()[0].name
        stated = session.get_modelmeta().custom_metadata_map.get("feature_names")
        self._columns = json.loads(stated) if stated else None
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Part of a body (httptools)."""
        self._body += body

    def on_message_complete(self) -> None:
        """A whole request (httptools): decode, run, encode, write."""
        inputs = orjson.loads(self._body)["inputs"]
        self._body = b""
        if self._columns is None:
            row = np.array(inputs[0]["data"], np.float32).reshape(inputs[0]["shape"])
        else:
            sent = {tensor["name"]: tensor["data"][0] for tensor in inputs}
            row = np.array([[sent[name] for name in self._columns]], np.float32)
        [answer] = self._run(["probabilities"], {self._input: row})
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": answer.shape,
            "data": answer.ravel(),
        }
        body = orjson.dumps({"outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
