"""The engine on Ray Serve, and the only package that knows Ray.

Serve places, scales, heals and replaces processes; no request passes through it. A replica of the
deployment `Gateway` keeps one worker process, the one of `Control` the control process: the same
programs that the local engine runs, supervised by the same code.

- `engine`: what `sluice up` drives; `applications`: what it has Serve run, and follows.
- `gateway_application`, `host_applications`: those, as Serve is told them.
- `cluster`: a Ray of our own on loopback, or one that is running; `ray_thread` calls it.
- `deployments`: what runs inside Ray.
- `keeper`: a replica's process, from its start; `succession`: how it follows orders.
- `policy`: Serve's view of `serving.engine.autoscale`.
- `sweeper`: ends what a killed launcher leaves.
"""
