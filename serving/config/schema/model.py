"""`models/*.yaml`: versions and their files, inputs, and how a version runs."""

from typing import Annotated, Literal

from msgspec import Meta

from serving.config.schema.monitoring import ModelLog, MonitoringConfig
from serving.config.schema.rollout import RolloutConfig
from serving.config.schema.traffic import TrafficConfig
from serving.config.section import Name, Section
from serving.config.units import Seconds

__all__ = [
    "HostsConfig",
    "InputConfig",
    "ModelConfig",
    "ServeConfig",
    "VersionSource",
]

EntityType = Literal["INT32", "INT64", "BYTES"]


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
