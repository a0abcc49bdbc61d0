"""What a client may send wrong over HTTP, one row each: bytes, status, and whether it closes."""

# ruff: noqa: E501 - a row is a line

import gzip
import json
import zlib
from typing import NamedTuple

from http_rig import infer, request

__all__ = [
    "BODIES",
    "FRAMING",
    "GOOD",
    "INFER",
    "MAX_BODY",
    "MAX_HEADER",
    "MODELS",
    "PATHS",
    "Row",
    "post",
]

MAX_BODY = 64 << 10
MAX_HEADER = 4 << 10
INFER = "/v2/models/echo/infer"
CHUNKED = "Transfer-Encoding: chunked\r\n"


class Row(NamedTuple):
    """One thing a client may send, and what must come of it."""

    name: str
    data: bytes
    status: int
    closes: bool
    says: str = ""


def tensor(**changes: object) -> bytes:
    """An inference body with one input changed."""
    entry: dict[str, object] = {"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
    entry.update(changes)
    entry = {key: value for key, value in entry.items() if value is not ...}
    return json.dumps({"inputs": [entry]}).encode()


def post(body: bytes, headers: str = "", target: str = INFER) -> bytes:
    """A POST with a body and its length."""
    return request("POST", target, body, headers)


def binary(declared: int, sent: bytes, header: str | None = None) -> bytes:
    """A binary request that declares and sends what it is told to."""
    text = tensor(data=..., parameters={"binary_data_size": declared})
    length = header if header is not None else str(len(text))
    return post(text + sent, f"Inference-Header-Content-Length: {length}\r\n")


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n", headers: str = CHUNKED) -> bytes:
    """A chunked POST of these parts."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return request("POST", INFER, None, headers) + body + end


GOOD = tensor()

FRAMING = [
    Row("no host", request(host=""), 400, True, "Host"),
    Row("two hosts", request(headers="Host: other\r\n"), 400, True, "host"),
    Row("two equal hosts", request(headers="Host: test\r\n"), 400, True, "host"),
    Row("host list", request(host="Host: a, b\r\n"), 400, True, "Host"),
    Row("host with user", request(host="Host: a@b\r\n"), 400, True, "Host"),
    Row("host with space", request(host="Host: a b\r\n"), 400, True, "Host"),
    Row("two hosts in 1.0", request(headers="Host: b\r\n", version="HTTP/1.0"), 400, True, "host"),
    Row(
        "length and chunked",
        request("POST", INFER, None, "Content-Length: 5\r\n" + CHUNKED) + b"0\r\n\r\n",
        400, True, "Content-Length",
    ),
    Row(
        "chunked and length",
        request("POST", INFER, None, CHUNKED + "Content-Length: 5\r\n") + b"0\r\n\r\n",
        400, True, "Content-Length",
    ),
    Row("two lengths", post(GOOD, f"Content-Length: {len(GOOD)}\r\n"), 400, True, "Content-Length"),
    Row("two different lengths", post(GOOD, "Content-Length: 1\r\n"), 400, True, "Content-Length"),
    Row("length list", request("POST", INFER, None, "Content-Length: 3, 3\r\n") + b"{} ", 400, True),
    Row("length with plus", request("POST", INFER, None, "Content-Length: +3\r\n"), 400, True),
    Row("negative length", request("POST", INFER, None, "Content-Length: -3\r\n"), 400, True),
    Row("hexadecimal length", request("POST", INFER, None, "Content-Length: 0x3\r\n"), 400, True),
    Row("empty length", request("POST", INFER, None, "Content-Length:\r\n"), 400, True),
    Row("length beyond 64 bits", request("POST", INFER, None, f"Content-Length: {'9' * 30}\r\n"), 400, True),
    Row("length with space", request("POST", INFER, None, "Content-Length : 3\r\n"), 400, True),
    Row("gzip transfer", chunks(headers="Transfer-Encoding: gzip, chunked\r\n"), 501, True, "chunked"),
    Row("identity transfer", chunks(headers="Transfer-Encoding: identity\r\n"), 400, True, "Transfer-Encoding"),
    Row("almost chunked", chunks(headers="Transfer-Encoding: xchunked\r\n"), 400, True, "Transfer-Encoding"),
    Row("chunked twice", chunks(headers=CHUNKED + CHUNKED), 400, True),
    Row("hidden chunked", chunks(headers="Transfer-Encoding: \x0bchunked\r\n"), 400, True),
    Row(
        "chunked in 1.0",
        request("POST", INFER, None, CHUNKED, version="HTTP/1.0") + b"0\r\n\r\n",
        400, True, "HTTP/1.0",
    ),
    Row("folded header", request(headers="X-A: b\r\n c\r\n"), 400, True),
    Row("header first folded", b"GET /v2 HTTP/1.1\r\n Host: a\r\n\r\n", 400, True),
    Row("bare LF everywhere", b"GET /v2 HTTP/1.1\nHost: a\n\n", 400, True),
    Row("bare LF in one header", b"GET /v2 HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, True),
    Row("bare CR in a value", request(headers="X-A: b\rc\r\n"), 400, True),
    Row("NUL in a value", request(headers="X-A: b\0c\r\n"), 400, True),
    Row("space in a name", request(headers="X A: b\r\n"), 400, True),
    Row("empty name", request(headers=": b\r\n"), 400, True),
    Row("no colon", request(headers="Nothing\r\n"), 400, True),
    Row("double space", b"GET  /v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True, "single spaces"),
    Row("late double space", b"GET /v2  HTTP/1.1\r\nHost: a\r\n\r\n", 400, True, "single spaces"),
    Row("tab", b"GET\t/v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True),
    Row("trailing space", b"GET /v2 HTTP/1.1 \r\nHost: a\r\n\r\n", 400, True),
    Row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505, True, "HTTP/2"),
    Row("version 2.0", b"GET /v2 HTTP/2.0\r\nHost: a\r\n\r\n", 505, True, "HTTP/1.1"),
    Row("version 1.2", b"GET /v2 HTTP/1.2\r\nHost: a\r\n\r\n", 505, True, "HTTP/1.1"),
    Row("version 0.9", b"GET /v2\r\n\r\n", 400, True),
    Row("another protocol", b"OPTIONS * RTSP/1.0\r\nHost: a\r\n\r\n", 505, True),
    Row("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32, 400, True),
    Row("unknown method", b"FETCH /v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True),
    Row("lower-case method", b"get /v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True),
    Row("CONNECT", b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n", 405, True, "CONNECT"),
    Row("target without slash", b"GET @evil/v2 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True),
    Row("high bytes in the target", b"GET /v2/models/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True),
    Row("control in the target", b"GET /v2/\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, True),
    Row("large head", request(headers=f"X-A: {'b' * MAX_HEADER}\r\n"), 431, True, "max_header"),
    Row("many headers", request(headers="X-A: b\r\n" * 600), 431, True, "max_header"),
    Row("large target", request(target="/v2/" + "a" * MAX_HEADER), 431, True, "max_header"),
    Row("declared too large", request("POST", INFER, None, f"Content-Length: {MAX_BODY + 1}\r\n"), 413, True, "max_body"),
    Row("two credentials", request(headers="Authorization: a\r\nAuthorization: b\r\n"), 400, True, "authorization"),
    Row("unknown expectation", post(GOOD, "Expect: tea\r\n"), 417, True, "100-continue"),
    Row("chunks too large", chunks(*[b"x" * 8192] * 9), 413, True, "max_body"),
    Row("chunk size no number", chunks(end=b"zz\r\nabc\r\n0\r\n\r\n"), 400, True, "chunk"),
    Row("chunk size with 0x", chunks(end=b"0x3\r\nabc\r\n0\r\n\r\n"), 400, True, "chunk"),
    Row("chunk size overflow", chunks(end=b"f" * 17 + b"\r\nabc\r\n"), 400, True, "chunk"),
    Row("chunk longer than said", chunks(end=b"3\r\nabcd\r\n0\r\n\r\n"), 400, True, "chunk"),
    Row("chunk with bare LF", chunks(end=b"3\nabc\n0\n\n"), 400, True, "chunk"),
    Row("endless chunk extension", chunks(end=b"3;" + b"a" * (MAX_HEADER + 99) + b"\r\nabc"), 431, True),
    Row("endless trailers", chunks(end=b"0\r\n" + b"X-A: b\r\n" * 700), 431, True),
    Row("length in trailers", chunks(end=b"0\r\nContent-Length: 3\r\n\r\n"), 400, True),
]  # fmt: skip

PATHS = [
    Row("unknown path", request(target="/v3"), 404, False),
    Row("root", request(target="/"), 404, False),
    Row("empty segment", request(target="/v2//models"), 404, False),
    Row("leading double slash", request(target="//v2/models"), 404, False),
    Row("trailing slash", request(target="/v2/models/"), 404, False),
    Row("dot dot", request(target="/v2/models/../health/live"), 404, False),
    Row("encoded dot dot", request(target="/v2/models/%2e%2e/ready"), 404, False),
    Row("encoded slash", request(target="/v2/models/a%2Fb/ready"), 404, False),
    Row("encoded traversal", request(target="/v2/models/%2e%2e%2fetc%2fpasswd/ready"), 404, False),
    Row("encoded backslash", request(target="/v2/models/a%5Cb/ready"), 404, False),
    Row("encoded NUL", request(target="/v2/models/echo%00/ready"), 400, False, "control"),
    Row("encoded line end", request(target="/v2/models/echo%0d%0a/ready"), 400, False, "control"),
    Row("cut percent", request(target="/v2/models/echo%2/ready"), 400, False, "%"),
    Row("percent without digits", request(target="/v2/models/%zz/ready"), 400, False, "%"),
    Row("encoded bad UTF-8", request(target="/v2/models/%ff%fe/ready"), 400, False, "UTF-8"),
    Row("fragment", request(target="/v2#x"), 400, False, "fragment"),
    Row("absolute without path", request(target="http://test"), 400, False),
    Row("foreign scheme", request(target="ftp://test/v2"), 400, False),
    Row("asterisk", request("OPTIONS", "*"), 400, False),
    Row("long name", request(target=f"/v2/models/{'a' * 3000}/ready"), 404, False),
    Row("unknown model", request(target="/v2/models/nobody"), 404, False, "Request for unknown model"),
    Row("unknown version", request(target="/v2/models/echo/versions/9"), 404, False, "Request for unknown model"),
    Row("unknown model infer", post(GOOD, target="/v2/models/nobody/infer"), 404, False, "Request for unknown model"),
    Row("unknown version infer", post(GOOD, target="/v2/models/echo/versions/9/infer"), 404, False),
    Row("get infer", request(target=INFER), 405, False, "POST"),
    Row("post metadata", post(GOOD, target="/v2/models/echo"), 405, False, "GET"),
    Row("delete", request("DELETE", "/v2/models/echo"), 405, False),
    Row("trace", request("TRACE", "/v2"), 405, False),
    Row("options", request("OPTIONS", "/v2"), 405, False),
    Row("load", post(b"", target="/v2/repository/models/echo/load"), 404, False),
    Row("unload", post(b"", target="/v2/repository/models/echo/unload"), 404, False),
    Row("post trace setting", post(b"{}", target="/v2/trace/setting"), 404, False),
    Row("post model trace setting", post(b"{}", target="/v2/models/echo/trace/setting"), 404, False),
    Row("post logging", post(b"{}", target="/v2/logging"), 404, False),
    Row("generate", post(b"{}", target="/v2/models/echo/generate"), 404, False),
    Row("system shared memory", request(target="/v2/systemsharedmemory/status"), 501, False, "shared memory"),
    Row("cuda shared memory", post(b"{}", target="/v2/cudasharedmemory/region/a/register"), 501, False),
]  # fmt: skip

DEEP = (
    b'{"inputs":[{"name":"X","shape":[1],"datatype":"FP32","data":' + b"[" * 40 + b"]" * 40 + b"}]}"
)
BODIES = [
    Row("empty body", post(b""), 400, False),
    Row("no body at all", request("POST", INFER), 400, False),
    Row("not JSON", post(b"inputs"), 400, False),
    Row("truncated JSON", post(GOOD[:-3]), 400, False),
    Row("JSON array", post(b"[]"), 400, False),
    Row("bad UTF-8", post(b'{"id":"\xff\xfe"}'), 400, False),
    Row("NaN literal", post(GOOD.replace(b"[1, 2, 3]", b"[NaN, 2, 3]")), 400, False),
    Row("Infinity literal", post(GOOD.replace(b"[1, 2, 3]", b"[Infinity, 2, 3]")), 400, False),
    Row("integer beyond range", post(tensor(datatype="INT8", data=[1, 2, 300])), 400, False, "X"),
    Row("integer beyond 64 bits", post(tensor(datatype="INT64", data=[1, 2, 2**64])), 400, False, "X"),
    Row("word for number", post(tensor(data=["a", 2, 3])), 400, False, "X"),
    Row("wrong count", post(tensor(data=[1, 2])), 400, False, "X"),
    Row("negative dimension", post(tensor(shape=[-1, 3])), 400, False, "X"),
    Row("huge shape", post(tensor(shape=[2**40, 2**40])), 400, False, "X"),
    Row("no shape", post(tensor(shape=...)), 400, False, "X"),
    Row("unknown datatype", post(tensor(datatype="FP31")), 400, False, "FP31"),
    Row("FP16 in JSON", post(tensor(datatype="FP16")), 400, False, "binary"),
    Row("no data", post(tensor(data=...)), 400, False, "X"),
    Row("data and binary size", post(tensor(parameters={"binary_data_size": 4})), 400, False, "X"),
    Row("too deep", post(DEEP), 400, False, "X"),
    Row("binary too short", binary(12, b"\0" * 8), 400, False, "X"),
    Row("binary too long", binary(12, b"\0" * 16), 400, False),
    Row("binary of another size", binary(8, b"\0" * 8), 400, False, "X"),
    Row("header length no number", binary(12, b"\0" * 12, "abc"), 400, False, "Inference-Header-Content-Length"),
    Row("negative header length", binary(12, b"\0" * 12, "-1"), 400, False, "Inference-Header-Content-Length"),
    Row("header length beyond body", binary(12, b"\0" * 12, "9999"), 400, False, "Inference-Header-Content-Length"),
    Row("huge header length", binary(12, b"\0" * 12, "9" * 40), 400, False, "Inference-Header-Content-Length"),
    Row("header length inside JSON", binary(12, b"\0" * 12, "20"), 400, False),
    Row("raw request of a wrong size", post(b"\0" * 11, "Inference-Header-Content-Length: 0\r\n"), 400, False, "X"),
    Row("not gzip", post(b"plain", "Content-Encoding: gzip\r\n"), 400, False, "gzip"),
    Row("cut gzip", post(gzip.compress(GOOD)[:-9], "Content-Encoding: gzip\r\n"), 400, False, "gzip"),
    Row("raw deflate", post(zlib.compress(GOOD, wbits=-15), "Content-Encoding: deflate\r\n"), 400, False),
    Row("bomb", post(gzip.compress(b"\0" * (8 << 20)), "Content-Encoding: gzip\r\n"), 413, False, "max_"),
    Row("brotli", post(GOOD, "Content-Encoding: br\r\n"), 415, False, "gzip"),
    Row("two encodings", post(GOOD, "Content-Encoding: gzip, gzip\r\n"), 415, False, "gzip"),
    Row("timeout of a bad unit", post(GOOD, "x-request-timeout: 1n\r\n"), 400, False, "x-request-timeout"),
    Row("endless timeout", post(GOOD, "x-request-timeout: inf\r\n"), 400, False, "x-request-timeout"),
    Row("nan timeout", post(GOOD, "x-request-timeout: nan\r\n"), 400, False, "x-request-timeout"),
    Row("negative timeout", post(GOOD, "x-request-timeout: -1\r\n"), 400, False, "x-request-timeout"),
    Row("long timeout", post(GOOD, "x-request-timeout: 99999999H\r\n"), 400, False, "x-request-timeout"),
    Row("index body no object", post(b"[]", target="/v2/repository/index"), 400, False, "index"),
]  # fmt: skip

MODELS = [
    Row("model failed", infer("failing"), 500, False, "the model failed"),
    Row("unexpected error", infer("broken"), 500, False, "internal error"),
    Row("cancelled from inside", infer("undone"), 500, False, "internal error"),
    Row("unexpected error in metadata", request(target="/v2/models/broken"), 500, False, "internal error"),
    Row("model not ready", infer("unready"), 503, False, "loading"),
    Row("overloaded", infer("overloaded"), 503, False, "queue"),
    Row("late", infer("late"), 504, False, "deadline"),
]  # fmt: skip
