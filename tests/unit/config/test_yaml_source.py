"""YAML text to a tree that knows its lines."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.config.yaml_source import (
    MAX_DEPTH,
    MAX_NODES,
    Mapping,
    Node,
    Scalar,
    Sequence,
    SyntaxProblem,
    parse,
)


def plain(node: Node) -> object:
    """The tree as Python values."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return [plain(item) for item in node.items]
    return {key: plain(value) for key, (_, value) in node.entries.items()}


def refused(text: str) -> str:
    """The problem a text is refused with, as one line."""
    with pytest.raises(SyntaxProblem) as caught:
        parse(text, "f.yaml")
    return str(caught.value.problem)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("5", 5),
        ("-5", -5),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-02", "2024-01-02"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("'5'", "5"),
        ('"no"', "no"),
        ('"a\\nb"', "a\nb"),
        ("=", "="),
    ],
)
def test_words_and_numbers_are_read_as_yaml_1_2_reads_them(written: str, value: object) -> None:
    """`no` is a word, `010` is ten, a time of day is text, and nothing becomes infinite."""
    tree, problems = parse(f"key: {written}", "f.yaml")

    assert plain(tree) == {"key": value}
    assert type(plain(tree)["key"]) is type(value)
    assert problems == []


def test_every_value_knows_its_line_and_column() -> None:
    """Lines and columns count from 1, in block and in flow style."""
    tree, _ = parse("# first\na:\n  b: [x,\n      y]\n", "f.yaml")

    assert isinstance(tree, Mapping)
    inner = tree.entries["a"][1]
    assert isinstance(inner, Mapping)
    items = inner.entries["b"][1]
    assert isinstance(items, Sequence)
    assert [(item.line, item.column) for item in items.items] == [(3, 7), (4, 7)]


def test_a_duplicate_key_is_reported_where_it_stands() -> None:
    """The first value is kept, and the problem names both lines."""
    tree, problems = parse("a: 1\nb: 2\na: 3\n", "f.yaml")

    assert plain(tree) == {"a": 1, "b": 2}
    assert [str(problem) for problem in problems] == [
        "f.yaml:3:1: error: the key `a` is given twice (first in line 1)"
    ]


def test_an_alias_stands_for_its_anchor() -> None:
    """Anchors save typing; the copy is equal to the original."""
    tree, _ = parse("a: &x {k: [1, 2]}\nb: *x\n", "f.yaml")

    assert plain(tree) == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}}


def laughs(levels: int, width: int = 10) -> str:
    """A document of `levels` lines that stands for `width ** levels` values."""
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    lines += [
        f"a{level}: &a{level} [" + ",".join([f"*a{level - 1}"] * width) + "]"
        for level in range(1, levels)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("levels", [6, 12, 49])
def test_a_billion_laughs_are_refused_before_they_are_expanded(levels: int) -> None:
    """An alias counts as what it stands for, so the bomb stops at the line that passes the cap."""
    assert f"more than {MAX_NODES:,} values" in refused(laughs(levels))


def test_few_laughs_are_served() -> None:
    """Aliases below the cap are ordinary YAML."""
    tree, _ = parse(laughs(3), "f.yaml")

    assert tree.size > 10**3
    assert len(plain(tree)["a2"]) == 10


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10_000,
        "{a: " * 10_000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "\n".join(" " * level + "a:" for level in range(200)),
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    """Depth ends in a problem with a line, not in a RecursionError."""
    assert f"nested deeper than {MAX_DEPTH}" in refused(text)


def test_depth_made_of_aliases_counts_too() -> None:
    """A chain of aliases cannot build a tree deeper than one written out."""
    chain = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 100)]

    assert f"nested deeper than {MAX_DEPTH}" in refused("\n".join(chain))


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}", "a: *nobody", "&x a: {b: *y}"])
def test_an_alias_for_itself_or_for_nothing_is_refused(text: str) -> None:
    """A recursive alias is an unknown one: an anchor counts once its value has ended."""
    assert "stands for nothing here" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['id']",
        "a: !!python/name:os.system",
        "a: !!python/object/new:type {}",
        "a: !!binary aGk=",
        "a: !!set {x}",
        "a: !mine {}",
        "!!map {}",
    ],
)
def test_tags_are_refused(text: str) -> None:
    """No tag constructs anything, Python objects least of all."""
    assert "are not allowed" in refused(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b: c", "f.yaml:1:5: error: not valid YAML: mapping values are not allowed"),
        ("a: 'x", "not valid YAML: found unexpected end of stream"),
        ("a: [1, 2", "not valid YAML"),
        ("\ta: 1", "not valid YAML: found character that cannot start any token"),
        ("a: \x00", "not valid YAML"),
        ("a: \ud800", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: error: a second document"),
        ("? [a, b]\n: c", "f.yaml:1:3: error: a key must be text"),
        ("? {a: b}\n: c", "a key must be text"),
    ],
)
def test_what_is_no_single_document_of_text_keys_is_refused(text: str, expected: str) -> None:
    """Each refusal says what was found and, where the parser knows, in which line."""
    assert expected in refused(text)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n...\n"])
def test_an_empty_file_is_an_empty_mapping_or_nothing(text: str) -> None:
    """A file of comments is read, so that missing keys can be named."""
    tree, problems = parse(text, "f.yaml")

    assert plain(tree) in ({}, None)
    assert problems == []


# Texts without digits: YAML 1.1, which PyYAML writes, and 1.2 disagree on words like `0E0`.
SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Nd"))),
    st.integers(-(2**62), 2**62),
    st.booleans(),
    st.none(),
)


@given(
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_", min_size=1), inner)
        ),
        max_leaves=20,
    )
)
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    """Texts, numbers, lists and mappings survive the trip through PyYAML's own writer."""
    tree, _ = parse(yaml.safe_dump(value, allow_unicode=True), "f.yaml")

    assert plain(tree) == value
