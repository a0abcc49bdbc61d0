"""The management process: what is served, who may change it, and what follows from what is seen.

    process.py plane.py   wiring, and what every endpoint works with; read `plane.py` first

What is served:

    publisher.py outcome.py publication.py upkeep.py
                          the verbs; written down, then told; what a store forgot
    compile.py foreign.py candidate*.py plan.py origin.py
                          from a directory to what can be published, and what would change
    journal.py stock.py host_list.py rolls.py
                          on the disk: revisions, model files, hosts, what the engine follows
    store.py redis_store.py redis_calls.py
                          where workers read it
    director.py           other nodes
    quarantine.py         versions that crashed workers

The admin port:

    admin.py admin_server.py operations.py openapi.py access.py audit.py
                          how a call goes: routed, authorised, audited, documented
    *_routes.py           the endpoints, by subject
    questions.py answers.py overview.py
                          bodies, and how they come about
    pages.py exposition.py *_families.py
                          for people, and for Prometheus
    workers.py worker_sockets.py rates.py
                          what workers report, and are asked

What is seen:

    rollouts.py rollout_*.py traffic_seen.py ballast.py
                          moves traffic (`rollouts.py` first; decisions are `serving.rollout`)
    evidence_*.py redis_evidence.py
                          what workers counted, from the store
    notices.py notice_*.py
                          tells others of rollouts
    drift.py drift_*.py monitoring_events.py
                          traffic against references
    label_desk.py performance.py joiner*.py
                          labels, and the child process that joins them with the log
    harm*.py loss_windows.py retraining*.py deliveries.py
                          what models lose, and requests for training
    outbound.py cloud_event.py patience.py
                          what is sent to others, where it may go, how often
    feature_writer.py feature_streams.py
                          rows that are pushed
"""
