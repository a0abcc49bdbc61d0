"""Long pages begin with their contents, and every link leads to a heading that is there."""

import re
from pathlib import Path

import pytest
from docs_kit import DOCS, PAGES, name_of, prose

LONG = 300
"""Lines from which on a page needs a table of contents."""


def headings(page: Path, levels: str = "2,6") -> list[str]:
    """Its headings, in order; by default all but the page's own."""
    return re.findall(rf"^#{{{levels}}} (.+)$", prose(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """What GitHub calls a heading in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def contents(page: Path) -> list[tuple[str, str]]:
    """Words and anchors of the list above the first section."""
    before = prose(page).partition("\n## ")[0]
    return re.findall(r"^- \[(.+)\]\(#(.+)\)$", before, re.MULTILINE)


def missing_headings(page: Path) -> list[str]:
    """Links whose part behind the `#` is no heading of the page they lead to."""
    links = re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", prose(page))
    return [
        f"{file}#{place}"
        for file, place in links
        if place not in map(anchor, headings(page.parent / file if file else page, "1,6"))
    ]


@pytest.mark.parametrize(
    "page", [page for page in DOCS if len(page.read_text().splitlines()) > LONG], ids=name_of
)
def test_a_long_page_begins_with_its_contents(page: Path) -> None:
    """Every section is listed above the first one, in order."""
    sections = headings(page, "2")

    assert contents(page) == [(section, anchor(section)) for section in sections]


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_no_two_sections_have_one_name(page: Path) -> None:
    """A link to the second of them would lead to the first."""
    sections = headings(page, "2")

    assert sorted({one for one in sections if sections.count(one) > 1}) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_heading(page: Path) -> None:
    """Also one into another page."""
    assert missing_headings(page) == []


def test_the_search_finds_a_heading_that_is_gone(tmp_path: Path) -> None:
    """It tells it from one that is there, here or in another page, and from one in a code block."""
    (tmp_path / "other.md").write_text("# Other\n\n## Ports, and TLS\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n- [Tokens](#tokens)\n\n## Tokens\n\n[a](#tokens) [b](#gone)"
        " [c](other.md#ports-and-tls) [d](other.md#gone)\n\n```sh\n## no heading\n```\n"
    )

    assert contents(page) == [("Tokens", "tokens")]
    assert headings(page) == ["Tokens"]
    assert missing_headings(page) == ["#gone", "other.md#gone"]
