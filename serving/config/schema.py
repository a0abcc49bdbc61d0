"""Every option, once: its unit, its default, and when to change it.

The text under a field is its documentation: `configs/reference.yaml` and
`configs/schema.json` are generated from it. Bounds (`Meta`) are checked while decoding,
not by constructors, so build configuration through `serving.config.load`, in tests too.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from feature_cache.views import FeatureView
from serving.config.monitoring import LogConfig, ModelLog, MonitoringConfig
from serving.config.rollout import RolloutConfig
from serving.config.section import Name, Percent, Section, Sha256, Share
from serving.config.units import ByteSize, Seconds

__all__ = [
    "Assignment",
    "AuthConfig",
    "Canary",
    "Configuration",
    "EngineConfig",
    "Fallback",
    "FeaturesConfig",
    "GatewayConfig",
    "HostsConfig",
    "InputConfig",
    "Limits",
    "ListenConfig",
    "Listener",
    "LogsConfig",
    "ModelConfig",
    "NotifyReach",
    "Override",
    "Section",
    "ServeConfig",
    "Shadow",
    "TlsConfig",
    "TokenEntry",
    "TokensFile",
    "TracingConfig",
    "TrafficConfig",
    "VersionSource",
    "WorkersConfig",
]

EntityType = Literal["INT32", "INT64", "BYTES"]


# --- gateway.yaml ---------------------------------------------------------------------------


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


# --- tokens.yaml ----------------------------------------------------------------------------


class TokenEntry(Section, frozen=True, kw_only=True):
    """One credential. The token itself is never stored."""

    name: Name
    """Who it belongs to; appears in audits and logs."""

    sha256: Sha256
    """SHA-256 of the token, in hex: `printf %s "$TOKEN" | sha256sum`."""

    roles: Annotated[list[Literal["infer", "operator", "admin"]], Meta(min_length=1)]
    """`infer` calls models, `operator` may also override routing, `admin` may change things.
    Each includes the ones before it."""

    tenant: Name | None = None
    """On whose behalf it calls, for `traffic.overrides`. Absent: nobody's in particular."""


class TokensFile(Section, frozen=True, kw_only=True):
    """The file that `auth.tokens` names."""

    tokens: Annotated[list[TokenEntry], Meta(min_length=1)]
    """Every credential the gateway accepts."""


# --- models/*.yaml --------------------------------------------------------------------------


class VersionSource(Section, frozen=True, kw_only=True):
    """Where one version is: a file (`path`, `sha256`), or at another server (`url`).

    A version is immutable: new bytes, new version.
    """

    path: str = ""
    """ONNX file, relative to this YAML file. Needed unless there is a `url`."""

    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Digest of that file (`sha256sum FILE`). Another file under this path is refused.
    Needed with `path`."""

    url: str | list[str] = ""
    """Instead of a file: the version's address at a server of the Open Inference Protocol V2
    (Triton, KServe, MLServer …), `http://HOST:PORT/v2/models/NAME[/versions/VERSION]`. Several
    serve the same, and requests are spread over them."""

    labels: list[str] = []
    """Class names for the `classification` parameter, in output order."""

    golden: str = ""
    """JSON file with inputs and the outputs that this version must give, relative to this YAML
    file: `sluice check` and `sluice apply` run them."""

    candidate: bool = False
    """Came out of a training (`sluice candidate`): it may be production or canary only once it
    has been a shadow in a published revision."""

    @property
    def urls(self) -> list[str]:
        """`url` as a list; empty for a file."""
        if isinstance(self.url, str):
            return [self.url] if self.url else []
        return self.url


class InputConfig(Section, frozen=True, kw_only=True):
    """How one ONNX input is filled from features, one column each."""

    features: Annotated[list[str], Meta(min_length=1)]
    """`view.field` or `view.*`."""

    order: Literal["onnx_metadata", "listed"] = "listed"
    """Column order: as listed here, or as the model file's metadata key `feature_names` (a JSON
    list of field names) says. Prefer the latter: the file then carries its own truth."""


class HostsConfig(Section, frozen=True, kw_only=True):
    """How many processes a `dedicated` version has."""

    min: Annotated[int, Meta(ge=0, le=256)] = 1
    """Processes that always run. 0: none while nobody asks; the first request then waits for
    one to start, see `serve.cold_start_timeout`."""

    max: Annotated[int, Meta(ge=1, le=256)] = 1
    """Most processes, with either engine."""

    target_busy: Annotated[float, Meta(gt=0, lt=1)] = 0.6
    """Busy fraction of a process's core to steer for."""

    target_in_flight: Annotated[float, Meta(gt=0)] = 8.0
    """Requests in flight per process to steer for; whichever target asks for more wins."""

    upscale_delay: Seconds = Seconds(2.0)
    """How long the load must ask for more before more are started; the first is started at once."""

    downscale_delay: Seconds = Seconds(300.0)
    """Processes are ended only down to the most that the load asked for during this time."""


class ServeConfig(Section, frozen=True, kw_only=True):
    """How a model's versions run."""

    placement: Literal["inline", "dedicated", "external"] = "inline"
    """`inline`: in the worker, no hop; right for anything under a few milliseconds. `dedicated`: in
    processes of its own, which scale by themselves and crash alone. `external`: at the servers
    that each version's `url` names. A version with a `url` is always external."""

    hosts: Annotated[int, Meta(ge=1, le=256)] | HostsConfig = 1
    """`dedicated` only: processes per version, with `engine.address` on each node. A version
    without traffic has none until it is asked for by name."""

    host_cpus: Annotated[float, Meta(gt=0, le=64)] = 1.0
    """`dedicated` only: CPUs that `ray` reserves for each process."""

    cold_start_timeout: Seconds = Seconds(10.0)
    """`dedicated` only: how long a request waits for a process when there is none, within its
    deadline. `0ms`: it is answered 503 with Retry-After at once, and a process is started."""

    deadline: Seconds | None = None
    """Time for a whole request; callers may shorten it. Absent: `limits.default_deadline`."""

    max_batch_size: Annotated[int, Meta(ge=1, le=65536)] = 64
    """Rows in one session call. Lower it only if a large batch makes small requests late."""

    max_queue_size: Annotated[int, Meta(ge=1)] = 256
    """Requests waiting per version and worker. Past it a request is refused with 503."""

    intra_op_threads: Annotated[int, Meta(ge=1, le=128)] = 1
    """ONNX Runtime threads per session. More than one rarely pays when workers share cores."""


class Canary(Section, frozen=True, kw_only=True):
    """A version that answers a share of the traffic."""

    version: Name
    """One of `versions`."""

    weight: Percent
    """Percent of keys. Raising it never moves a key back to production."""


class Shadow(Section, frozen=True, kw_only=True):
    """A version that sees copies and whose answers nobody waits for."""

    version: Name
    """One of `versions`."""

    percent: Percent = 100.0
    """Percent of requests copied."""


class Assignment(Section, frozen=True, kw_only=True):
    """What decides which version a request gets."""

    key: str | None = None
    """Entity input whose value sticks to a version. A request of several rows follows its first."""

    header: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")] | None = None
    """Request header (gRPC metadata key) that holds the key instead."""

    salt: str = ""
    """Change it to draw a fresh cohort. Empty: the model's name."""

    on_missing_key: Literal["random", "production", "reject"] = "random"
    """What happens to a request without the key."""


class Override(Section, frozen=True, kw_only=True):
    """Requests whose version is not drawn: by a header, by who calls, or by whom they are about."""

    header: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")] = "x-sluice-version"
    """Header (gRPC metadata key) whose value names a version."""

    roles: Annotated[list[Literal["infer", "operator", "admin"]], Meta(min_length=1)] = (
        msgspec.field(default_factory=lambda: ["operator"])
    )
    """Who may use the header. Anybody else is answered 403."""

    tenants: list[Name] = []
    """Instead of a header: callers, by the `tenant` of their token."""

    entities: list[str | int] = []
    """Instead of a header: assignment keys."""

    version: Name | None = None
    """What those callers or keys get. Absent: production."""

    reason: str = ""
    """Why, for people."""

    analysed: bool = False
    """Whether a rollout counts these requests all the same. Nobody drew lots for them, so they may
    tilt the comparison."""


class Fallback(Section, frozen=True, kw_only=True):
    """What becomes of a request that the canary failed."""

    on_canary_error: Literal["none", "production"] = "none"
    """`production`: it is asked once more, of production, while the deadline allows it. The failure
    still counts against the canary."""

    budget: Share = 0.1
    """Share of a worker's requests to this model that may be asked twice, so that a canary that
    fails does not double production's load."""

    reserve: Seconds | None = None
    """Time kept for the second try: a canary that has not answered so long before the deadline is
    given up. Absent: a third of the deadline."""


class TrafficConfig(Section, frozen=True, kw_only=True):
    """Which version answers whom."""

    production: Name
    """The version that answers unless something below says otherwise."""

    canary: Canary | None = None
    """A second version and its share."""

    shadow: list[Shadow] = []
    """Versions that get copies, after the answer and on idle capacity only."""

    assignment: Assignment = Assignment()
    """Who sticks to what."""

    overrides: list[Override] = []
    """Requests whose version is not drawn; first match wins."""

    fallback: Fallback = Fallback()
    """What becomes of a request that the canary failed."""


class ModelConfig(Section, frozen=True, kw_only=True):
    """`models/*.yaml`: one model, its versions, and who gets which."""

    schema_version: Annotated[int, Meta(ge=1, le=1)] = 1
    """Version of this file's format."""

    model: Name
    """Name in URLs and calls."""

    versions: Annotated[dict[Name, VersionSource], Meta(min_length=1)]
    """Every version that may be named below or asked for by clients."""

    entity: dict[str, EntityType] = {}
    """Key inputs a client sends, one row per entity, and their datatype."""

    inputs: dict[str, InputConfig] = {}
    """ONNX inputs filled from features. Others are sent by the client as they are."""

    outputs: list[str] = []
    """Outputs answered when a request names none. Empty: all of them."""

    serve: ServeConfig = ServeConfig()
    """How versions run."""

    traffic: TrafficConfig
    """Which version answers whom."""

    rollout: RolloutConfig | None = None
    """How a new version becomes production. While it lasts it decides who gets the new version,
    not `traffic`."""

    log: ModelLog = ModelLog()
    """What is kept of its predictions, where `gateway.yaml` has a `log`."""

    monitoring: MonitoringConfig | None = None
    """Drift, performance and retraining. Absent: none of them."""


class Configuration(Section, frozen=True, kw_only=True):
    """A whole configuration directory, decoded and checked."""

    gateway: GatewayConfig
    models: dict[str, ModelConfig] = {}
    views: dict[str, FeatureView] = {}
