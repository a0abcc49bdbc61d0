"""A controller of rollouts over a store in memory, a manual clock and evidence of one's choice."""

import logging
from pathlib import Path
from typing import Any

import msgspec

from serving.clock import ManualClock
from serving.config.keys import WorkerReport
from serving.config.schema import Configuration, GatewayConfig, ModelConfig, RolloutConfig
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.config.snapshot_codec import dec_hook
from serving.control.audit import AuditLog
from serving.control.ballast import Ballast
from serving.control.publishing.compile import Compiled
from serving.control.publishing.journal import Journal
from serving.control.publishing.publisher import Publisher
from serving.control.publishing.rollout_changes import LiveRollout, live_of
from serving.control.rollouts.announcer import Announcer
from serving.control.rollouts.log import RolloutLog
from serving.control.rollouts.observer import NoObserver, Seen
from serving.control.rollouts.rollouts import Rollouts
from serving.control.rollouts.verbs import RolloutVerbs
from serving.control.stores.store import MemoryStore
from serving.quarantine.decision import Quarantined
from serving.rollout.standing import RolloutStanding, RuleStanding
from serving.rollout.state import Event, RolloutState
from serving.types import Signature

PLAN: dict[str, Any] = {
    "canary": "v2",
    "steps": [
        {"shadow": 25, "bake": {"min": "10s"}},
        {"weight": 5, "bake": {"min": "10s"}},
        {"approve": {"timeout": "1h"}},
        {"weight": 100, "bake": {"min": "10s"}},
    ],
    "guardrails": {"rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}]},
}


def compiled(
    plan: dict[str, Any] | None = PLAN, production: str = "v1", deadline: str = "1s", **digests: str
) -> Compiled:
    """A configuration with one model of three versions, read as from YAML."""
    files = {"v1": "1", "v2": "2", "v3": "3", **digests}
    body = {
        "model": "demo",
        "versions": {v: {"path": f"{v}.onnx", "sha256": one * 64} for v, one in files.items()},
        "traffic": {"production": production},
        "serve": {"deadline": deadline},
        "rollout": plan,
    }
    signature = Signature(inputs=[], outputs=[], batchable=True)
    return Compiled(
        configuration=Configuration(
            gateway=GatewayConfig(),
            models={"demo": msgspec.convert(body, ModelConfig, dec_hook=dec_hook)},
        ),
        staged={
            "demo": {
                v: StagedVersion(path=f"/data/{v}", sha256=one * 64, signature=signature)
                for v, one in files.items()
            }
        },
        warnings=[],
    )


class Home:
    """A control process's rollouts on one data directory; `restart` keeps only the disk."""

    def __init__(self, folder: Path, store: MemoryStore | None = None) -> None:
        self.folder = folder
        self.store = store or MemoryStore()
        self.clock = ManualClock()
        self.file = compiled()
        self.quarantined: list[Quarantined] = []
        self.told: list[str] = []
        self.observer = NoObserver()
        self.build()

    def build(self) -> None:
        """Make it, as a process does that has just started."""
        self.publisher = Publisher(
            store=self.store,
            journal=Journal(self.folder / "journal"),
            compile_directory=lambda _: self.file,
            gateway=GatewayConfig(),
            data=self.folder,
            clock=self.clock,
            log=logging.getLogger("test"),
        )
        self.rollouts = Rollouts(
            RolloutLog(self.folder / "rollouts", self.store),
            publisher=self.publisher,
            store=self.store,
            observer=self.observer,
            quarantined=lambda: self.quarantined,
            announcer=Announcer(AuditLog(self.folder / "journal", self.clock)),
            ballast=Ballast(self.folder / "ballast", size=64 << 10),
            clock=self.clock,
        )
        self.publisher.live = self._live
        self.rollouts.tell = self._tell
        self.verbs = RolloutVerbs(self.rollouts)

    def _live(self) -> dict[str, LiveRollout]:
        told = self.rollouts.log.last("demo")
        return live_of([told.state] if told is not None else [], self.publisher.current)

    async def _tell(self, event: Event, standing: RolloutStanding, plan: RolloutConfig) -> None:
        del plan
        self.told.append(f"{standing.id} {event.kind}")

    async def start(self) -> "Home":
        """Publish the file, have a worker report, and look once."""
        await self.publisher.start(Path("/file"))
        await self.heard()
        await self.rollouts.look()
        return self

    async def restart(self) -> "Home":
        """Another process on the same disk."""
        self.rollouts.log.close()
        self.build()
        return await self.start()

    async def apply(self, file: Compiled) -> None:
        """A person applies another file; workers follow."""
        self.file = file
        await self.publisher.apply(Path("/file"), author="ann")
        await self.heard()

    async def found(self, file: Compiled) -> None:
        """Another control process has published another file; this one goes on from there."""
        await self.store.publish(
            file.snapshot(
                revision=self.publisher.revision + 1,
                author="bob",
                at=self.clock.wall(),
                before=self.publisher.current,
            )
        )
        await self.publisher.start(None)
        await self.heard()

    async def heard(self, revision: int | None = None, **more: Any) -> None:
        """The worker reports what it serves: the newest revision if none is given."""
        await self.store.report(
            WorkerReport(
                worker="worker-0",
                state="ready",
                revision=self.publisher.revision if revision is None else revision,
                reported_at=self.clock.wall(),
                **more,
            )
        )

    async def look(self, seconds: float = 0.0, *, follow: bool = True) -> None:
        """Let time pass, have the worker report, and look once."""
        self.clock.advance(seconds)
        if follow:
            await self.heard()
        await self.rollouts.look()

    def see(self, *rules: RuleStanding, **counts: Any) -> None:
        """Choose the evidence."""
        known: dict[str, Any] = {
            "samples": 100,
            "production_samples": 900,
            "copies": 100,
            "keys": 9,
        }
        self.observer.seen = Seen(standings=list(rules), **{**known, **counts})

    async def bake(self, more: int = 100, *, follow: bool = True) -> None:
        """Have a step get its time and more evidence, and look once."""
        seen = self.observer.seen
        self.see(
            *seen.standings, samples=seen.samples + more, copies=seen.copies + more,
            production_samples=seen.production_samples + more,
        )  # fmt: skip
        await self.look(11.0, follow=follow)

    @property
    def state(self) -> RolloutState:
        """The last rollout's."""
        told = self.rollouts.log.last("demo")
        assert told is not None
        return told.state

    @property
    def kinds(self) -> list[str]:
        """The last rollout's events."""
        told = self.rollouts.log.last("demo")
        return [event.kind for event in told.events] if told is not None else []

    @property
    def snapshot(self) -> Snapshot:
        """What is published."""
        assert self.publisher.current is not None
        return self.publisher.current

    @property
    def put(self) -> RolloutTraffic | None:
        """What workers are told of the rollout."""
        return self.snapshot.rollouts.get("demo")

    def audited(self) -> list[str]:
        """Verbs of the audit log, oldest first."""
        lines = (self.folder / "journal" / "audit.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line)["verb"] for line in lines]


def breach(action: str = "abort") -> RuleStanding:
    """A rule whose breach is proven."""
    return RuleStanding(
        name="errors", metric="error_rate", test="relative", verdict="regressed", action=action,
        words="fails twice as often",
    )  # fmt: skip
