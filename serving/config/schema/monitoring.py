"""Options of the prediction log and of what is concluded from it; see `serving.config.schema`."""

from typing import Annotated, Literal

from msgspec import Meta

from serving.config.section import Section, Share
from serving.config.units import ByteSize, Seconds

__all__ = [
    "FairnessConfig",
    "LabelsConfig",
    "LogConfig",
    "ModelLog",
    "MonitoringConfig",
    "PredictionConfig",
    "RetrainConfig",
    "RoleShares",
]


class LogConfig(Section, frozen=True, kw_only=True):
    """The prediction log: one row per instance, with what it was answered from."""

    path: str = "predictions"
    """Directory, relative to the data directory. Several nodes need a shared one."""

    flush: Seconds = Seconds(0.2)
    """Longest time from an answer to its row in a file: what a killed process loses. A batch of
    few rows costs more for each; at 0.2 s and 1,000 requests/s a row costs about 6 µs."""

    fsync: Seconds = Seconds(1.0)
    """Longest time until a row is on the disk itself: what a power failure loses. `0ms`: left to
    the kernel."""

    buffer: ByteSize = ByteSize(32 << 20)
    """What a worker keeps of records not written yet. Past it rows are dropped and counted;
    requests never wait."""

    segment_size: ByteSize = ByteSize(32 << 20)
    """A segment is sealed, to become Parquet, when it is this large …"""

    segment_age: Seconds = Seconds(300.0)
    """… or this old."""

    retention: Seconds = Seconds(30 * 86400.0)
    """Rows older than this are deleted, whole files at a time."""

    max_size: ByteSize = ByteSize(10 << 30)
    """Most bytes of the whole log; past it the oldest files are deleted, and counted."""

    min_free: ByteSize = ByteSize(256 << 20)
    """Free space of the disk below which nothing is written; rows are dropped and counted."""


class RoleShares(Section, frozen=True, kw_only=True):
    """A share for each role."""

    production: Share = 1.0
    """Of the requests that production answered."""

    canary: Share = 1.0
    """Of those that a canary answered."""

    shadow: Share = 1.0
    """Of shadow copies."""


class ModelLog(Section, frozen=True, kw_only=True):
    """What the prediction log keeps of one model."""

    sample: Share | RoleShares = 1.0
    """Share of requests kept; each kept row carries the weight 1/share. Failed requests are
    always kept. `0.0` keeps counts only."""

    fields: dict[str, Literal["keep", "hash", "drop"]] = {}
    """What happens to an entity key, a feature or an output by name: `hash` keeps a keyed digest
    in its place (equal values stay equal), `drop` nothing. Those not named are kept."""


class PredictionConfig(Section, frozen=True, kw_only=True):
    """What a model's outputs mean, so that they can be compared with what came true."""

    task: Literal["binary", "multiclass", "regression"] = "binary"
    """Which figures make sense."""

    decision: str = ""
    """Output with the predicted class or value, one a row. Empty for `binary`: the score at
    `threshold`."""

    score: str = ""
    """Output with the probability of the positive class: `NAME`, or `NAME[COLUMN]` of an output
    with several columns (`probabilities[1]`)."""

    threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Score from which the answer counts as positive, where there is no `decision`."""


class LabelsConfig(Section, frozen=True, kw_only=True):
    """What came true, and when it is expected."""

    horizon: Seconds = Seconds(7 * 86400.0)
    """A label that comes later than this after its prediction is kept and not joined."""

    min_coverage: Share = 0.0
    """Share of predictions past the horizon that should have a label; fewer is an alert."""


class FairnessConfig(Section, frozen=True, kw_only=True):
    """How differently the groups of a slice may be treated; see `slices`."""

    ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.8
    """Smallest ratio of selection rates between a group and all others, either way: the
    four-fifths rule."""

    gap: Annotated[float, Meta(gt=0, lt=1)] = 0.1
    """Largest difference of true or false positive rates, or of calibration."""

    min_rows: Annotated[int, Meta(ge=20)] = 100
    """Groups with fewer rows are shown and not compared."""


class RetrainConfig(Section, frozen=True, kw_only=True):
    """What is asked to train again, on what evidence, and how often at most."""

    webhook: Annotated[str, Meta(pattern=r"^(https?://.+)?$")] = ""
    """Address that gets a CloudEvent by POST."""

    airflow: Annotated[str, Meta(pattern=r"^(https?://.+)?$")] = ""
    """Or an Airflow run, `http://HOST:PORT/api/v2/dags/DAG/dagRuns`; the event is its `conf`."""

    command: list[str] = []
    """Or a program with its arguments, run in the configuration directory; the event is its
    standard input, and exit code 0 means that it has taken the request over."""

    timeout: Seconds = Seconds(10.0)
    """How long one delivery may take; then, and when it fails, it is repeated for a day."""

    ends_within: Seconds = Seconds(7 * 86400.0)
    """A training that nobody has reported as ended by then counts as one in vain."""

    secret_file: str = ""
    """File with the key that signs webhooks (HMAC-SHA256), or Airflow's bearer token, relative to
    the configuration directory."""

    metric: Literal["error", "brier", "log_loss", "absolute_error", "squared_error"] = "error"
    """Loss that must not grow."""

    tolerance: Annotated[float, Meta(gt=0)] = 0.02
    """Growth of the mean loss, against the reference period, that is harm."""

    min_labels: Annotated[int, Meta(ge=30)] = 1000
    """Labels needed before anything is triggered."""

    debounce: Seconds = Seconds(600.0)
    """How long harm has to be seen without a break."""

    cooldown: Seconds = Seconds(86400.0)
    """Shortest time between two triggers."""

    budget: Annotated[int, Meta(ge=1, le=1000)] = 3
    """Most triggers in 30 days; then a person is asked for."""


class MonitoringConfig(Section, frozen=True, kw_only=True):
    """How a model is watched."""

    reference: str = ""
    """Frozen bins that traffic is compared with, relative to this YAML file; `sluice drift freeze`
    makes the file from a table or from the log. Empty: drift is not reported."""

    window: Seconds = Seconds(3600.0)
    """Time that one report covers."""

    alpha: Annotated[float, Meta(gt=0, le=0.2)] = 0.01
    """Share of reports that may name a column although nothing changed."""

    min_rows: Annotated[int, Meta(ge=50)] = 500
    """A window with fewer rows is joined with the one before."""

    min_effect: Annotated[float, Meta(ge=0)] = 0.01
    """Smallest shift (PSI without its noise) worth telling; much traffic proves tiny ones too."""

    important: list[str] = []
    """Columns whose drift is an alert; of the others only the score's is."""

    prediction: PredictionConfig | None = None
    """What the outputs mean. Absent: performance is not computed."""

    slices: list[str] = []
    """Columns by whose values performance and selection rates are told apart."""

    fairness: FairnessConfig = FairnessConfig()
    """What difference between those is an alert, once it is proven."""

    labels: LabelsConfig = LabelsConfig()
    """Labels that come later."""

    retrain: RetrainConfig | None = None
    """Absent: nothing is triggered."""
