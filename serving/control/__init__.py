"""The management process: what is served, who may change it, and what follows from what is seen.

    process.py plane.py   wiring, and what every endpoint works with; read `plane.py` first
    admin/                the admin port: how a call goes, the endpoints, the pages
    publishing/           from a directory to what workers are told, and what a change would do
    rollouts/             moves traffic on evidence, and tells others of it
    training/             requests for training, and what comes back
    monitoring/           traffic against references; what models lose
    labels/               outcomes, and the child process that joins them with the log
    fleet/                what workers and nodes report, and what the engine is to follow
    stores/               where workers read what is published, and send what they counted
    features/             rows that are pushed

For all of them:

    audit.py              who did what
    ballast.py            room on the disk for the one thing that cannot wait for more
    outbound.py cloud_event.py patience.py
                          what is sent to others, where it may go, how often

Each may import those below it (`pyproject.toml`, "Control is layered").
"""
