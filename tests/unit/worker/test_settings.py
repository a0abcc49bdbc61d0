"""What a worker takes from gateway.yaml, and what it does with a file that is half edited."""

from pathlib import Path

import pytest
import yaml
from settings_kit import GOOD, good_directory, known, write_tokens

from serving.config.applied import Applied, write_applied
from serving.config.schema import AuthConfig, GatewayConfig
from serving.errors import InvalidConfig, Unauthenticated
from serving.worker.settings import load_settings


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


def test_without_tokens_and_certificates_everything_is_open(config: Path, data: Path) -> None:
    """The plain case: what the file says, no TLS, and anonymous callers."""
    settings = load_settings(config, data)

    assert settings.gateway.server_name == "good"
    assert settings.http_tls is None
    assert settings.grpc_credentials is None
    assert settings.credentials.identify(None).name == "anonymous"


@pytest.mark.parametrize(
    "broken", ["schema_version: 1\nserver_nam: x\n", "a: [", "\x00", "limits: 5\n"]
)
def test_a_broken_file_leaves_the_last_good_state(
    config: Path, data: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker restarted halfway through an edit starts with what was good, and says so."""
    before = load_settings(config, data)
    (config / "gateway.yaml").write_text(broken)

    after = load_settings(config, data)

    assert after.gateway == before.gateway
    assert float(after.gateway.limits.default_deadline) == 0.25
    assert "gateway.yaml cannot be used" in caplog.text


def test_a_file_emptied_for_a_moment_opens_no_door(config: Path, data: Path) -> None:
    """An empty file is valid and means no tokens, so after a fuller one it is not believed."""
    tokens = config / "tokens.yaml"
    write_tokens(tokens, "ann")
    gateway = {**GOOD, "auth": {"tokens": tokens.name}}
    (config / "gateway.yaml").write_text(yaml.safe_dump(gateway))
    load_settings(config, data)
    (config / "gateway.yaml").write_text("")

    credentials = load_settings(config, data).credentials

    assert known(credentials, "ann")
    with pytest.raises(Unauthenticated):
        credentials.identify(None)


def test_a_file_that_was_always_empty_is_all_defaults(config: Path, data: Path) -> None:
    """On a new data directory nothing contradicts an empty file, nor when it is read again."""
    (config / "gateway.yaml").write_text("")

    for _ in range(2):
        assert load_settings(config, data).gateway.server_name == "sluice"


def test_a_removed_file_leaves_the_last_good_state(config: Path, data: Path) -> None:
    """An editor that replaces the file may be caught without one."""
    load_settings(config, data)
    (config / "gateway.yaml").unlink()

    assert load_settings(config, data).gateway.server_name == "good"


def test_an_edited_file_is_what_counts_and_what_is_remembered(config: Path, data: Path) -> None:
    """The last good state is the latest one, not the first."""
    load_settings(config, data)
    (config / "gateway.yaml").write_text(yaml.safe_dump({**GOOD, "server_name": "newer"}))
    load_settings(config, data)
    (config / "gateway.yaml").write_text("a: [")

    assert load_settings(config, data).gateway.server_name == "newer"


def test_a_generation_goes_by_what_was_applied_and_where(config: Path, data: Path) -> None:
    """Neither an edit nor the directory that the engine was started with matters then."""
    applied = data.parent / "applied"
    applied.mkdir()
    write_tokens(applied / "tokens.yaml", "ann")
    write_applied(
        data,
        3,
        Applied(
            gateway=GatewayConfig(server_name="third", auth=AuthConfig(tokens="tokens.yaml")),
            directory=str(applied),
        ),
    )
    (config / "gateway.yaml").write_text("a: [")
    settings = load_settings(config, data, 3)

    assert settings.gateway.server_name == "third"
    assert known(settings.credentials, "ann")


def test_under_one_engine_all_workers_go_by_the_same_file(config: Path, data: Path) -> None:
    """A worker restarted alone does not take up an edit that its siblings have not."""
    (data / "run").mkdir()
    load_settings(config, data)
    (config / "gateway.yaml").write_text("schema_version: 1\nserver_name: edited\n")

    assert load_settings(config, data).gateway.server_name == "good"
    (data / "run" / "gateway.json").unlink()  # what `sluice up` does
    assert load_settings(config, data).gateway.server_name == "edited"


def test_what_was_never_good_is_refused(config: Path, data: Path) -> None:
    """Without a last good state the mistake is reported with its place."""
    (config / "gateway.yaml").write_text("schema_version: 1\nserver_nam: x\n")

    with pytest.raises(InvalidConfig, match="server_nam"):
        load_settings(config, data)


@pytest.mark.parametrize("remembered", [b"", b"{", b"\xff", b'{"limits": 5}', b"[" * 100_000])
def test_a_last_good_state_that_is_damaged_does_not_hide_the_mistake(
    config: Path, data: Path, remembered: bytes
) -> None:
    """With neither file usable, the one that a person can mend is reported."""
    (data / "gateway.json").write_bytes(remembered)
    (config / "gateway.yaml").write_text("schema_version: 1\nserver_nam: x\n")

    with pytest.raises(InvalidConfig, match="server_nam"):
        load_settings(config, data)


def test_a_state_that_cannot_be_remembered_is_used_all_the_same(
    config: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full or read-only disk does not keep a worker from starting."""
    (data / "gateway.json").mkdir()

    assert load_settings(config, data).gateway.server_name == "good"
    assert "cannot be remembered" in caplog.text


def test_the_remembered_state_is_for_its_owner_only(config: Path, data: Path) -> None:
    """It may hold the store's password."""
    load_settings(config, data)

    assert (data / "gateway.json").stat().st_mode & 0o777 == 0o600
