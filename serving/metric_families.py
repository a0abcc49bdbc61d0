"""The one table of what processes count: names, kinds, labels, buckets.

Label values come from configuration, never from requests. What control knows by itself is in
`serving.control.fleet.exposition` and beside it.
"""

from typing import Final, Literal

import msgspec

__all__ = ["AGE_SECONDS", "BATCH_ROWS", "FAMILIES", "LATENCY_SECONDS", "Family"]

LATENCY_SECONDS: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

AGE_SECONDS: Final = (
    0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0,
    90 * 86400.0,
)  # fmt: skip
BATCH_ROWS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Family(msgspec.Struct, frozen=True):
    """One metric: its kind, help text, label names and, for a histogram, bucket bounds.

    `merge` says how several processes' gauges become one number.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Literal["sum", "max"] = "sum"


_VERSION = ("model", "version")

FAMILIES: Final[dict[str, Family]] = {
    "sluice_requests_total": Family(
        "counter",
        "Requests answered, by the code they were answered with (gRPC's word for it).",
        ("model", "version", "role", "protocol", "code"),
    ),
    "sluice_request_duration_seconds": Family(
        "histogram",
        "Time from the first byte of a request to its answer being ready to be encoded.",
        ("model", "version", "role"),
        LATENCY_SECONDS,
    ),
    "sluice_station_duration_seconds": Family(
        "histogram",
        "Time spent in one station of the pipeline.",
        ("model", "version", "station"),
        LATENCY_SECONDS,
    ),
    "sluice_rejected_total": Family(
        "counter",
        "Requests refused before they reached a model, by reason.",
        ("model", "reason"),
    ),
    "sluice_in_flight_requests": Family("gauge", "Requests being worked on."),
    "sluice_connections": Family("gauge", "Open client connections.", ("protocol",)),
    "sluice_connections_handed_over_total": Family(
        "counter",
        "Fresh HTTP connections that a worker gave to a sibling that had fewer.",
    ),
    "sluice_queue_requests": Family("gauge", "Requests waiting for a session.", _VERSION),
    "sluice_batch_rows": Family("histogram", "Rows in one session run.", _VERSION, BATCH_ROWS),
    "sluice_inference_rows_total": Family("counter", "Rows answered by a version.", _VERSION),
    "sluice_inference_seconds_total": Family(
        "counter",
        "Time requests of one version spent, by phase (success, fail, queue, compute_input, "
        "compute_infer, compute_output).",
        (*_VERSION, "phase"),
    ),
    "sluice_inference_phase_total": Family(
        "counter", "Requests that went through a phase of one version.", (*_VERSION, "phase")
    ),
    "sluice_batches_total": Family(
        "counter", "Session runs, by batch size (rows).", (*_VERSION, "size")
    ),
    "sluice_batch_seconds_total": Family(
        "counter", "Time of session runs, by batch size (rows).", (*_VERSION, "size")
    ),
    "sluice_last_inference_timestamp_seconds": Family(
        "gauge", "Wall-clock time of the last answer.", _VERSION, merge="max"
    ),
    "sluice_log_rows_total": Family(
        "counter",
        "Rows offered to the prediction log, and what became of them: logged, sampled_out, or "
        "dropped (buffer_full, disk_full, disk_error, unwritable, crash).",
        ("outcome",),
    ),
    "sluice_log_held_bytes": Family("gauge", "What the prediction log holds and has not written."),
    "sluice_log_bytes": Family("gauge", "What the prediction log takes on the disk.", merge="max"),
    "sluice_log_files_total": Family(
        "counter",
        "Files of the prediction log by what became of them: segments converted to Parquet or "
        "found damaged, Parquet files merged, expired, or removed over max_size.",
        ("outcome",),
    ),
    "sluice_fallback_total": Family(
        "counter",
        "Requests that the canary failed, by what became of them: asked of production (answered, "
        "failed, abandoned by the client) or not (no_budget, no_time).",
        ("model", "outcome"),
    ),
    "sluice_mirrored_total": Family(
        "counter", "Shadow copies, by outcome (answered, failed, dropped).", (*_VERSION, "outcome")
    ),
    "sluice_shadow_agreement_total": Family(
        "counter",
        "Shadow answers compared with production's: equal (within 1e-5) or different.",
        (*_VERSION, "outcome"),
    ),
    "sluice_evidence_lost_total": Family(
        "counter",
        "Requests that a rollout should have counted and never will, by reason: killed (ended in a "
        "worker that died before it told), too_old, too_many (the store or control was away).",
        ("model", "reason"),
    ),
    "sluice_evidence_held_bytes": Family(
        "gauge", "What workers have counted for rollouts and control has not confirmed."
    ),
    "sluice_hard_stops_total": Family(
        "counter", "Times that a worker stopped giving a canary requests by itself.", _VERSION
    ),
    "sluice_records_total": Family(
        "counter", "Prediction records, by outcome (kept, replaced by newer ones).", ("outcome",)
    ),
    "sluice_feature_rows_total": Family(
        "counter",
        "Rows of feature views read for requests, by what became of them.",
        ("view", "status"),
    ),
    "sluice_feature_age_seconds": Family(
        "histogram",
        "Age of feature values as requests saw them: now less event time.",
        ("view",),
        AGE_SECONDS,
    ),
    "sluice_feature_reads_total": Family(
        "counter",
        "Keys read, by outcome (hit: near cache, miss: store, joined: a read under way, "
        "refused: breaker open).",
        ("outcome",),
    ),
    "sluice_feature_store_failures_total": Family(
        "counter", "Reads of the feature store that came to nothing.", ("reason",)
    ),
    "sluice_feature_cache_bytes": Family("gauge", "Size of the near caches of features."),
    "sluice_feature_store_connected": Family(
        "gauge", "Workers that are connected to the feature store."
    ),
    "sluice_route_revision": Family(
        "gauge", "Revision of the route table being served.", merge="max"
    ),
    "sluice_upstream_hosts": Family(
        "gauge",
        "Processes or servers that a version elsewhere can be asked at.",
        ("model", "version"),
        merge="max",
    ),
    "sluice_upstream_retries_total": Family(
        "counter", "Requests sent once more, to another host.", ("model", "version")
    ),
    "sluice_upstream_ejections_total": Family(
        "counter", "Times that a host was left alone for a while.", ("model", "version")
    ),
    "sluice_loop_lag_seconds": Family(
        "gauge", "How late the event loop ran its last timer.", merge="max"
    ),
    "sluice_busy_seconds_total": Family("counter", "CPU time of workers and model hosts."),
    "sluice_resident_memory_bytes": Family("gauge", "Resident memory of workers and model hosts."),
    "sluice_spans_total": Family(
        "counter", "Trace spans, by outcome (exported, dropped).", ("outcome",)
    ),
}
