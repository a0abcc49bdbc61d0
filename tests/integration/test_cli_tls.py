"""The commands against a gateway whose three listeners want to see a client certificate."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import gateway_kit
import onnx_models
import pytest
import trustme

ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")
} | {"NO_COLOR": "1", "COLUMNS": "200"}


class Guarded(NamedTuple):
    """A gateway behind certificates, and the files of its callers."""

    running: gateway_kit.Running
    configuration: Path
    ca: Path
    certificate: Path
    key: Path
    both: Path

    def sluice(self, *words: object, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run one command, which must exit with `code`."""
        done = subprocess.run(
            [sys.executable, "-c", "from serving.cli import main; main()", *map(str, words)],
            capture_output=True, text=True, timeout=90, check=False, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """TLS with client certificates everywhere."""
    folder = tmp_path_factory.mktemp("guarded")
    configuration = folder / "gateway"
    configuration.mkdir()
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(str(configuration / "server.key"))
    (configuration / "server.key").chmod(0o600)
    certificate.cert_chain_pems[0].write_to_path(str(configuration / "server.pem"))
    authority.cert_pem.write_to_path(str(configuration / "ca.pem"))
    tls = {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
    listener = {"address": "127.0.0.1:0", "tls": tls}
    gateway_kit.write_gateway(
        configuration, listen=dict.fromkeys(("http", "grpc", "admin"), listener)
    )
    gateway_kit.write_model(configuration, "m", {"v1": onnx_models.doubler()}, {})
    mine = authority.issue_cert("client@example.org")
    files = [folder / name for name in ("client.pem", "client.key", "both.pem")]
    for file, blob in zip(
        files,
        (mine.cert_chain_pems[0], mine.private_key_pem, mine.private_key_and_cert_chain_pem),
        strict=True,
    ):
        blob.write_to_path(str(file))
    with gateway_kit.running(configuration) as running:
        yield Guarded(running, configuration, configuration / "ca.pem", *files)


@pytest.mark.parametrize("transport", [[], ["--grpc"]])
def test_infer_shows_its_certificate(guarded: Guarded, transport: list[str]) -> None:
    """By address, with the authority named; the key in the same file."""
    address = f"grpcs://{guarded.running.grpc}" if transport else f"https://{guarded.running.http}"
    done = guarded.sluice(
        *("infer", "m", "--url", address, "--feature", "X=21", "--json", *transport),
        *("--ca", guarded.ca, "--client-cert", guarded.both),
    )

    assert json.loads(done.stdout)["outputs"][0]["data"] == [42.0]


@pytest.mark.parametrize("transport", [[], ["--grpc"]])
def test_on_this_machine_the_gateways_own_certificate_is_believed(
    guarded: Guarded, transport: list[str]
) -> None:
    """Its file is named in gateway.yaml, so `--ca` is not needed; the key in a file of its own."""
    done = guarded.sluice(
        *("infer", "m", "--data", guarded.running.data, "--feature", "X=21", "--json", *transport),
        *("--client-cert", guarded.certificate, "--client-key", guarded.key),
    )

    assert json.loads(done.stdout)["outputs"][0]["data"] == [42.0]


def test_status_plan_and_apply_show_their_certificate(guarded: Guarded) -> None:
    """By data directory and by address."""
    shown = ["--ca", guarded.ca, "--client-cert", guarded.both]
    here = ["--data", guarded.running.data, *shown]
    there = ["--admin", f"https://{guarded.running.admin}", *shown]
    token = ["--token-file", guarded.running.data / "admin.token"]

    for where in (here, there):
        status = json.loads(guarded.sluice("status", "--json", *where).stdout)
        assert status["control"]["ready"] is True
        plan = guarded.sluice("plan", guarded.configuration, *where, *token)
        assert plan.stdout == "nothing changes\n"
        applied = guarded.sluice("apply", guarded.configuration, "--yes", *where, *token)
        assert "serves this already" in applied.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["infer", "m", "--feature", "X=1"],
        ["infer", "m", "--feature", "X=1", "--grpc"],
        ["plan", "DIR"],
    ],
)
def test_who_shows_no_certificate_is_told_to(guarded: Guarded, command: list[str]) -> None:
    """The listener hangs up; the hint says what it wanted."""
    words = [guarded.configuration if word == "DIR" else word for word in command]
    done = guarded.sluice(*words, "--data", guarded.running.data, code=3)

    assert "--client-cert FILE" in done.stderr


def test_an_authority_that_did_not_issue_the_certificate_is_told(
    guarded: Guarded, tmp_path: Path
) -> None:
    """The hint names the option."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    done = guarded.sluice(
        *("status", "--admin", f"https://{guarded.running.admin}", "--ca", other), code=3
    )

    assert "--ca FILE" in done.stderr


@pytest.mark.parametrize("transport", [[], ["--grpc"]])
@pytest.mark.parametrize(
    ("option", "content", "says"),
    [
        ("--ca", None, "No such file"),
        ("--ca", "no certificate", "must hold certificates in PEM"),
        ("--client-cert", None, "No such file"),
        ("--client-cert", "no certificate", "must hold a certificate and its key in PEM"),
    ],
)
def test_a_file_that_is_unfit_is_named_with_its_option(
    guarded: Guarded,
    tmp_path: Path,
    *,
    option: str,
    content: str | None,
    says: str,
    transport: list[str],
) -> None:
    """Before anything is sent."""
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    done = guarded.sluice(
        *("infer", "m", "--data", guarded.running.data, "--feature", "X=1", option, file),
        *transport,
        code=1,
    )

    assert f"{option}: {file}" in done.stderr
    assert says in done.stderr


def test_a_key_without_a_certificate_is_wrong_usage(guarded: Guarded) -> None:
    """There is nothing that it would be the key of."""
    done = guarded.sluice("status", "--client-key", guarded.key, code=2)

    assert "--client-cert" in done.stderr
