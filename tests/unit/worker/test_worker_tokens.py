"""Which tokens a worker knows while their file is edited, broken, put in place and removed."""

import hashlib
import logging
import os
from pathlib import Path

import pytest
import yaml
from settings_kit import GOOD, good_directory, known, write_tokens

from serving.errors import InvalidConfig, Unauthenticated
from serving.worker.settings import Credentials, load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration directory with a good gateway.yaml."""
    return good_directory(tmp_path / "config")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def tokens(config: Path) -> Path:
    """A token file with ann in it."""
    file = config / "tokens.yaml"
    write_tokens(file, "ann")
    return file


def test_a_configured_token_file_closes_the_door(config: Path, data: Path, tokens: Path) -> None:
    """With `auth.tokens` set, a caller needs a token from the file beside gateway.yaml."""
    gateway = {**GOOD, "auth": {"tokens": tokens.name}}
    (config / "gateway.yaml").write_text(yaml.safe_dump(gateway))

    credentials = load_settings(config, data).credentials

    assert known(credentials, "ann")
    assert not known(credentials, "bob")
    with pytest.raises(Unauthenticated):
        credentials.identify(None)


@pytest.mark.parametrize("content", [None, "tokens: []\n", "tokens: [", "\x00"])
def test_a_token_file_that_was_never_good_is_refused(tokens: Path, content: str | None) -> None:
    """A worker does not start open, or with nobody, because its token file is broken."""
    if content is None:
        tokens.unlink()
    else:
        tokens.write_text(content)

    with pytest.raises(InvalidConfig):
        Credentials(tokens)


@pytest.mark.parametrize("content", [None, "tokens: [", "\x00"])
def test_a_restart_knows_the_tokens_of_a_file_broken_since(
    tokens: Path, data: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker restarted while the file is unusable goes on with the hashes it had."""
    assert known(Credentials(tokens, data / "tokens.json"), "ann")
    if content is None:
        tokens.unlink()
    else:
        tokens.write_text(content)

    restarted = Credentials(tokens, data / "tokens.json")

    assert known(restarted, "ann")
    assert not known(restarted, "bob")
    assert "the token file is not used" in caplog.text
    assert (data / "tokens.json").stat().st_mode & 0o077 == 0


def test_an_edited_token_file_is_taken_over(tokens: Path) -> None:
    """New tokens work and removed ones stop working, without a restart."""
    credentials = Credentials(tokens)
    write_tokens(tokens, "bob", "eve")

    assert known(credentials, "ann")
    credentials.refresh()

    assert [known(credentials, name) for name in ("ann", "bob", "eve")] == [False, True, True]


def test_a_file_put_in_its_place_is_taken_over_whatever_its_age(tokens: Path) -> None:
    """A file of the same size and time, moved over the old one, is noticed."""
    credentials = Credentials(tokens)
    old = tokens.stat()
    other = tokens.with_name("other.yaml")
    write_tokens(other, "bob")
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(tokens)
    assert (tokens.stat().st_size, tokens.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)

    credentials.refresh()

    assert not known(credentials, "ann")
    assert known(credentials, "bob")


def test_an_unchanged_file_is_not_read(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking costs a stat, four times a second; reading waits for a change."""
    credentials = Credentials(tokens)
    monkeypatch.setattr("serving.worker.settings.load_tokens", pytest.fail)

    credentials.refresh()

    assert known(credentials, "ann")


def test_a_removed_token_file_leaves_the_known_tokens(tokens: Path) -> None:
    """While the file is gone its last content counts; what replaces it counts then."""
    credentials = Credentials(tokens)
    tokens.unlink()
    credentials.refresh()
    assert known(credentials, "ann")

    write_tokens(tokens, "bob", "eve")
    credentials.refresh()

    assert known(credentials, "bob")
    assert not known(credentials, "ann")


@pytest.mark.parametrize("content", ["", "tokens: []\n", "tokens: [", "\x00", "tokens: 5\n"])
def test_a_broken_token_file_leaves_the_known_tokens(
    tokens: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake is reported once and locks nobody out; the mended file counts again."""
    credentials = Credentials(tokens)
    tokens.write_text(content)
    credentials.refresh()
    credentials.refresh()

    assert known(credentials, "ann")
    assert caplog.text.count("the edited token file is not used") == 1
    write_tokens(tokens, "bob", "eve")
    credentials.refresh()
    assert known(credentials, "bob")


def test_taking_over_a_file_is_logged_without_its_content(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs say that the tokens changed, never what they are."""
    caplog.set_level(logging.INFO)
    credentials = Credentials(tokens)
    write_tokens(tokens, "bob", "eve")

    credentials.refresh()

    assert "tokens read again" in caplog.text
    assert hashlib.sha256(b"secret-bob").hexdigest() not in caplog.text


def test_open_doors_have_nothing_to_read_again() -> None:
    """Without a token file a refresh changes nothing."""
    credentials = Credentials(None)

    credentials.refresh()

    assert credentials.identify(None).name == "anonymous"
