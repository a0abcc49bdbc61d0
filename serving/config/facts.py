"""Look at the files a configuration names: model files, certificates, tokens.

This is the only part of checking that touches the disk; what the findings mean is decided in
`serving.config.rules`.
"""

import hashlib
import os
import shutil
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serving.config.addresses import listener_parts
from serving.config.frozen_bins import MAX_REFERENCE_BYTES, Reference, decode_reference
from serving.config.load import (
    Loaded,
    load_tokens,
    resolve_artifacts,
    resolve_references,
    resolve_seeds,
)
from serving.config.problems import Problem
from serving.config.schema import RetrainConfig, TlsConfig, TokensFile
from serving.errors import InvalidConfig

__all__ = [
    "ArtifactFact",
    "Facts",
    "ReferenceFact",
    "RetrainFact",
    "SecretFact",
    "TlsFact",
    "TokensFact",
    "gather",
]


class ArtifactFact(msgspec.Struct, frozen=True):
    """A model file: its digest, or (`sha256` empty) why it cannot be read."""

    sha256: str = ""
    refusal: str = ""


class ReferenceFact(msgspec.Struct, frozen=True):
    """A model's frozen bins, or (`reference` None) what is wrong with the file."""

    reference: Reference | None = None
    refusal: str = ""


class TlsFact(msgspec.Struct, frozen=True):
    """What is wrong with a listener's files, by option; and who may read the key."""

    refusals: dict[str, str] = {}
    key_mode: int = 0o600


class RetrainFact(msgspec.Struct, frozen=True):
    """What is wrong with the files that a model's `retrain` names; and who may read the secret."""

    secret: str = ""
    program: str = ""
    secret_mode: int = 0o600


class SecretFact(msgspec.Struct, frozen=True):
    """What is wrong with a file that holds a secret; and who may read it."""

    refusal: str = ""
    mode: int = 0o600


class TokensFact(msgspec.Struct, frozen=True):
    """The token file as read, or its own problems; and who may read it."""

    tokens: TokensFile | None = None
    problems: tuple[Problem, ...] = ()
    mode: int = 0o600


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on disk that a configuration names.

    `artifacts` is keyed by (model, version) and None where nobody looked; `tls` by listener;
    `tokens` is None without `auth`; `seeds` says by view why its seed cannot be read;
    `references` and `retrains` are keyed by model, `notices` by (model, position in its rollout's
    `notify`).
    """

    artifacts: dict[tuple[str, str], ArtifactFact] | None = None
    tls: dict[str, TlsFact] = {}
    tokens: TokensFact | None = None
    seeds: dict[str, str] = {}
    references: dict[str, ReferenceFact] = {}
    retrains: dict[str, RetrainFact] = {}
    notices: dict[tuple[str, int], SecretFact] = {}


def gather(loaded: Loaded, *, artifacts: bool = True) -> Facts:
    """Look at every file; a file that cannot be read is a finding and not an error.

    Without `artifacts` model files are left alone (they may be large, or elsewhere).
    """
    gateway = loaded.configuration.gateway
    listeners = {
        name: listener_parts(getattr(gateway.listen, name))[1] for name in ("http", "grpc", "admin")
    }
    return Facts(
        artifacts=_artifacts(loaded) if artifacts else None,
        tls={name: _tls(loaded.root, tls) for name, tls in listeners.items() if tls is not None},
        tokens=_tokens(loaded.root / gateway.auth.tokens) if gateway.auth else None,
        seeds=dict(_seeds(loaded)) if artifacts else {},
        references=_references(loaded) if artifacts else {},
        retrains=_retrains(loaded) if artifacts else {},
        notices=_notices(loaded) if artifacts else {},
    )


def _retrains(loaded: Loaded) -> dict[str, RetrainFact]:
    root = loaded.root.absolute()
    return {
        name: _retrain(root, config.monitoring.retrain)
        for name, config in loaded.configuration.models.items()
        if config.monitoring is not None and config.monitoring.retrain is not None
    }


def _retrain(root: Path, retrain: RetrainConfig) -> RetrainFact:
    program = ""
    secret = _secret(root / retrain.secret_file) if retrain.secret_file else SecretFact()
    if retrain.command:
        named = retrain.command[0]
        place = str(root / named) if "/" in named else named
        program = "" if shutil.which(place) else "there is no such program that may be run"
    return RetrainFact(secret.refusal, program, secret.mode)


def _notices(loaded: Loaded) -> dict[tuple[str, int], SecretFact]:
    root = loaded.root.absolute()
    return {
        (name, position): _secret(root / notice.secret_file)
        for name, config in loaded.configuration.models.items()
        if config.rollout is not None
        for position, notice in enumerate(config.rollout.notify)
        if notice.secret_file
    }


def _secret(path: Path) -> SecretFact:
    if refusal := _unreadable(path):
        return SecretFact(refusal)
    refusal = "" if path.read_bytes().strip() else "is empty"
    return SecretFact(refusal, stat.S_IMODE(path.stat().st_mode))


def _references(loaded: Loaded) -> dict[str, ReferenceFact]:
    return {name: _reference(path) for name, path in resolve_references(loaded).items()}


def _reference(path: Path) -> ReferenceFact:
    if refusal := _unreadable(path):
        return ReferenceFact(refusal=f"cannot be read: {refusal}")
    try:
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            return ReferenceFact(refusal=f"is larger than {MAX_REFERENCE_BYTES >> 20} MiB")
        return ReferenceFact(decode_reference(path.read_bytes()))
    except OSError as error:
        return ReferenceFact(refusal=f"cannot be read: {_words(error)}")
    except InvalidConfig as error:
        return ReferenceFact(refusal=f"must not be used: {error.message}")


def _seeds(loaded: Loaded) -> Iterator[tuple[str, str]]:
    for name, path in resolve_seeds(loaded).items():
        try:
            with path.open("rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    yield name, "this is no file"
        except OSError as error:
            yield name, (error.strerror or "cannot be read").lower()


def _artifacts(loaded: Loaded) -> dict[tuple[str, str], ArtifactFact]:
    known: dict[Path, ArtifactFact] = {}
    found = {}
    for key, path in resolve_artifacts(loaded).items():
        found[key] = known[path] = known.get(path) or _artifact(path)
    return found


def _artifact(path: Path) -> ArtifactFact:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if path.is_symlink():
            return ArtifactFact(refusal="the model file is a symbolic link; name the file itself")
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return ArtifactFact(refusal="there is no such model file")
    except (OSError, ValueError) as error:
        return ArtifactFact(refusal=f"the model file cannot be read: {_words(error)}")
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ArtifactFact(refusal="the model file is no regular file")
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return ArtifactFact(sha256=hashlib.file_digest(stream, "sha256").hexdigest())
    except OSError as error:
        return ArtifactFact(refusal=f"the model file cannot be read: {_words(error)}")
    finally:
        os.close(descriptor)


def _tls(root: Path, tls: TlsConfig) -> TlsFact:
    refusals = {
        option: refusal
        for option, name in (("cert", tls.cert), ("key", tls.key), ("client_ca", tls.client_ca))
        if name is not None and (refusal := _unreadable(root / name))
    }
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if not refusals.keys() & {"cert", "key"}:
        try:
            # Without a password at hand OpenSSL would ask for one on the terminal.
            context.load_cert_chain(root / tls.cert, root / tls.key, password=lambda: "")
        except (ssl.SSLError, OSError, ValueError) as error:
            refusals |= _blame(error, root / tls.cert)
    if tls.client_ca is not None and "client_ca" not in refusals:
        try:
            context.load_verify_locations(root / tls.client_ca)
        except (ssl.SSLError, OSError):
            refusals["client_ca"] = "holds no certificate in PEM form"
    mode = 0o600
    if "key" not in refusals:
        mode = stat.S_IMODE((root / tls.key).stat().st_mode)
    return TlsFact(refusals, mode)


def _blame(error: Exception, cert: Path) -> dict[str, str]:
    """Which of certificate and key OpenSSL did not like."""
    reason = str(getattr(error, "reason", ""))
    if reason == "KEY_VALUES_MISMATCH":
        return {"key": "is not the key of the certificate in `cert`"}
    if "TOO_SMALL" in reason or "TOO_WEAK" in reason:
        return {"cert": "is too weak for OpenSSL's security level"}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except (ssl.SSLError, OSError):
        return {"cert": "holds no certificate in PEM form"}
    return {"key": "holds no unencrypted private key in PEM form"}


def _tokens(path: Path) -> TokensFact:
    try:
        tokens = load_tokens(path)
        return TokensFact(tokens, (), stat.S_IMODE(path.stat().st_mode))
    except InvalidConfig as error:
        problems = tuple(one for one in error.problems if isinstance(one, Problem))
        return TokensFact(problems=problems)
    except OSError as error:
        problem = Problem(file=path.name, message=f"cannot be read: {_words(error)}")
        return TokensFact(problems=(problem,))


def _unreadable(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "is no regular file"
        with path.open("rb"):
            return ""
    except (OSError, ValueError) as error:
        return _words(error)


def _words(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case PermissionError():
            return "this user may not read it"
        case OSError(strerror=str() as words):
            return words.lower()
    return "the path is not usable"
