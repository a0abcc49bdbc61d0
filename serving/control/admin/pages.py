"""Pages for people: values become HTML. No script, nothing from elsewhere, no I/O."""

import html
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from serving.control.admin import answers
from serving.control.admin.operations import Operation
from serving.control.fleet.rates import Rate
from serving.rollout.standing import RolloutStanding, RuleStanding

__all__ = ["docs_page", "status_page"]

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #667085; --paper: #f6f8fa;
  --card: #fff; --line: #dde3ea; --good: #18794e; --bad: #b3261e; --link: #0b5cad;
  --production: #2f6fd0; --canary: #d98a00; --shadow: #8a63c9 }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ee; --dim: #93a0b3; --paper: #0f1318;
  --card: #171d25; --line: #2c3542; --good: #5fd6a0; --bad: #ff8a80; --link: #7fb8ff;
  --production: #5b9bf8; --canary: #f0b44c; --shadow: #b394ee } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem;
  padding: 1.5rem 1rem 3rem; color: var(--ink); background: var(--paper) }
header { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: baseline }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
a { color: var(--link) } p { margin: .5rem 0 }
nav { margin-top: 1.5rem; color: var(--dim) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .45rem .9rem; vertical-align: top;
  border-bottom: 1px solid var(--line) }
tr:last-child > td { border-bottom: 0 }
thead th { color: var(--dim); font-weight: 500; font-size: .87em; white-space: nowrap }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { font-family: ui-monospace, monospace; font-size: .88em }
.good { color: var(--good) } .bad { color: var(--bad); font-weight: 600 }
.dim { color: var(--dim) } .passing { color: var(--canary) }
.badge { border: 1px solid; border-radius: 1rem; padding: 0 .6rem; font-weight: 600 }
.share { min-width: 11rem; white-space: nowrap }
.bar { display: inline-block; vertical-align: middle; width: 7rem; height: .6rem;
  margin-right: .6rem; border-radius: .3rem; background: var(--line); overflow: hidden }
.bar i { display: block; height: 100%; background: var(--dim) }
.bar .production { background: var(--production) } .bar .canary { background: var(--canary) }
.bar .shadow { background: var(--shadow) }
.none { color: var(--good) } .inform { color: var(--link) } .alert { color: var(--canary) }
.trigger { color: var(--bad); font-weight: 600 }
.call { white-space: nowrap; width: 24rem }
.verb { display: inline-block; width: 3rem; font-weight: 600 }
.POST { color: var(--canary) } .GET { color: var(--production) }
dl { margin: .3rem 0 0; display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem }
dd { margin: 0; color: var(--dim) }
"""

_WHO: Final = {
    "open": ("Anybody", "No credential is looked at."),
    "read": (
        "Readers",
        "Anybody on loopback while no tokens are configured, else <code>operator</code>s.",
    ),
    "admin": ("Admins", "Always a token with the role <code>admin</code>."),
}


# --- the status page ------------------------------------------------------------------------


def status_page(status: answers.Status, now: float) -> str:
    """Show a status as HTML that reloads itself every two seconds; `now` in wall-clock seconds."""
    problem = ""
    if status.problem:
        text = f"The configuration directory is not what is served: {_text(status.problem)}"
        problem = f'<p class="bad">{text}</p>'
    rates = {(rate.model, rate.version, rate.role): rate for rate in status.rates}
    badge = '<span class="badge good">ready</span>'
    if not status.ready:
        badge = '<span class="badge bad">not ready</span>'
    return _page(
        "Sluice",
        f"<header><h1>Sluice {_text(status.version)}</h1>{badge}"
        f"<span>{_published(status, now)}</span><span>{_store(status.store)}</span></header>"
        f"{problem}"
        f"<h2>Models</h2>{_models(status, rates)}{_rollouts(status.rollouts, now)}"
        f"<h2>Workers</h2>{_workers(status.workers)}"
        '<nav><a href="/docs">API</a> · <a href="/api/v1/history">history</a> · '
        '<a href="/metrics">metrics</a> · <a href="/api/v1/status">this page as JSON</a></nav>',
        '<meta http-equiv="refresh" content="2">',
    )


def _published(status: answers.Status, now: float) -> str:
    if not status.revision:
        return "nothing published yet"
    by = "at the start" if status.author == "start" else f"by {_text(status.author)}"
    return f"revision {status.revision}, published {by}, {_ago(now - status.published_at)} ago"


def _store(store: answers.StoreStatus) -> str:
    name = _text(store.name or "the store")
    return name if store.up else f'<span class="bad">{name} does not answer</span>'


def _models(status: answers.Status, rates: dict[tuple[str, str, str], Rate]) -> str:
    levels = {(one.model, one.version, one.role): one for one in status.drift}
    rows = []
    for model in status.models:
        name = _text(model.model)
        for version in model.versions:
            roles = version.roles or [answers.RoleShare(role="", percent=0)]
            for share in roles:
                rate = rates.get((model.model, version.version, share.role))
                rows.append(
                    f"<td>{name}</td><td>{_text(version.version)}</td>{_share(share)}{_rate(rate)}"
                    f"<td>{_drift(levels.get((model.model, version.version, share.role)))}</td>"
                    f"<td>{_readiness(model, version)}</td>"
                    f'<td class="dim"><code>{version.sha256[:12]}</code></td>'
                )
                name = ""  # once a model is enough
    head = (
        "<th>model</th><th>version</th><th>role</th><th>share of requests</th>"
        '<th class="n">requests/s</th><th class="n">failed/s</th>'
        "<th>drift</th><th>state</th><th>digest</th>"
    )
    return _table(head, rows, "No models.")


def _share(share: answers.RoleShare) -> str:
    if not share.role:
        return '<td class="dim" colspan="2">only by name</td>'
    role, percent = _text(share.role), f"{share.percent:g}"
    return (
        f'<td>{role}</td><td class="share"><span class="bar">'
        f'<i class="{role}" style="width:{percent}%"></i></span>{percent} %</td>'
    )


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return '<td class="n dim">–</td><td class="n dim">–</td>'
    tone = " bad" if rate.failed_per_second else ""
    return (
        f'<td class="n">{rate.requests_per_second:.1f}</td>'
        f'<td class="n{tone}">{rate.failed_per_second:.1f}</td>'
    )


def _drift(level: answers.DriftLevel | None) -> str:
    """The verdict as a link to its reasons; nothing where nothing is watched."""
    if level is None:
        return '<span class="dim">–</span>'
    return (
        f'<a class="{_text(level.level)}" title="{_text(level.reason)}" '
        f'href="/drift/{_text(quote(level.model, safe=""))}">{_text(level.level)}</a>'
    )


def _rollouts(standings: Iterable[RolloutStanding], now: float) -> str:
    """Where new versions are on their way; nothing where there are none."""
    rows = [
        f"<td>{_text(one.model)}</td><td>{_text(one.production)} → {_text(one.canary)}</td>"
        f"<td>{_phase(one)}</td><td>{_step(one)}</td>"
        f'<td class="share"><span class="bar"><i class="canary" style="width:{one.weight:g}%"></i>'
        f"</span>{one.weight:g} %</td><td>{_verdicts(one.rules)}</td>"
        f'<td class="n">{_ago(now - one.began)}</td>'
        for one in standings
    ]
    if not rows:
        return ""
    head = (
        "<th>model</th><th>versions</th><th>phase</th><th>step</th><th>weight</th>"
        '<th>rules</th><th class="n">for</th>'
    )
    return f"<h2>Rollouts</h2>{_table(head, rows, '')}"


def _phase(standing: RolloutStanding) -> str:
    tone = {"done": "good", "aborting": "bad", "aborted": "bad", "progressing": ""}
    words = _text(standing.phase.replace("_", " "))
    shown = f'<span class="{tone.get(standing.phase, "passing")}">{words}</span>'
    return f'{shown}<br><span class="dim">{_text(standing.reason)}</span>'


def _step(standing: RolloutStanding) -> str:
    """`2 of 4: weight 5 %`, and what it waits for."""
    place = f"{standing.step + 1} of {len(standing.steps)}"
    if standing.step < len(standing.steps):
        place += f": {_text(standing.steps[standing.step])}"
    waits = "; ".join(standing.waiting_for)
    return f'{place}<br><span class="dim">{_text(f"waits for {waits}")}</span>' if waits else place


def _verdicts(rules: Iterable[RuleStanding]) -> str:
    tone = {"ok": "good", "regressed": "bad", "undecided": "passing", "no_data": "dim"}
    shown = [
        f'<span class="{tone[one.verdict]}" title="{_text(one.words)}">{_text(one.name)} '
        f"{_text(one.verdict.replace('_', ' '))}</span>"
        for one in rules
    ]
    return "<br>".join(shown) or '<span class="dim">–</span>'


def _readiness(model: answers.ModelStatus, version: answers.VersionStatus) -> str:
    if not model.loaded:
        return '<span class="bad">unloaded</span>'
    if version.not_ready:
        reasons = "; ".join(f"{worker}: {why}" for worker, why in version.not_ready.items())
        return f'<span class="bad">{_text(reasons)}</span>'
    return '<span class="good">serving</span>'


def _workers(workers: Iterable[answers.WorkerStatus]) -> str:
    rows = [
        f"<td>{_text(worker.worker)}</td><td>{_state(worker)}</td>"
        f'<td class="n">{worker.revision}</td><td class="n">{worker.in_flight}</td>'
        f'<td class="n">{worker.resident_bytes / (1 << 20):.0f} MiB</td>'
        f'<td class="n dim">{worker.pid}</td>'
        for worker in workers
    ]
    head = (
        '<th>worker</th><th>state</th><th class="n">revision</th><th class="n">in flight</th>'
        '<th class="n">memory</th><th class="n">pid</th>'
    )
    return _table(head, rows, "No worker has reported.")


def _state(worker: answers.WorkerStatus) -> str:
    tone = {"ready": "good", "silent": "bad"}.get(worker.state, "passing")
    state = f'<span class="{tone}">{_text(worker.state)}</span>'
    if worker.refused_revision <= worker.revision:
        return state
    reason = f"refused revision {worker.refused_revision}: {worker.refused_reason}"
    return f'{state}<br><span class="bad">{_text(reason)}</span>'


# --- the API page ---------------------------------------------------------------------------


def docs_page(operations: Iterable[Operation]) -> str:
    """Show every operation as HTML, by who may call it."""
    operations = list(operations)
    parts = []
    for need, (who, explanation) in _WHO.items():
        rows = [
            f'<td class="call"><code><span class="verb {one.method}">{one.method}</span>'
            f"{_text(one.path)}</code></td>"
            f"<td>{_text(one.summary)}{_fields(one)}</td>"
            for one in operations
            if one.need == need
        ]
        parts.append(f"<h2>{who}</h2><p>{explanation}</p>{_table('', rows, 'Nothing.')}")
    return _page(
        "Sluice API",
        "<header><h1>Sluice admin API</h1></header>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>. Send <code>Authorization: '
        "Bearer TOKEN</code>; on the gateway's machine one is in <code>admin.token</code> of the "
        "data directory. Bodies and answers are JSON; an error is "
        '<code>{"error": "…"}</code>.</p>' + "".join(parts) + '<nav><a href="/">Status</a></nav>',
    )


def _fields(operation: Operation) -> str:
    """What may be sent: query parameters, then fields of the body."""
    pairs = [(f"?{one.name}", _text(one.description)) for one in operation.query]
    pairs += [(name, _text(words)) for name, words in _body_fields(operation.body)]
    if not pairs:
        return ""
    return "<dl>" + "".join(f"<dt><code>{a}</code></dt><dd>{b}</dd>" for a, b in pairs) + "</dl>"


def _body_fields(body: Any) -> list[tuple[str, str]]:
    if body is None:
        return []
    schema = msgspec.json.schema(body)["$defs"][body.__name__]
    required = schema.get("required", ())
    return [
        (
            name,
            _type_name(field)
            + (
                ", required"
                if name in required
                else f", {_written(field.get('default'))} if left out"
            ),
        )
        for name, field in schema["properties"].items()
    ]


def _type_name(field: dict[str, Any]) -> str:
    kinds = [one["type"] for one in field.get("anyOf", [field])]
    return " or ".join(kind for kind in kinds if kind != "null")


def _written(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    return msgspec.json.encode(value).decode()


# --- both -----------------------------------------------------------------------------------


def _table(head: str, rows: Iterable[str], nothing: str) -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    if not body:
        return f'<p class="dim">{nothing}</p>'
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="card"><table>{top}<tbody>{body}</tbody></table></div>'


def _page(title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}'
        f'<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
