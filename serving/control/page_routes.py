"""Pages for people: a plain status page and the description of the API. No script, no CDN."""

import html
from collections.abc import Iterable
from typing import Any

from starlette.responses import HTMLResponse, Response

from serving.control import answers
from serving.control.openapi import document
from serving.control.operations import Ask, Operation, json_response
from serving.control.plane import ControlPlane
from serving.control.rates import Rate
from serving.control.status_routes import status_of

__all__ = ["PageRoutes"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1c2430; background: #fff; }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #dde3ea }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
code { font-family: ui-monospace, monospace; font-size: .9em }
.good { color: #18794e } .bad { color: #b3261e; font-weight: 600 } .dim { color: #667 }
@media (prefers-color-scheme: dark) {
  body { color: #dfe5ee; background: #12161c } th, td { border-color: #2c3542 }
  .good { color: #5fd6a0 } .bad { color: #ff8a80 } .dim { color: #93a0b3 }
}
"""


class PageRoutes:
    """`/`, `/docs` and `/openapi.json`. `described` is everything that is routed, also these."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.described: list[Operation] = []

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="GET",
                path="/",
                need="read",
                summary="A status page for people.",
                answer=self._home,
                returns="text/html",
            ),
            Operation(
                method="GET",
                path="/docs",
                need="read",
                summary="This description, for people.",
                answer=self._docs,
                returns="text/html",
            ),
            Operation(
                method="GET",
                path="/openapi.json",
                need="read",
                summary="This description, for programs (OpenAPI 3.1).",
                answer=self._openapi,
                returns=dict[str, Any],
            ),
        ]

    async def _home(self, ask: Ask) -> Response:
        del ask
        return HTMLResponse(status_page(await status_of(self._plane), self._plane.clock.wall()))

    async def _docs(self, ask: Ask) -> Response:
        del ask
        return HTMLResponse(docs_page(self.described))

    async def _openapi(self, ask: Ask) -> Response:
        del ask
        return json_response(document(self.described, version=self._plane.version))


def status_page(status: answers.Status, now: float) -> str:
    """Show a status as HTML that reloads itself every two seconds."""
    ready = '<b class="good">ready</b>' if status.ready else '<b class="bad">not ready</b>'
    store = "answers" if status.store.up else '<b class="bad">does not answer</b>'
    published = (
        f"published by {_text(status.author)} {_ago(now - status.published_at)} ago"
        if status.revision
        else "nothing published yet"
    )
    problem = (
        f'<p class="bad">The configuration directory is not served: {_text(status.problem)}</p>'
        if status.problem
        else ""
    )
    rates = {(rate.model, rate.version, rate.role): rate for rate in status.rates}
    return _page(
        "Sluice",
        f"<h1>Sluice {_text(status.version)}: {ready}</h1>"
        f"<p>Revision {status.revision}, {published}. "
        f"Store: {_text(status.store.name or 'unknown')} {store}.</p>{problem}"
        f"<h2>Models</h2>{_models(status.models, rates)}"
        f"<h2>Workers</h2>{_workers(status.workers)}"
        '<p class="dim"><a href="/docs">API</a> · <a href="/metrics">metrics</a> · '
        '<a href="/api/v1/status">this page as JSON</a></p>',
        '<meta http-equiv="refresh" content="2">',
    )


def _models(models: Iterable[answers.ModelStatus], rates: dict[tuple[str, str, str], Rate]) -> str:
    rows = []
    for model in models:
        for version in model.versions:
            roles = version.roles or [answers.RoleShare(role="by name only", percent=0)]
            for share in roles:
                rate = rates.get((model.model, version.version, share.role))
                state = '<span class="good">serving</span>'
                if version.not_ready:
                    reasons = "; ".join(f"{w}: {r}" for w, r in version.not_ready.items())
                    state = f'<span class="bad">{_text(reasons)}</span>'
                if not model.loaded:
                    state = '<span class="bad">unloaded</span>'
                rows.append(
                    [
                        f"<td>{_text(model.model)}</td><td>{_text(version.version)}</td>",
                        f"<td>{share.role}</td>",
                        f'<td class="n">{share.percent:g} %</td>' if version.roles else "<td></td>",
                        f'<td class="n">{rate.requests_per_second:.1f}</td>'
                        f'<td class="n">{rate.failed_per_second:.1f}</td>'
                        if rate
                        else '<td class="n dim">–</td><td class="n dim">–</td>',
                        f"<td>{state}</td><td><code>{version.sha256[:12]}</code></td>",
                    ]
                )
    head = (
        "<th>model</th><th>version</th><th>role</th><th class=n>share</th>"
        "<th class=n>requests/s</th><th class=n>failed/s</th><th>state</th><th>digest</th>"
    )
    return _table(head, rows, "No models.")


def _workers(workers: Iterable[answers.WorkerStatus]) -> str:
    rows = [
        [
            f"<td>{_text(worker.worker)}</td>",
            f'<td class="{"good" if worker.state == "ready" else "bad"}">{worker.state}</td>',
            f'<td class="n">{worker.revision}</td><td class="n">{worker.in_flight}</td>',
            f'<td class="n">{worker.resident_bytes / (1 << 20):.0f} MiB</td>',
            f'<td class="n">{worker.pid}</td>',
            f"<td>{_refusal(worker)}</td>",
        ]
        for worker in workers
    ]
    head = (
        "<th>worker</th><th>state</th><th class=n>revision</th><th class=n>in flight</th>"
        "<th class=n>memory</th><th class=n>pid</th><th></th>"
    )
    return _table(head, rows, "No worker has reported.")


def _refusal(worker: answers.WorkerStatus) -> str:
    if worker.refused_revision <= worker.revision:
        return ""
    reason = f"refused revision {worker.refused_revision}: {worker.refused_reason}"
    return f'<span class="bad">{_text(reason)}</span>'


def docs_page(operations: Iterable[Operation]) -> str:
    """Show every operation as HTML."""
    who = {"open": "anybody", "read": "readers", "admin": "admins"}
    rows = []
    for operation in operations:
        body = "".join(
            f"<br><code>{name}</code>" for name in getattr(operation.body, "__struct_fields__", ())
        )
        query = "".join(
            f"<br><code>?{one.name}</code> {_text(one.description)}" for one in operation.query
        )
        rows.append(
            [
                f"<td><code>{operation.method} {_text(operation.path)}</code></td>",
                f"<td>{who[operation.need]}</td>",
                f"<td>{_text(operation.summary)}{query}{body}</td>",
            ]
        )
    return _page(
        "Sluice API",
        "<h1>Sluice admin API</h1><p>Machine-readable: <a href=/openapi.json>openapi.json</a>. "
        "Send <code>Authorization: Bearer TOKEN</code>; on the gateway's machine the token is in "
        "<code>admin.token</code> of the data directory. Errors are "
        '<code>{"error": "…"}</code>.</p>'
        + _table("<th>call</th><th>who may</th><th>what it does</th>", rows, ""),
    )


def _table(head: str, rows: list[list[str]], nothing: str) -> str:
    if not rows:
        return f'<p class="dim">{nothing}</p>'
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _page(title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>{head}'
        f'<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style><body>{body}</body></html>"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
