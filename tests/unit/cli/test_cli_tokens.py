"""`sluice tokens new NAME`."""

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serving.cli.app import app
from serving.config.identity import TokenTable
from serving.config.load import load_tokens


def new(*arguments: object) -> Result:
    """Call `sluice tokens new` with these arguments."""
    return CliRunner().invoke(app, ["tokens", "new", *map(str, arguments)])


def test_a_token_comes_with_the_entry_to_paste(tmp_path: Path) -> None:
    """The entry holds the hash of the token that was printed, and is valid YAML."""
    result = new("web", "--role", "operator")

    token = result.stdout.split()[1]
    entry = result.stdout.splitlines()[-1]
    file = tmp_path / "tokens.yaml"
    file.write_text(f"tokens:\n{entry}\n")
    principal = TokenTable.from_entries(load_tokens(file).tokens).identify(f"Bearer {token}")
    assert (principal.name, "operator" in principal.roles) == ("web", True)
    assert token not in entry


def test_entries_are_appended_and_the_file_is_private(tmp_path: Path) -> None:
    """The file is made if missing, for its owner only, and grows by one entry a call."""
    file = tmp_path / "tokens.yaml"

    first = json.loads(new("web", "--append", file, "--json").stdout)
    second = json.loads(new("ops", "--role", "admin", "--append", file, "--json").stdout)

    entries = load_tokens(file).tokens
    assert [(entry.name, entry.roles) for entry in entries] == [
        ("web", ["infer"]),
        ("ops", ["admin"]),
    ]
    for made, entry in zip((first, second), entries, strict=True):
        assert entry.sha256 == made["sha256"]
        assert entry.sha256 == hashlib.sha256(made["token"].encode()).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600
    assert first["token"] not in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.yaml"]


def test_comments_and_mode_of_the_file_stay(tmp_path: Path) -> None:
    """What was written before is kept to the byte, and so is who may read it."""
    file = tmp_path / "tokens.yaml"
    before = f"# ours\ntokens:\n  - {{name: a, sha256: {'1' * 64}, roles: [infer]}}  # first"
    file.write_text(before)
    file.chmod(0o640)

    assert new("b", "--append", file).exit_code == 0

    assert file.read_text().startswith(before + "\n")
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (f"tokens:\n  - {{name: a, sha256: {'1' * 64}, roles: [infer]}}\n", "a", "has a token"),
        (f"tokens: [{{name: a, sha256: {'1' * 64}, roles: [infer]}}]\n", "b", "cannot be added"),
        (f"tokens:\n- {{name: a, sha256: {'1' * 64}, roles: [infer]}}\n", "b", "cannot be added"),
        ("tokens:\n  - {name: a}\n", "b", "has mistakes"),
        ("no: yaml: this", "b", "has mistakes"),
        ("", "b", "has mistakes"),
    ],
)
def test_a_file_that_cannot_take_the_entry_is_left_as_it_was(
    tmp_path: Path, text: str, name: str, message: str
) -> None:
    """Exit 1 with the reason, the same bytes as before, and no stray file."""
    file = tmp_path / "tokens.yaml"
    file.write_text(text)

    result = new(name, "--append", file)

    assert result.exit_code == 1
    assert message in result.stderr
    assert file.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.yaml"]


@pytest.mark.parametrize("name", ["Web", "a b", '"', "", "x" * 65, "../a"])
def test_a_name_the_file_could_not_hold_is_wrong_usage(name: str) -> None:
    """Exit 2 before a token is drawn."""
    result = new(name)

    assert result.exit_code == 2
    assert "a name has up to 64" in result.stderr
    assert result.stdout == ""


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    """The reason is the system's, without a traceback and without a path of the server."""
    result = new("web", "--append", tmp_path / "missing" / "tokens.yaml")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: the token file cannot be written: No such file")
