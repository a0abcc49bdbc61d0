import html
import re
from html.parser import HTMLParser

import msgspec
import pytest
from msgspec.structs import replace
from rollout_admin_kit import rule, standing

from serving.control.admin import answers, questions
from serving.control.admin.operations import Ask, Operation, Parameter
from serving.control.admin.pages import docs_page, status_page
from serving.control.fleet.rates import Rate

VERSION = answers.VersionStatus(
    version="v1",
    sha256="a" * 64,
    roles=[answers.RoleShare(role="production", percent=87.5)],
    inputs=[],
    outputs=[],
    batchable=True,
)
MODEL = answers.ModelStatus(model="demo", loaded=True, placement="inline", versions=[VERSION])
WORKER = answers.WorkerStatus(
    worker="worker-0", state="ready", revision=3, pid=7, resident_bytes=64 << 20, in_flight=2
)
STATUS = answers.Status(
    version="1.2.3",
    ready=True,
    revision=3,
    author="ada",
    published_at=1_000.0,
    store=answers.StoreStatus(name="Valkey 9", up=True),
    models=[MODEL],
    workers=[WORKER],
    rates=[],
)
HOSTILE = "<script>alert('&')</script>"


class _Whole(HTMLParser):
    """Fails on an element that is closed by another's end."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def rows_of(page: str) -> list[list[str]]:
    """The text of every cell of every row, headings left out."""
    parser = _Whole()
    parser.feed(page)
    assert parser.open == []
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in cells if row]


def test_a_version_is_shown_with_its_share_as_a_bar() -> None:
    """The bar is as long as the number beside it says."""
    page = status_page(STATUS, 1_000.0)

    assert ["demo", "v1", "production", "87.5 %", "–", "–", "–", "serving", "a" * 12] in rows_of(
        page
    )
    assert '<i class="production" style="width:87.5%"></i>' in page


def test_several_roles_of_a_model_are_rows_below_each_other() -> None:
    """Rates go to their role; a version without one can be asked for by name."""
    two = [answers.RoleShare(role="canary", percent=1), answers.RoleShare(role="shadow", percent=5)]
    versions = [VERSION, replace(VERSION, version="v2", roles=two), replace(VERSION, roles=[])]
    rate = Rate(
        model="demo", version="v2", role="shadow", requests_per_second=4.0, failed_per_second=1.0
    )
    page = status_page(
        replace(STATUS, models=[replace(MODEL, versions=versions)], rates=[rate]), 0.0
    )

    shown = [row[:6] for row in rows_of(page)[:4]]
    assert shown == [
        ["demo", "v1", "production", "87.5 %", "–", "–"],
        ["", "v2", "canary", "1 %", "–", "–"],
        ["", "v2", "shadow", "5 %", "4.0", "1.0"],
        ["", "v1", "only by name", "–", "–", "–"],
    ]


def test_a_verdict_links_to_the_page_that_explains_it() -> None:
    """It stands with the role whose traffic it is about."""
    level = answers.DriftLevel(
        model="demo", version="v1", role="production", level="alert", reason="`age` keeps drifting"
    )
    page = status_page(replace(STATUS, drift=[level]), 1_000.0)

    assert ["demo", "v1", "production", "87.5 %", "–", "–", "alert", "serving", "a" * 12] in (
        rows_of(page)
    )
    assert '<a class="alert" title="`age` keeps drifting" href="/drift/demo">' in page


def test_a_rollout_is_a_row_with_the_verdict_of_each_rule() -> None:
    """Its words are data: nothing in them becomes part of the page."""
    rules = [rule(words=HOSTILE), rule(name="slow", verdict="regressed")]
    told = standing(
        began=1_000.0 - 7200, rules=rules, reason=HOSTILE, waiting_for=["500 more keys"]
    )
    page = status_page(replace(STATUS, rollouts=[told]), 1_000.0)
    escaped = html.escape(HOSTILE)

    assert [
        "demo", "v1 → v2", f"progressing{escaped}",
        "2 of 4: weight 5 %waits for 500 more keys", "5 %", "errors undecidedslow regressed", "2 h",
    ] in rows_of(page)  # fmt: skip
    assert HOSTILE not in page


def test_without_rollouts_the_page_has_no_room_for_them() -> None:
    """Nobody wonders what is missing."""
    assert "Rollouts" not in status_page(STATUS, 1_000.0)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (STATUS, "published by ada, 8 min ago"),
        (replace(STATUS, author="start"), "published at the start, 8 min ago"),
        (replace(STATUS, revision=0), "nothing published yet"),
        (STATUS, '<span class="badge good">ready</span>'),
        (replace(STATUS, ready=False), '<span class="badge bad">not ready</span>'),
        (replace(STATUS, problem="2 mistakes"), "is not what is served: 2 mistakes"),
        (
            replace(STATUS, store=answers.StoreStatus(name="", up=False)),
            "the store does not answer",
        ),
        (replace(STATUS, models=[]), "No models."),
        (replace(STATUS, workers=[]), "No worker has reported."),
        (
            replace(
                STATUS, workers=[replace(WORKER, refused_revision=4, refused_reason="too big")]
            ),
            "refused revision 4: too big",
        ),
        (replace(STATUS, models=[replace(MODEL, loaded=False)]), "unloaded"),
    ],
)
def test_what_a_person_must_see_is_on_the_page(status: answers.Status, says: str) -> None:
    """Trouble, and who did what when."""
    assert says in status_page(status, 1_500.0)


def test_no_text_from_elsewhere_becomes_markup() -> None:
    """Whatever a model, a worker or a person is called."""
    version = replace(
        VERSION,
        version=HOSTILE,
        not_ready={HOSTILE: HOSTILE},
        roles=[answers.RoleShare(role=HOSTILE, percent=1)],
    )
    worker = replace(
        WORKER, worker=HOSTILE, state=HOSTILE, refused_revision=9, refused_reason=HOSTILE
    )
    status = replace(
        STATUS,
        version=HOSTILE,
        author=HOSTILE,
        problem=HOSTILE,
        store=answers.StoreStatus(name=HOSTILE, up=True),
        models=[replace(MODEL, model=HOSTILE, versions=[version])],
        workers=[worker],
        drift=[
            answers.DriftLevel(
                model=HOSTILE, version=HOSTILE, role=HOSTILE, level="alert", reason=HOSTILE
            )
        ],
    )

    page = status_page(status, 0.0)

    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10


def test_the_api_page_lists_parameters_and_fields_with_their_defaults() -> None:
    """A reader can write the call without opening the OpenAPI document."""

    async def answer(ask: Ask) -> None:  # pragma: no cover
        raise NotImplementedError

    operation = Operation(
        method="POST",
        path="/api/v1/config/apply",
        need="admin",
        summary="Serve it.",
        answer=answer,
        body=questions.ApplyRequest,
        returns=answers.ApplyAnswer,
        query=[Parameter(name="limit", description="At most 9.")],
    )
    page = docs_page([operation])

    assert "POST</span>/api/v1/config/apply" in page
    shown = dict(re.findall(r"<dt><code>(.*?)</code></dt><dd>(.*?)</dd>", page))
    assert shown == {
        "?limit": "At most 9.",
        "directory": "string, required",
        "expected_revision": "integer, nothing if left out",
        "expected_digest": "string, nothing if left out",
        "dry_run": "boolean, false if left out",
        "reason": "string, nothing if left out",
        "wait_seconds": "number, 10.0 if left out",
    }
    assert set(shown) - {"?limit"} == set(
        msgspec.structs.asdict(questions.ApplyRequest(directory=""))
    )
