"""What a new configuration would change, computed from two snapshots; decides, does nothing.

`sluice plan`, the dry run of `apply`, and the history all show this.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec
from msgspec.structs import replace

from serving.config.effects import Effect, alike, effect_of, names_files
from serving.config.schema import GatewayConfig, ModelConfig, RolloutConfig, step_words
from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.config.snapshot_codec import enc_hook
from serving.traffic.rolled import effective
from serving.traffic.split import LINE, threshold

__all__ = ["Change", "Plan", "as_written", "compare", "without_secrets"]

Kind = Literal["added", "removed", "changed"]
_SIGNS: Final[dict[str, str]] = {"added": "+", "removed": "-", "changed": "~"}
_CREDENTIAL: Final = re.compile(r"^(\w+://)[^?]*@")
_PASSWORD: Final = re.compile(r"([?&]password=)[^&]*")
_ABSENT: Final = object()
_NOTHING: Final = RolloutTraffic(id="", revision=0, canary="", production="")
_SILENT: Final = {Effect.LIVE, Effect.RESIZES}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `subject` is a dotted path (`employment.traffic.canary.weight`)."""

    kind: Kind
    subject: str
    detail: str = ""
    effect: Effect = Effect.LIVE

    @property
    def needs_restart(self) -> bool:
        """Whether applying it changes nothing until somebody starts the gateway again."""
        return self.effect is Effect.NEEDS_RESTART

    def __str__(self) -> str:
        line = f"{_SIGNS[self.kind]} {self.subject}"
        if self.detail:
            line += f": {self.detail}"
        return line + (f" ({self.effect})" if self.effect not in _SILENT else "")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that would change.

    `loads` and `drops` are `model/version` whose sessions workers build or let go.
    `moved_keys` is, per model, the percent of assignment keys that would get another version
    than now: exact if the cohort stays, expected if a new key or salt draws it afresh.
    """

    changes: list[Change] = []
    loads: list[str] = []
    drops: list[str] = []
    moved_keys: dict[str, float] = {}

    @property
    def serves_the_same(self) -> bool:
        """Whether there is nothing to apply: no change, or only such as need a restart."""
        return all(change.needs_restart for change in self.changes)

    @property
    def is_followed(self) -> bool:
        """Whether the engine has something to do: workers to replace, to start or to end."""
        return any(
            change.effect in {Effect.ROLLS_WORKERS, Effect.RESIZES} for change in self.changes
        )

    def lines(self) -> list[str]:
        """The plan for people, one line a change, consequences last."""
        if not self.changes:
            return ["nothing changes"]
        lines = [str(change) for change in self.changes]
        if self.loads:
            lines.append(f"  loads {', '.join(self.loads)}")
        if self.drops:
            lines.append(f"  drops {', '.join(self.drops)}")
        return lines + [
            f"  moves {share:.4g} % of the keys of {model} to another version"
            for model, share in self.moved_keys.items()
        ]


def compare(
    old: Snapshot | None,
    new: Snapshot,
    gateway: tuple[GatewayConfig, GatewayConfig] | None = None,
    directories: tuple[str, str] = ("", ""),
) -> Plan:
    """Compare what is served with what would be.

    Args:
        old: what is served; None before the first configuration.
        new: what would be served. Revision, author and time are not compared.
        gateway: `gateway.yaml` as the running processes go by it, and as it is now.
        directories: where the files are that it names, tokens and certificates.
    """
    before = old.models if old else {}
    shares_before, shares_after = effective(old) if old else {}, effective(new)
    sessions_before, sessions_after = _sessions(old), _sessions(new)
    return Plan(
        changes=[
            *_models(before, new.models),
            *_artifacts(old, new),
            *_views(old, new),
            *_unloaded(old, new),
            *_rollouts(old, new),
            *(_gateway(*gateway, directories) if gateway else ()),
        ],
        loads=sorted(n for n, made in sessions_after.items() if sessions_before.get(n) != made),
        drops=sorted(sessions_before.keys() - sessions_after.keys()),
        moved_keys={
            name: share
            for name in sorted(shares_before.keys() & shares_after.keys())
            if (share := _moved_percent(shares_before[name], shares_after[name])) > 0
        },
    )


def without_secrets(gateway: GatewayConfig) -> GatewayConfig:
    """`gateway.yaml` with the password of the store's address replaced by `***`."""
    shown = _CREDENTIAL.sub(r"\1***@", gateway.store)
    return replace(gateway, store=_PASSWORD.sub(r"\1***", shown))


# --- models ---------------------------------------------------------------------------------


def _models(
    before: Mapping[str, ModelConfig], after: Mapping[str, ModelConfig]
) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield Change(kind="added", subject=name, detail=_traffic_words(after[name]))
        elif name not in after:
            yield Change(kind="removed", subject=name)
        else:
            yield from _rollout_section(name, before[name].rollout, after[name].rollout)
            one, other = _plain(before[name]), _plain(after[name])
            if None in (before[name].rollout, after[name].rollout):
                del one["rollout"], other["rollout"]
            yield from _fields(name, one, other)


def _rollout_section(
    name: str, before: RolloutConfig | None, after: RolloutConfig | None
) -> Iterator[Change]:
    """A whole section that comes or goes, in the words of `sluice rollout status`."""
    if (before is None) == (after is None):
        return
    section = before or after
    assert section is not None
    rules = ", ".join(rule.name for rule in section.guardrails.rules) or "none"
    yield Change(
        kind="removed" if after is None else "added",
        subject=f"{name}.rollout",
        detail=f"{section.canary} by {', '.join(map(step_words, section.steps))}; rules: {rules}",
    )


def _traffic_words(model: ModelConfig) -> str:
    traffic = model.traffic
    words = f"production {traffic.production}"
    if traffic.canary:
        words += f", canary {traffic.canary.version} {traffic.canary.weight:g} %"
    for shadow in traffic.shadow:
        words += f", shadow {shadow.version} {shadow.percent:g} %"
    return words


def _artifacts(old: Snapshot | None, new: Snapshot) -> Iterator[Change]:
    """Changed staging that the YAML does not show: the data directory has moved."""
    if old is None:
        return
    for model in sorted(old.staged.keys() & new.staged.keys()):
        for version in sorted(old.staged[model].keys() & new.staged[model].keys()):
            one, other = old.staged[model][version], new.staged[model][version]
            if one != other and one.sha256 == other.sha256:
                yield Change(
                    kind="changed",
                    subject=f"{model}.versions.{version}",
                    detail="its file was staged anew",
                )


def _views(old: Snapshot | None, new: Snapshot) -> Iterator[Change]:
    before = old.views if old else {}
    for name in sorted(before.keys() | new.views.keys()):
        subject = f"features.{name}"
        if name not in before:
            yield Change(kind="added", subject=subject)
        elif name not in new.views:
            yield Change(kind="removed", subject=subject)
        else:
            yield from _fields(subject, _plain(before[name]), _plain(new.views[name]))


def _unloaded(old: Snapshot | None, new: Snapshot) -> Iterator[Change]:
    before, after = set(old.unloaded if old else ()), set(new.unloaded)
    for name in sorted(before ^ after):
        if name in new.models:
            detail = "unloaded" if name in after else "loaded"
            yield Change(kind="changed", subject=name, detail=detail)


def _rollouts(old: Snapshot | None, new: Snapshot) -> Iterator[Change]:
    """What rollouts put in place, which the files do not say."""
    before = old.rollouts if old else {}
    for name in sorted(before.keys() | new.rollouts.keys()):
        one, other = before.get(name), new.rollouts.get(name)
        if one == other or name not in new.models:
            continue
        subject = f"{name}.{(other or one or _NOTHING).id}"
        if one is None or other is None or one.id != other.id:
            kind: Kind = "removed" if other is None else "added"
            yield Change(kind=kind, subject=subject, detail=_put_words(other or one or _NOTHING))
        elif (was := _put_words(one)) != (now := _put_words(other)):
            yield Change(kind="changed", subject=subject, detail=f"{was} -> {now}")
        else:
            yield Change(kind="changed", subject=subject, detail="what is counted")


def _put_words(put: RolloutTraffic) -> str:
    if put.canary == put.production:
        return f"production {put.production}"
    copies = f", copies {put.shadow:g} %" if put.shadow else ""
    return f"{put.canary} {put.weight:g} %{copies}"


def _gateway(
    running: GatewayConfig, now: GatewayConfig, directories: tuple[str, str]
) -> Iterator[Change]:
    # A secret that changed must show as a change without being shown.
    if running.store != now.store:
        shown = (without_secrets(running).store, without_secrets(now).store)
        detail = f"{shown[0]} -> {shown[1]}" if shown[0] != shown[1] else "another credential"
        yield Change(
            kind="changed", subject="gateway.store", detail=detail, effect=Effect.NEEDS_RESTART
        )
    one, other = alike(*(replace(gateway, store="embedded") for gateway in (running, now)))
    for change in _fields("gateway", _plain(one), _plain(other)):
        yield replace(change, effect=effect_of(change.subject.removeprefix("gateway.")))
    if directories[0] != directories[1] and names_files(now):
        yield Change(
            kind="changed",
            subject="gateway.files",
            detail=f"{directories[0]} -> {directories[1]}",
            effect=Effect.ROLLS_WORKERS,
        )


# --- values ---------------------------------------------------------------------------------


def _plain(value: msgspec.Struct) -> Any:
    return msgspec.to_builtins(value, enc_hook=as_written)


def as_written(value: object) -> str:
    """Encode a duration or a size as its text in YAML (`50ms`), for msgspec."""
    enc_hook(value)  # only durations and sizes are not plain already
    return str(value)


def _fields(subject: str, before: Any, after: Any) -> Iterator[Change]:
    """Every difference inside two values, mappings followed down to what differs."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        # In the order of the schema: `versions` before `traffic`.
        for key in dict.fromkeys([*before, *after]):
            yield from _fields(
                f"{subject}.{key}", before.get(key, _ABSENT), after.get(key, _ABSENT)
            )
    elif before is _ABSENT or before is None:
        yield Change(kind="added", subject=subject, detail=_words(after))
    elif after is _ABSENT or after is None:
        yield Change(kind="removed", subject=subject, detail=_words(before))
    else:
        detail = f"{_words(before)} -> {_words(after)}"
        yield Change(kind="changed", subject=subject, detail=detail)


def _words(value: Any) -> str:
    """A value on one line: digests short, defaults left out where they say nothing."""
    if isinstance(value, dict):
        inner = (
            f"{key} {_words(one)}"
            for key, one in value.items()
            if one not in (None, "", []) and (key, one) != ("candidate", False)
        )
        return ", ".join(inner) or "{}"
    if isinstance(value, list):
        return "[" + "; ".join(map(_words, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    is_digest = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}…" if is_digest else text or '""'


# --- consequences ---------------------------------------------------------------------------


def _sessions(snapshot: Snapshot | None) -> dict[str, tuple[object, ...]]:
    """What each session is built from: equal means that workers keep the one they have."""
    if snapshot is None:
        return {}
    return {
        f"{model}/{version}": (staged.sha256, snapshot.models[model].serve)
        for model, versions in snapshot.staged.items()
        if model not in snapshot.unloaded
        for version, staged in versions.items()
    }


def _moved_percent(before: ModelConfig, after: ModelConfig) -> float:
    if not (_sticks(before) and _sticks(after)):
        return 0.0  # each request draws anew: no key has a version to lose
    one, other = _shares(before), _shares(after)
    if _cohort(before) == _cohort(after):
        # Both plans give [0, threshold) to the canary and the rest to production, on the same
        # line: what differs lies between two cuts.
        cuts = sorted({0, LINE, *(cut for cut, _ in one), *(cut for cut, _ in other)})
        moved = sum(high - low for low, high in pairwise(cuts) if _at(one, low) != _at(other, low))
        return 100 * moved / LINE
    # A fresh draw: who had which version and who gets which are independent.
    kept = sum(
        _share(one, version) * _share(other, version) for version in {v for _, v in (*one, *other)}
    )
    return round(100 * (1 - kept), 9)


def _sticks(model: ModelConfig) -> bool:
    return model.traffic.assignment.key is not None or model.traffic.assignment.header is not None


def _cohort(model: ModelConfig) -> tuple[object, ...]:
    assignment = model.traffic.assignment
    return (assignment.key, assignment.header, assignment.salt or model.model)


def _shares(model: ModelConfig) -> list[tuple[int, str]]:
    """The line cut into (end, version), in order."""
    traffic = model.traffic
    if traffic.canary is None:
        return [(LINE, traffic.production)]
    return [(threshold(traffic.canary.weight), traffic.canary.version), (LINE, traffic.production)]


def _at(shares: list[tuple[int, str]], place: int) -> str:
    return next(version for end, version in shares if place < end)


def _share(shares: list[tuple[int, str]], version: str) -> float:
    start, total = 0, 0
    for end, name in shares:
        total += (end - start) if name == version else 0
        start = end
    return total / LINE
