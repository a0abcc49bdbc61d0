"""The documentation names only what exists: files, metrics, options, commands, errors."""

import re
from pathlib import Path

import pytest
from docs_kit import PAGES, ROOT, name_of, prose, quoted

from serving.cli.app import COMMANDS
from serving.config import schema
from serving.control.fleet.exposition import own_families
from serving.control.monitoring.drift_families import drift_families
from serving.control.rollouts.families import rollout_families
from serving.metric_families import FAMILIES
from serving.protocol.status import STATUS

TOP = "serving|feature_cache|configs|loadtests|tests|docs"
SECTIONS = {
    "limits": schema.Limits,
    "serve": schema.ServeConfig,
    "listen": schema.ListenConfig,
    "auth": schema.AuthConfig,
    "tracing": schema.TracingConfig,
    "logs": schema.LogsConfig,
    "traffic": schema.TrafficConfig,
}
CONTROLS_OWN = {
    metric.name + ("_total" if metric.type == "counter" else "")
    for metric in (
        *own_families(
            version="", revision=0, workers=[], store_up=True, feature_writes={}, stream_lag={}
        ),
        *drift_families([]),
        *rollout_families([]),
    )
}


def missing_paths(text: str) -> list[str]:
    """Quoted paths, from the repository's root and possibly with `*`, that lead nowhere.

    A program may be named without its folder, after another one of the same.
    """
    paths = [word for word in quoted(text) if re.fullmatch(rf"(?:{TOP})/[\w./*-]*", word)]
    paths += [word for word in quoted(text) if re.fullmatch(r"[A-Z]+\.md|pyproject\.toml", word)]
    missing = [path for path in paths if not any(ROOT.glob(path.rstrip("/")))]
    programs = [word for word in quoted(text) if re.fullmatch(r"[\w*]+\.py", word)]
    return missing + [
        name
        for name in programs
        if not any(found for top in TOP.split("|") for found in (ROOT / top).rglob(name))
    ]


def missing_links(page: Path) -> list[str]:
    """Relative links that lead nowhere."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose(page))
    return [link for link in links if not (page.parent / link).exists()]


def unknown_metrics(text: str) -> list[str]:
    """Quoted `sluice_…` names that nobody emits; `sluice_workers_…` stands for several."""
    found = [match for word in quoted(text) if (match := re.match(r"(sluice_[a-z_]+)(…?)", word))]
    known = {*FAMILIES, *CONTROLS_OWN}
    return [
        name
        for name, more in (match.groups() for match in found)
        if name not in known
        and re.sub(r"_(bucket|sum|count)$", "", name) not in known
        and not (more and any(one.startswith(name) for one in known))
    ]


def unknown_options(text: str) -> list[str]:
    """Quoted `section.option` that the schema does not have."""
    pattern = re.compile(rf"({'|'.join(SECTIONS)})\.([a-z_]+)\b")
    found = [match for word in quoted(text) if (match := pattern.match(word))]
    return [
        match.group()
        for match in found
        if match.group(2) not in SECTIONS[match.group(1)].__struct_fields__
    ]


def unknown_commands(text: str) -> list[str]:
    """Quoted `sluice WORD` that is no command."""
    found = [match for word in quoted(text) if (match := re.match(r"sluice ([a-z]+)", word))]
    return [match.group(1) for match in found if match.group(1) not in COMMANDS]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_only_what_exists(page: Path) -> None:
    """Paths, links, metrics, options and commands of every page are there."""
    text = prose(page)

    assert missing_paths(text) == []
    assert missing_links(page) == []
    assert unknown_metrics(text) == []
    assert unknown_options(text) == []
    assert unknown_commands(text) == []


def test_the_search_finds_what_does_not_exist(tmp_path: Path) -> None:
    """Each check tells a made-up name from a real one."""
    page = tmp_path / "page.md"
    page.write_text("[a](gone.md) and [b](page.md)\n")
    text = (
        "`serving/gone.py` `serving/errors.py` `tests/*/nothing*` `docs/` `README.md` `GONE.md`\n"
        "`gone.py` `errors.py` `http*.py`\n"
        "`sluice_gone_total` `sluice_workers{state}` `sluice_batch_rows_bucket` `sluice_batch_…`\n"
        "`limits.gone` `limits.max_body` `listen.http.tls` `sluice gone` `sluice up DIR`\n"
    )

    assert missing_paths(text) == ["serving/gone.py", "tests/*/nothing*", "GONE.md", "gone.py"]
    assert missing_links(page) == ["gone.md"]
    assert unknown_metrics(text) == ["sluice_gone_total"]
    assert unknown_options(text) == ["limits.gone"]
    assert unknown_commands(text) == ["gone"]


def test_behaviour_states_the_status_table_as_it_is() -> None:
    """Every error class has its row, with the table's HTTP status and gRPC code."""
    text = prose(ROOT / "docs" / "behaviour.md")
    rows = re.findall(
        r"^\| `(\w+)`(?: \(admin port\))? \| (\d+)[^|]*\| (?:`(\w+)`)? *\|$", text, re.MULTILINE
    )
    stated = {name: (int(http), grpc) for name, http, grpc in rows}
    # The roots are never raised as they are; engine errors never reach a wire.
    expected = {kind.__name__: pair for kind, pair in STATUS.items()}
    for name in ("SluiceError", "ServingError", "EngineError"):
        del expected[name]
    admin_only = {name for name, (_, grpc) in stated.items() if not grpc}

    assert admin_only == {"InvalidConfig", "InvalidArtifact", "StoreUnavailable"}
    assert {n: pair[0] for n, pair in stated.items()} == {n: p[0] for n, p in expected.items()}
    assert {n: pair for n, pair in stated.items() if n not in admin_only} == {
        n: pair for n, pair in expected.items() if n not in admin_only
    }


def test_every_limit_has_its_case() -> None:
    """A bound on clients that nobody explains is a surprise in the night."""
    words = set(quoted(prose(ROOT / "docs" / "behaviour.md")))

    assert {f"limits.{name}" for name in schema.Limits.__struct_fields__} <= words


def test_operations_lists_every_metric_with_its_labels() -> None:
    """The table of families is the program's own; control's are named below it."""
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(sluice_\w+)` \| (\w+) \| ([^|]*) \|", text, re.MULTILINE)
    stated = {name: (kind, tuple(quoted(labels))) for name, kind, labels in rows}

    assert stated == {name: (one.kind, one.labels) for name, one in FAMILIES.items()}
    assert set(quoted(text)) >= CONTROLS_OWN
