"""The data-plane process: from a connection to an answer.

A request's way, in order; `pipeline.py` is the file to read first:

    http/                 HTTP/1.1: bytes to a call (`connection.py` first), and back
    grpc/                 gRPC, natively or over grpc.aio (`inference.py` first)
    plane.py gateway.py reply.py
                          what listeners call, what answers them, and how they are told
    admission.py          who is calling, by when, and is there room
    pipeline.py trip.py outcomes.py
                          the stations, where a request is among them, and what is kept of it
    table.py lane.py      what is served: every version with all that a request needs, resolved
    join*.py features.py  what the model takes, from what was sent and what the store has
    upstreams.py          how each version is reached (`serving.upstream`)
    fallback.py mirror.py a canary that failed; copies for shadows
    tally.py tracing.py predictions.py drift_counts.py
                          counters, spans, the prediction log, counts for drift

What a rollout is told:

    evidence/             who met which version and what came of it (`watch.py` first)

The process:

    process.py command_line.py settings.py life.py
                          wiring, what it is told, how it begins and ends
    snapshots.py model_files.py
                          what is to be served, and its files
    private.py node_metrics.py
                          what the engine and control ask, and are told
    spread*.py            which worker a fresh connection goes to
    departure.py steering.py
                          leaving without a connection being reset
    quarantine.py first_tries.py
                          versions that crash workers
    host.py host_plane.py the process of a `dedicated` version
"""
