"""The requests of the soak test: what is asked, in which shares, and what may be answered.

Each kind has a share in ordinary traffic; `even` gives all the same, so that a leak in a rare way
through the gateway shows in a short run as well.
"""

import random
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
import numpy as np
import orjson

from serving.protocol._generated import inference_pb2 as pb

__all__ = ["GRPC", "GRPC_FAILED", "GRPC_OK", "HTTP", "POOL", "Kind", "Request", "draw"]

PEOPLE: Final = 4096
STRANGERS: Final = 1 << 20
POOL: Final = 2048
_COMMON: Final = 10.0
"""From this share on a kind has a pool."""

COLUMNS: Final = 30
_OK: Final = frozenset({200})
GRPC_OK: Final = 0
GRPC_FAILED: Final = 1
"""Any status but OK: to tell them apart takes a decoder of compressed headers."""

_ANSWERED: Final = frozenset({GRPC_OK})
_REFUSED: Final = frozenset({GRPC_FAILED})


class Request(msgspec.Struct, frozen=True):
    """One request. `content` is all its bytes over HTTP, one message over gRPC.

    `leaves`: the caller hangs up after so many of its bytes; None: it stays for the answer.
    """

    kind: str
    content: bytes
    expected: frozenset[int]
    leaves: int | None = None


class Kind(msgspec.Struct, frozen=True):
    """One kind: its share of ordinary traffic (they need not add up to anything), and a request."""

    name: str
    share: float
    make: Callable[[random.Random], Request]


def draw(kinds: tuple[Kind, ...], seed: int, *, even: bool) -> Iterator[Request]:
    """Requests for ever, by share. The same seed gives the same ones.

    Of common kinds `POOL` different ones come again and again, because making a request costs the
    generator as much as sending it; of rare kinds, and with `even`, every one is new.
    """
    lottery = random.Random(seed)
    shares = [1.0 if even else kind.share for kind in kinds]
    pools: dict[str, list[Request]] = {
        kind.name: [] for kind in kinds if kind.share >= _COMMON and not even
    }
    while True:
        for kind in lottery.choices(kinds, shares, k=256):
            pool = pools.get(kind.name)
            if pool is None:
                yield kind.make(lottery)
            elif len(pool) < POOL:
                pool.append(kind.make(lottery))
                yield pool[-1]
            else:
                yield lottery.choice(pool)


# --- HTTP --------------------------------------------------------------------------------------


def _post(model: str, body: bytes, *headers: str, path: str = "infer") -> bytes:
    lines = [
        f"POST /v2/models/{model}/{path} HTTP/1.1",
        "Host: soak",
        "Content-Type: application/json",
        *headers,
        f"Content-Length: {len(body)}\r\n\r\n",
    ]
    return "\r\n".join(lines).encode() + body


def _person(lottery: random.Random) -> int:
    """Mostly somebody whose features are stored."""
    known = lottery.random() < 0.8
    return lottery.randrange(1, PEOPLE) if known else lottery.randrange(PEOPLE, STRANGERS)


def _keyed(lottery: random.Random) -> bytes:
    tensor = {
        "name": "person_id", "datatype": "INT64", "shape": [1], "data": [_person(lottery)],
    }  # fmt: skip
    return orjson.dumps({"inputs": [tensor]})


def _row(lottery: random.Random, rows: int = 1) -> list[float]:
    return [round(lottery.uniform(-2, 2), 4) for _ in range(rows * COLUMNS)]


def _json(lottery: random.Random, rows: int = 1) -> bytes:
    tensor = {
        "name": "input", "datatype": "FP32", "shape": [rows, COLUMNS], "data": _row(lottery, rows),
    }  # fmt: skip
    return orjson.dumps({"id": str(lottery.getrandbits(64)), "inputs": [tensor]})


def _by_key(lottery: random.Random) -> Request:
    return Request("by key", _post("employment", _keyed(lottery)), _OK)


def _traced(lottery: random.Random) -> Request:
    trace, span = f"{lottery.getrandbits(128):032x}", f"{lottery.getrandbits(64):016x}"
    head = f"traceparent: 00-{trace}-{span}-01"
    return Request("traced", _post("employment", _keyed(lottery), head), _OK)


def _whole(lottery: random.Random) -> Request:
    return Request("json", _post("trees", _json(lottery)), _OK)


def _many_rows(lottery: random.Random) -> Request:
    return Request("many rows", _post("trees", _json(lottery, 64)), _OK)


def _binary(lottery: random.Random) -> Request:
    data = np.array(_row(lottery), "<f4").tobytes()
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, COLUMNS], "parameters": parameters}
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = orjson.dumps(document)
    header = f"Inference-Header-Content-Length: {len(head)}"
    return Request("binary", _post("trees", head + data, header), _OK)


def _user(lottery: random.Random) -> Request:
    head = f"x-user: user-{lottery.randrange(100_000)}"
    return Request("by user", _post("scores", _json(lottery), head), _OK)


def _coming(lottery: random.Random) -> Request:
    # It is unloaded and loaded again all the time.
    return Request("coming and going", _post("coming", _json(lottery)), frozenset({200, 503}))


def _hurried(lottery: random.Random) -> Request:
    head = "x-request-timeout: 0.0005"
    return Request("hurried", _post("trees", _json(lottery), head), frozenset({200, 503, 504}))


def _no_json(lottery: random.Random) -> Request:
    body = b'{"inputs": [' + b"x" * lottery.randrange(1, 2000)
    return Request("no JSON", _post("trees", body), frozenset({400}))


def _bad_shape(lottery: random.Random) -> Request:
    wrong = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    body = orjson.dumps({"id": str(lottery.random()), "inputs": [wrong]})
    return Request("bad shape", _post("trees", body), frozenset({400}))


def _unknown_model(lottery: random.Random) -> Request:
    name = f"nobody-{lottery.getrandbits(32)}"  # a name that is remembered anywhere would show
    return Request("unknown model", _post(name, _json(lottery)), frozenset({404}))


def _unknown_path(lottery: random.Random) -> Request:
    path = f"GET /v3/{lottery.getrandbits(32)} HTTP/1.1\r\nHost: soak\r\n\r\n"
    return Request("unknown path", path.encode(), frozenset({404}))


def _metadata(lottery: random.Random) -> Request:
    name = lottery.choice(("employment", "trees", "scores"))
    path = f"GET /v2/models/{name} HTTP/1.1\r\nHost: soak\r\n\r\n"
    return Request("metadata", path.encode(), _OK)


def _no_http(lottery: random.Random) -> Request:
    junk = bytes(lottery.choices(range(33, 127), k=lottery.randrange(5, 200)))
    return Request("no HTTP", junk + b"\r\n\r\n", frozenset({400}))


def _half(lottery: random.Random) -> Request:
    content = _post("trees", _json(lottery))
    return Request("half", content, frozenset(), leaves=lottery.randrange(1, len(content)))


def _gone(lottery: random.Random) -> Request:
    content = _post("employment", _keyed(lottery))
    return Request("gone", content, frozenset(), leaves=len(content))


HTTP: Final = (
    Kind("by key", 40, _by_key),
    Kind("traced", 2, _traced),
    Kind("json", 15, _whole),
    Kind("many rows", 1, _many_rows),
    Kind("binary", 20, _binary),
    Kind("by user", 10, _user),
    Kind("coming and going", 2, _coming),
    Kind("hurried", 2, _hurried),
    Kind("no JSON", 1, _no_json),
    Kind("bad shape", 1, _bad_shape),
    Kind("unknown model", 1, _unknown_model),
    Kind("unknown path", 1, _unknown_path),
    Kind("metadata", 2, _metadata),
    Kind("no HTTP", 0.5, _no_http),
    Kind("half", 0.5, _half),
    Kind("gone", 1, _gone),
)


# --- gRPC --------------------------------------------------------------------------------------


def _message(model: str, name: str, datatype: str, shape: list[int], data: bytes) -> bytes:
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(data)
    return message.SerializeToString()


def _trees(lottery: random.Random, model: str = "trees") -> bytes:
    return _message(model, "input", "FP32", [1, COLUMNS], np.array(_row(lottery), "<f4").tobytes())


def _grpc_key(lottery: random.Random) -> Request:
    data = np.array([_person(lottery)], "<i8").tobytes()
    return Request("by key", _message("employment", "person_id", "INT64", [1], data), _ANSWERED)


def _grpc_row(lottery: random.Random) -> Request:
    return Request("raw", _trees(lottery), _ANSWERED)


def _grpc_coming(lottery: random.Random) -> Request:
    return Request("coming and going", _trees(lottery, "coming"), _ANSWERED | _REFUSED)


def _grpc_unknown(lottery: random.Random) -> Request:
    name = f"nobody-{lottery.getrandbits(32)}"
    return Request("unknown model", _trees(lottery, name), _REFUSED)


def _grpc_shape(lottery: random.Random) -> Request:
    message = _message("trees", "input", "FP32", [1, 2], lottery.randbytes(8))
    return Request("bad shape", message, _REFUSED)


def _grpc_junk(lottery: random.Random) -> Request:
    return Request("no message", b"\xff" * lottery.randrange(1, 500), _REFUSED)


def _grpc_gone(lottery: random.Random) -> Request:
    return Request("gone", _trees(lottery), frozenset(), leaves=1)


GRPC: Final = (
    Kind("by key", 50, _grpc_key),
    Kind("raw", 40, _grpc_row),
    Kind("coming and going", 2, _grpc_coming),
    Kind("unknown model", 2, _grpc_unknown),
    Kind("bad shape", 2, _grpc_shape),
    Kind("no message", 1, _grpc_junk),
    Kind("gone", 1, _grpc_gone),
)
