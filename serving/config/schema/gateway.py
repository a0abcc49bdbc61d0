"""`gateway.yaml`: listeners, processes, bounds on clients, features, logs, traces."""

from typing import Annotated, Literal

from msgspec import Meta

from serving.config.schema.monitoring import LogConfig
from serving.config.section import Name, Section
from serving.config.units import ByteSize, Seconds

__all__ = [
    "AuthConfig",
    "EngineConfig",
    "FeaturesConfig",
    "GatewayConfig",
    "Limits",
    "ListenConfig",
    "Listener",
    "LogsConfig",
    "NotifyReach",
    "TlsConfig",
    "TracingConfig",
    "WorkersConfig",
]


class TlsConfig(Section, frozen=True, kw_only=True):
    """Certificates of one listener, PEM files relative to the configuration directory."""

    cert: str
    """Certificate chain, the server's own certificate first."""

    key: str
    """Private key of that certificate, unencrypted, readable by its owner only."""

    client_ca: str | None = None
    """If given, clients must present a certificate signed by one of these authorities."""


class Listener(Section, frozen=True, kw_only=True):
    """An address, with or without TLS. `127.0.0.1:8000` alone is short for `{address: …}`."""

    address: str
    """`host:port`. Port 0 takes a free one (printed at start)."""

    tls: TlsConfig | None = None
    """Encrypt this listener. Needed beyond loopback unless the start is forced by name."""


class ListenConfig(Section, frozen=True, kw_only=True):
    """Where the gateway listens. The default ports are those OIP V2 clients assume."""

    http: str | Listener = "127.0.0.1:8000"
    """Open Inference Protocol V2 over HTTP/1.1. Shared by all workers of this machine."""

    grpc: str | Listener = "127.0.0.1:8001"
    """Open Inference Protocol V2 over gRPC. Shared by all workers of this machine."""

    admin: str | Listener = "127.0.0.1:8002"
    """Metrics, health, status and the management API. Keep it on loopback or a private network."""


class WorkersConfig(Section, frozen=True, kw_only=True):
    """How many data-plane processes run."""

    min: Annotated[int, Meta(ge=1, le=256)] = 1
    """Workers that always run."""

    max: Annotated[int, Meta(ge=1, le=256)] = 1
    """Upper bound for `ray`, which scales. `local` always runs `min`."""

    target_busy: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    """Busy fraction of a worker's core that `ray` steers for."""

    target_in_flight: Annotated[float, Meta(gt=0)] = 32.0
    """Requests in flight per worker that `ray` steers for; whichever target asks for more wins."""

    upscale_delay: Seconds = Seconds(2.0)
    """How long the load must ask for more before more are started."""

    downscale_delay: Seconds = Seconds(60.0)
    """Workers are ended only down to the most that the load asked for during this time."""


class EngineConfig(Section, frozen=True, kw_only=True):
    """Who starts and supervises the processes."""

    kind: Literal["local", "ray"] = "local"
    """`local`: this command supervises everything on this machine. `ray`: Ray Serve places, scales
    and replaces workers (needs the extra `sluice-gateway[ray]`)."""

    workers: Annotated[int, Meta(ge=1, le=256)] | WorkersConfig = 1
    """Number of workers. One per core, less what the store and the models' threads need."""

    worker_cpus: Annotated[float, Meta(gt=0, le=64)] = 1.0
    """CPUs that `ray` reserves for each worker."""

    address: str | None = None
    """`ray` only: `host:port` of a running Ray to join. Absent: a Ray of its own, on loopback, that
    ends with the command."""


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what a client may send or keep open. Past one the request is refused, not cut."""

    max_body: ByteSize = ByteSize(16 << 20)
    """Largest request body, before and after inflating, and largest gRPC message."""

    max_header: ByteSize = ByteSize(32 << 10)
    """Request line and headers together."""

    max_json_depth: Annotated[int, Meta(ge=4, le=128)] = 16
    """Nesting of a JSON body. Nested tensor data needs 3 + its rank."""

    max_elements: Annotated[int, Meta(ge=1)] = 4_194_304
    """Elements of one tensor."""

    max_inputs: Annotated[int, Meta(ge=1, le=1024)] = 256
    """Tensors in one request."""

    max_inflate_ratio: Annotated[int, Meta(ge=2)] = 100
    """How much a compressed body may grow."""

    max_connections: Annotated[int, Meta(ge=1)] = 10_000
    """Open HTTP connections per worker; one more is answered 503 and closed."""

    max_in_flight: Annotated[int, Meta(ge=1)] = 1024
    """Requests being worked on per worker; a memory guard, the deadline sheds earlier."""

    default_deadline: Seconds = Seconds(1.0)
    """Time for a request whose model and caller say nothing."""

    max_deadline: Seconds = Seconds(60.0)
    """Longer wishes of callers are cut to this."""

    header_timeout: Seconds = Seconds(5.0)
    """Time from the first byte of a request (or a new connection) to the end of its headers."""

    body_timeout: Seconds = Seconds(10.0)
    """Time from the end of the headers to the end of the body."""

    idle_timeout: Seconds = Seconds(60.0)
    """How long a keep-alive connection may stay silent between requests."""

    drain_timeout: Seconds = Seconds(30.0)
    """How long a stopping worker waits for requests in flight."""


class AuthConfig(Section, frozen=True, kw_only=True):
    """Who may call. Absent and on loopback, the data plane is open; admin verbs never are."""

    tokens: str
    """YAML file of SHA-256 token hashes with their roles, relative to this directory."""


class TracingConfig(Section, frozen=True, kw_only=True):
    """OpenTelemetry traces over OTLP/gRPC."""

    otlp: str
    """Collector address, such as `http://127.0.0.1:4317`."""

    sample: Annotated[float, Meta(ge=0, le=1)] = 0.01
    """Share of requests traced when the caller has not decided. A caller's decision is kept."""


class FeaturesConfig(Section, frozen=True, kw_only=True):
    """Where online features are read, and how long anybody waits for them."""

    store: Annotated[str, Meta(pattern=r"^(redis://|rediss://|unix://)")] | None = None
    """A server of their own. Absent: the gateway's `store`. Several hosts, `redis://a:6379,b:6379`,
    are one store that may move; the master is read."""

    tenant: Name = "default"
    """Part of every key, so that gateways can share a server."""

    timeout: Seconds = Seconds(0.005)
    """Time a request waits for the store; its own deadline may be shorter. Then the views' policies
    say what happens."""

    near_cache: ByteSize = ByteSize(32 << 20)
    """What each worker keeps of the rows it has read; the store announces their changes. `0B`
    keeps nothing."""

    max_local_age: Seconds = Seconds(10.0)
    """How long a kept row is good for should an announcement be lost."""


class LogsConfig(Section, frozen=True, kw_only=True):
    """The processes' own logs (not predictions), on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level printed."""

    format: Literal["text", "json"] = "text"
    """`json` writes one object a line."""


class NotifyReach(Section, frozen=True, kw_only=True):
    """Where the gateway itself may send events to. Link-local addresses are never among it."""

    hosts: list[Annotated[str, Meta(pattern=r"^(\*\.)?[A-Za-z0-9._:-]+$")]] = []
    """Hosts that webhooks of `rollout.notify` and `monitoring.retrain` may name, `*.example.com`
    for every one below it. Empty: any."""

    private: bool = False
    """Whether webhooks of `rollout.notify` may lead to loopback and private addresses. (Those of
    `monitoring.retrain` may lead to private ones anyway.)"""


class GatewayConfig(Section, frozen=True, kw_only=True):
    """`gateway.yaml`: one per configuration directory."""

    schema_version: Annotated[int, Meta(ge=1, le=1)] = 1
    """Version of this file's format."""

    server_name: Annotated[str, Meta(min_length=1, max_length=64)] = "sluice"
    """Name in the server metadata. Some Triton examples insist on `triton`."""

    listen: ListenConfig = ListenConfig()
    """Addresses."""

    store: Annotated[str, Meta(pattern=r"^(embedded$|redis://|rediss://|unix://)")] = "embedded"
    """`embedded` runs a real Valkey under the data directory; or a `redis://`, `rediss://` or
    `unix://` address of Redis or Valkey 7 and later."""

    engine: EngineConfig = EngineConfig()
    """Process supervision."""

    limits: Limits = Limits()
    """Bounds on clients."""

    auth: AuthConfig | None = None
    """Tokens and roles."""

    features: FeaturesConfig = FeaturesConfig()
    """Online features."""

    tracing: TracingConfig | None = None
    """Absent: no traces, and no cost."""

    log: LogConfig | None = None
    """The prediction log. Absent: no prediction is kept on disk."""

    logs: LogsConfig = LogsConfig()
    """The processes' own logs."""

    notify: NotifyReach = NotifyReach()
    """Where the gateway itself may send events to."""
