"""The pages that people read, and what is quoted in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    *DOCS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "configs").rglob("*.md")),
]
"""Every page but those that say where test data comes from."""

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def fenced(page: Path) -> list[str]:
    """Lines of its fenced blocks that a shell could be given, continued lines joined."""
    blocks = [text for kind, text in _FENCED.findall(page.read_text()) if kind in SHELLS]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip()]


SHELLS = ("console", "sh", "bash")


def quoted(text: str) -> list[str]:
    """Everything between single backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def name_of(page: Path) -> str:
    """Where it lies, for the name of a test."""
    return str(page.relative_to(ROOT))
