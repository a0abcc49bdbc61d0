"""Load tests with Locust: users over HTTP and gRPC, and the verdict of `sluice loadtest`.

    locust -f loadtests/locustfile.py --headless --host http://127.0.0.1:8000 \
        --users 20 --run-time 1m --scenario loadtests/scenarios/steady.yaml

Without `--scenario` the users ask every ready model of the target, by its metadata. With it they
ask its `requests`, and its `slos` decide the exit code: 0 all met, 1 missed or the run says
nothing, 2 a wrong scenario or option, 3 the target does not answer.

Each user sends one request at a time, `--user-rate` a second on average, at random distances.
Latency counts from when a request was to be sent: a late answer makes its user's next requests
late, and they say so. Tags: `json`, `binary` (over HTTP), `grpc`.
"""

import random
import ssl
import time
from functools import cache
from typing import Any

import grpc.experimental.gevent
from gevent import GreenletExit
from locust import FastHttpUser, User, events, tag, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from locust_calls import Answer, GrpcCaller, HttpCaller
from locust_record import Outcome
from locust_run import Run, add_options, prepare
from locust_traffic import Asked

# Calls yield to the other users instead of blocking them all; before any channel is made.
grpc.experimental.gevent.init_gevent()

CUT_OFF_SECONDS = 0.5
ENDED = Answer(status="timeout", answered=False, problem="the run ended before an answer")


class Paced(User):
    """A user with its own schedule: what is due, when it was free for it, what became of it."""

    abstract = True

    def on_start(self) -> None:
        """Begin the schedule somewhere in its first interval: users must not march in step."""
        self.run_: Run = self.environment.sluice
        self.chance = random.Random()
        self.due = self.ready = time.monotonic()
        self._first = True

    def wait_time(self) -> float:
        """Seconds to the next request."""
        now = time.monotonic()
        self.due += self._distance()
        self.ready = max(self.due, now)
        return self.ready - now

    def _distance(self) -> float:
        # Half to one and a half of the mean. Many users together come as at random; one user alone
        # seldom wants to ask before it has its answer, unless the target is slow.
        return self.chance.uniform(0.5, 1.5) / self.run_.user_rate

    def on_stop(self) -> None:
        """Count what was due and could not be sent, as the user was still busy."""
        end = self.run_.end(time.monotonic())
        self.due += self._distance()
        while self.due < end:
            self.run_.unsent(self.run_.kinds.draw(self.chance).name, self.due)
            self.due += self._distance()

    def take(self, ask: Any) -> None:
        """Send one request with `ask(kind, feed, left)` and count what becomes of it."""
        run = self.run_
        if self._first:
            # Locust sends before it waits: all users that start together would do so at once.
            self._first = False
            return
        kind: Asked = run.kinds.draw(self.chance)
        feed = kind.feed(self.chance)
        due, lag = self.due, time.monotonic() - self.ready
        left = None if run.deadline is None else due + run.deadline - time.monotonic()
        waited = self.ready - due
        run.in_flight(1)
        try:
            answer = ask(kind, feed, left)
        except GreenletExit:
            # Locust ends the user while it waits for the answer: that is no answer, unless the
            # request had just left.
            latency = time.monotonic() - due
            if latency - waited > CUT_OFF_SECONDS:
                run.add(_outcome(kind, ENDED, due=due, latency=latency, lag=lag, waited=waited))
            raise
        finally:
            run.in_flight(-1)
        latency = time.monotonic() - due
        run.add(_outcome(kind, answer, due=due, latency=latency, lag=lag, waited=waited))


def _outcome(
    kind: Asked, answer: Answer, *, due: float, latency: float, lag: float, waited: float
) -> Outcome:
    return Outcome(
        kind=kind.name,
        due=due,
        latency=latency,
        lag=lag,
        waited=waited,
        status=answer.status,
        answered=answer.answered,
        problem=answer.problem,
        version=answer.facts.version,
        role=answer.facts.role,
        features=answer.facts.features,
        bytes_sent=answer.bytes_sent,
        bytes_received=answer.bytes_received,
    )


class OipHttp(Paced, FastHttpUser):
    """Asks over HTTP; a quarter of the requests carry binary tensors."""

    insecure = False  # certificates are checked; SSL_CERT_FILE names another authority
    ssl_context_factory = staticmethod(cache(ssl.create_default_context))

    def __init__(self, environment: Environment) -> None:
        run: Run = environment.sluice
        self.network_timeout = self.connection_timeout = run.timeout
        super().__init__(environment)
        self.caller = HttpCaller(self.client, run.headers)

    @tag("json")
    @task(3)
    def json(self) -> None:
        """Tensors as JSON."""
        self.take(lambda kind, feed, left: self.caller.call(kind, feed, binary=False, left=left))

    @tag("binary")
    @task(1)
    def binary(self) -> None:
        """Tensors as raw bytes behind the JSON."""
        self.take(lambda kind, feed, left: self.caller.call(kind, feed, binary=True, left=left))


class OipGrpc(Paced):
    """Asks over gRPC, at `--grpc-host`."""

    def on_start(self) -> None:
        """Open a connection of its own."""
        super().on_start()
        self.caller = GrpcCaller(self.run_.grpc, self.run_.headers)

    def on_stop(self) -> None:
        """Hang up."""
        super().on_stop()
        self.caller.close()

    @tag("grpc")
    @task
    def infer(self) -> None:
        """One `ModelInfer`."""
        self.take(self._ask)

    def _ask(self, kind: Asked, feed: Any, left: float | None) -> Answer:
        started = time.perf_counter()
        answer = self.caller.call(kind, feed, left=left, timeout=self.run_.timeout)
        ok = answer.status == "OK"
        self.environment.events.request.fire(
            request_type="GRPC",
            name=kind.name,
            response_time=(time.perf_counter() - started) * 1e3,
            response_length=answer.bytes_received,
            exception=None if ok else RuntimeError(f"{answer.status}: {answer.problem}"),
            context={},
        )
        return answer


@events.init_command_line_parser.add_listener
def _options(parser: Any, **_: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _init(environment: Environment, **_: Any) -> None:
    environment.sluice = prepare(environment)


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    environment.sluice.start()


@events.test_stopping.add_listener
def _stopping(environment: Environment, **_: Any) -> None:
    environment.sluice.stop()


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    del client_id
    if (run := Run.of_this_process) is not None:
        data["sluice"] = run.hand_over()


@events.worker_report.add_listener
def _reported(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if (run := Run.of_this_process) is not None:
        run.take_over(client_id, data.get("sluice"))


@events.quitting.add_listener
def _quit(environment: Environment, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return  # the master has what all of them saw
    environment.process_exit_code = environment.sluice.finish(
        users=environment.parsed_options.num_users or 1,
        processes=len(environment.sluice.workers)
        if isinstance(environment.runner, MasterRunner)
        else 1,
        run_time=environment.parsed_options.run_time,
    )
