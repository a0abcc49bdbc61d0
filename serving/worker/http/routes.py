"""Paths of the Open Inference Protocol V2, and what each asks of the `Plane`. No I/O.

A path has one canonical form: every segment is percent-decoded once, and what is decoded
decides, also whether a credential is needed. Empty segments, `.` and `..` lead nowhere.
Verbs that change something are not on the data port: they answer 404 like any unknown path.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from serving.errors import InvalidRequest, MethodNotAllowed, NotFound, Unimplemented
from serving.protocol import rest
from serving.worker.plane import Plane

__all__ = ["Route", "Router"]

_MAX_SEGMENT: Final = 256
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_GET: Final = ("GET", "HEAD")
_POST: Final = ("POST",)


class Route(msgspec.Struct, frozen=True):
    """Where a path leads.

    `answer` gives status and JSON body; None is inference, which takes the whole pipeline.
    `public` paths need no credential. A method in `hidden` is an admin verb: not found here.
    """

    methods: tuple[str, ...]
    answer: "Callable[[Plane, Route, bytes], tuple[int, bytes]] | None"
    model: str = ""
    version: str = ""
    public: bool = False
    hidden: tuple[str, ...] = ()

    def check(self, method: str) -> None:
        """Raises MethodNotAllowed, or NotFound for an admin verb."""
        if method in self.methods:
            return
        if method in self.hidden:
            raise NotFound("no such path; verbs that change something are on the admin port")
        raise MethodNotAllowed(f"method not allowed here; use {self.methods[0]}", self.methods)


class Router:
    """Resolves request targets, remembering at most `capacity` that led to an answer.

    What is remembered is decided by `remember`, called only after success, so that made-up
    names cannot fill the memory; when it is full it starts anew.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._known: dict[bytes, Route] = {}
        self._capacity = capacity

    def resolve(self, target: bytes) -> Route:
        """Find the route of a request target.

        Raises:
            InvalidRequest: not a path in canonical form.
            NotFound: nothing is there.
            Unimplemented: shared memory, which is never offered.
        """
        route = self._known.get(target)
        return route if route is not None else _route(_segments(_path(target)))

    def remember(self, target: bytes, route: Route) -> None:
        """Keep the route of a target that has just been answered with success."""
        # A query string differs from call to call and would push the others out.
        if target in self._known or len(target) > _MAX_SEGMENT or b"?" in target:
            return
        if len(self._known) >= self._capacity:
            self._known.clear()
        self._known[target] = route


def _path(target: bytes) -> bytes:
    """The path of an origin-form or absolute-form target, without its query."""
    if not target.startswith(b"/"):
        scheme, separator, rest_ = target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise InvalidRequest("the request target must be a path such as /v2/health/live")
        authority, slash, path = rest_.partition(b"/")
        if not authority or not slash or b"?" in authority:
            raise InvalidRequest("the request target must name a host and a path")
        target = b"/" + path
    if b"#" in target:
        raise InvalidRequest("the request target must not hold a fragment ('#')")
    return target.partition(b"?")[0]


def _segments(path: bytes) -> tuple[str, ...]:
    return tuple(_segment(raw) for raw in path[1:].split(b"/"))


def _segment(raw: bytes) -> str:
    if b"%" in raw:
        for piece in raw.split(b"%")[1:]:
            if len(piece) < 2 or not _HEX.issuperset(piece[:2]):
                raise InvalidRequest("the path holds a '%' that two hexadecimal digits must follow")
        raw = unquote_to_bytes(raw)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the path is not UTF-8 once percent-decoded") from None
    if any(character < " " or character == "\x7f" for character in text):
        raise InvalidRequest("the path holds a control character")
    if text in ("", ".", "..") or "/" in text or "\\" in text or len(text) > _MAX_SEGMENT:
        raise NotFound("no such path")
    return text


def _route(segments: tuple[str, ...]) -> Route:
    match segments:
        case ("v2", *rest_) if tuple(rest_) in _FIXED:
            return _FIXED[tuple(rest_)]
        case ("v2", "systemsharedmemory" | "cudasharedmemory", *_):
            raise Unimplemented("shared memory is not offered; send tensors in the request")
        case ("v2", "models", model, "versions", version):
            return Route(_GET, _model_metadata, model, version)
        case ("v2", "models", model, "versions", version, verb) if verb in _OF_VERSION:
            methods, answer = _OF_VERSION[verb]
            return Route(methods, answer, model, version)
        case ("v2", "models", model):
            return Route(_GET, _model_metadata, model)
        case ("v2", "models", model, verb) if verb in _OF_VERSION:
            methods, answer = _OF_VERSION[verb]
            return Route(methods, answer, model)
        case ("v2", "models", model, "trace", "setting"):
            return Route(_GET, _trace_settings, model, hidden=_POST)
        case _:
            raise NotFound("no such path; the Open Inference Protocol is served under /v2")


_Answer = tuple[int, bytes]


def _live(plane: Plane, _: Route, __: bytes) -> _Answer:
    live = plane.live()
    return (200 if live else 503), rest.encode_live(live)


def _ready(plane: Plane, _: Route, __: bytes) -> _Answer:
    ready = plane.ready()
    return (200 if ready else 503), rest.encode_ready(ready)


def _server_metadata(plane: Plane, _: Route, __: bytes) -> _Answer:
    return 200, rest.encode_server_metadata(plane.server_metadata())


def _model_names(plane: Plane, _: Route, __: bytes) -> _Answer:
    return 200, rest.encode_model_names(plane.model_names())


def _model_metadata(plane: Plane, route: Route, _: bytes) -> _Answer:
    return 200, rest.encode_model_metadata(plane.model_metadata(route.model, route.version))


def _model_ready(plane: Plane, route: Route, _: bytes) -> _Answer:
    ready = plane.model_ready(route.model, route.version)
    return (200 if ready else 503), rest.encode_model_ready(route.model, ready)


def _model_config(plane: Plane, route: Route, _: bytes) -> _Answer:
    return 200, rest.encode_model_config(plane.model_config(route.model, route.version))


def _model_statistics(plane: Plane, route: Route, _: bytes) -> _Answer:
    statistics = plane.model_statistics(route.model, route.version)
    return 200, rest.encode_model_statistics(statistics)


def _repository_index(plane: Plane, _: Route, body: bytes) -> _Answer:
    ready_only = rest.decode_repository_index(body)
    return 200, rest.encode_repository_index(plane.repository_index(ready_only=ready_only))


def _trace_settings(plane: Plane, route: Route, _: bytes) -> _Answer:
    return 200, rest.encode_trace_settings(plane.trace_settings(route.model))


def _log_settings(plane: Plane, _: Route, __: bytes) -> _Answer:
    return 200, rest.encode_log_settings(plane.log_settings())


_FIXED: Final[dict[tuple[str, ...], Route]] = {
    (): Route(_GET, _server_metadata),
    ("health", "live"): Route(_GET, _live, public=True),
    ("health", "ready"): Route(_GET, _ready, public=True),
    ("models",): Route(_GET, _model_names),
    ("models", "stats"): Route(_GET, _model_statistics),
    ("repository", "index"): Route(_POST, _repository_index),
    ("trace", "setting"): Route(_GET, _trace_settings, hidden=_POST),
    ("logging",): Route(_GET, _log_settings, hidden=_POST),
}
_OF_VERSION: Final[
    dict[str, tuple[tuple[str, ...], Callable[[Plane, Route, bytes], _Answer] | None]]
] = {
    "ready": (_GET, _model_ready),
    "infer": (_POST, None),
    "config": (_GET, _model_config),
    "stats": (_GET, _model_statistics),
}
