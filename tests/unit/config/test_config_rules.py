"""What must hold between the parts of a configuration."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from serving.config.check import require_valid
from serving.errors import InvalidConfig

ONNX = b"not really a model"
DIGEST = hashlib.sha256(ONNX).hexdigest()
OTHER = b"another model"
OTHER_DIGEST = hashlib.sha256(OTHER).hexdigest()

MODEL = f"""\
schema_version: 1
model: employment
versions:
  v1: {{path: ../v1.onnx, sha256: {DIGEST}}}
  v2: {{path: ../v2.onnx, sha256: {OTHER_DIGEST}}}
entity: {{person_id: INT64}}
inputs:
  X: {{features: [person.*]}}
traffic:
  production: v1
  canary: {{version: v2, weight: 5}}
  assignment: {{key: person_id}}
"""

VIEW = """\
view: person
entity: {person_id: int64}
fields:
  AGEP: {type: float32, default: 0}
  SCHL: {type: int8, default: 1}
"""

Edit = tuple[str, str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory without a mistake."""
    (tmp_path / "models").mkdir()
    (tmp_path / "features").mkdir()
    (tmp_path / "gateway.yaml").write_text("schema_version: 1\n")
    (tmp_path / "models" / "employment.yaml").write_text(MODEL)
    (tmp_path / "features" / "person.yaml").write_text(VIEW)
    (tmp_path / "v1.onnx").write_bytes(ONNX)
    (tmp_path / "v2.onnx").write_bytes(OTHER)
    return tmp_path


def findings(root: Path, *, insecure: bool = False, artifacts: bool = True) -> list[str]:
    """Every problem of a directory, errors and warnings, as lines."""
    try:
        _, warnings = require_valid(root, insecure=insecure, artifacts=artifacts)
    except InvalidConfig as error:
        return [str(problem) for problem in error.problems]
    assert all(problem.severity == "warning" for problem in warnings)
    return [str(problem) for problem in warnings]


def edit(file: Path, *edits: Edit) -> None:
    """Replace text in a file; what is replaced must be there."""
    text = file.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def test_a_sound_directory_has_no_findings(root: Path) -> None:
    """Neither errors nor warnings."""
    assert findings(root) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("production: v1", "production: v3"),
            "10:15: error: traffic.production: `v3` is none of `versions` (known here: `v1`, `v2`)",
        ),
        (
            ("canary: {version: v2", "canary: {version: w"),
            (
                "11:21: error: traffic.canary.version: `w` is none of `versions` "
                "(known here: `v1`, `v2`)"
            ),
        ),
        (
            ("canary: {version: v2", "canary: {version: v1"),
            "11:21: error: traffic.canary.version: `v1` is production already",
        ),
        (
            ("  canary: {version: v2, weight: 5}", "  shadow: [{version: v2}, {version: v2}]"),
            "11:37: error: traffic.shadow[1].version: `v2` is also shadow[0] (keep one of them)",
        ),
        (
            ("  canary: {version: v2, weight: 5}", "  shadow: [{version: v1}]"),
            (
                "11:22: error: traffic.shadow[0].version: `v1` is production; copying to it would "
                "answer twice"
            ),
        ),
        (
            ("key: person_id", "key: person"),
            (
                "12:21: error: traffic.assignment.key: `person` is none of `entity` "
                "(did you mean `person_id`?)"
            ),
        ),
        (
            ("{key: person_id}", "{key: person_id, header: x-user}"),
            (
                "12:40: error: traffic.assignment.header: either `key` or `header` decides "
                "(leave one of them out)"
            ),
        ),
        (
            ("{key: person_id}", "{on_missing_key: reject}"),
            (
                "12:32: error: traffic.assignment.on_missing_key: every request would be rejected "
                "(name a `key` or `header`)"
            ),
        ),
        (
            ("{key: person_id}", "{header: content-length}"),
            (
                "12:24: error: traffic.assignment.header: `content-length` has a meaning of its "
                "own in HTTP or gRPC (use another header, such as `x-sluice-version`)"
            ),
        ),
        (
            ("{key: person_id}", "{header: x-key-bin}"),
            (
                "12:24: error: traffic.assignment.header: gRPC takes metadata whose key ends in "
                "`-bin` for binary data (use another name)"
            ),
        ),
        (
            ("{key: person_id}", "{header: x-sluice-version}\n  overrides: [{}]"),
            (
                "13:15: error: traffic.overrides[0].header: `x-sluice-version` already assigns "
                "versions (use another header)"
            ),
        ),
        (
            ("{key: person_id}", "{key: person_id}\n  overrides: [{}, {}]"),
            (
                "13:19: error: traffic.overrides[1].header: `x-sluice-version` is also "
                "overrides[0], which wins (keep one of them)"
            ),
        ),
        (
            ("[person.*]", "[persn.*]"),
            "8:18: error: inputs.X.features[0]: there is no view `persn` (did you mean `person`?)",
        ),
        (
            ("[person.*]", "[person.AGE]"),
            (
                "8:18: error: inputs.X.features[0]: the view `person` has no field `AGE` "
                "(did you mean `AGEP`?)"
            ),
        ),
        (
            ("[person.*]", "[person]"),
            (
                "8:18: error: inputs.X.features[0]: `person` is no feature "
                "(write `view.field` or `view.*`)"
            ),
        ),
        (
            ("[person.*]", "[person.*, person.AGEP]"),
            (
                "8:28: error: inputs.X.features[1]: the name `AGEP` is taken by person.AGEP of "
                "inputs.X (clients send features under their own names; rename one)"
            ),
        ),
        (
            ("entity: {person_id: INT64}", "entity: {person_id: INT64, AGEP: INT64}"),
            (
                "8:18: error: inputs.X.features[0]: the name `AGEP` is taken by entity.AGEP "
                "(clients send features under their own names; rename one)"
            ),
        ),
        (
            ("entity: {person_id: INT64}", "entity: {person_id: BYTES}"),
            (
                "6:21: error: entity.person_id: the view `person` says int64, which is INT64, not "
                "BYTES (use INT64)"
            ),
        ),
        (
            ("{path: ../v2.onnx, sha256: " + OTHER_DIGEST + "}", "{labels: [a]}"),
            (
                "5:3: error: versions.v2: it is neither a file nor at another server "
                "(give it `path` and `sha256`, or a `url`)"
            ),
        ),
        (
            ("path: ../v2.onnx,", "path: ../v2.onnx, url: 'http://h/v2/models/m',"),
            (
                "5:3: error: versions.v2: a version is a file or at another server, not both "
                "(leave out `url`, or `path` and `sha256`)"
            ),
        ),
        (
            ("{path: ../v2.onnx, sha256: " + OTHER_DIGEST + "}", "{url: ['http://h/v2']}"),
            (
                "5:14: error: versions.v2.url[0]: `http://h/v2` does not end in /v2/models/NAME "
                "or …/versions/VERSION (such as http://host:8000/v2/models/name)"
            ),
        ),
        (
            (
                "X: {features: [person.*]}",
                "X: {features: [person.*]}\nserve: {hosts: 2}",
            ),
            (
                "9:16: warning: serve.hosts: it counts for `placement: dedicated` only, and this "
                "is `inline`"
            ),
        ),
        (
            (
                "X: {features: [person.*]}",
                "X: {features: [person.*]}\nserve: {placement: dedicated, hosts: {min: 3}}",
            ),
            "9:31: error: serve.hosts: min is 3, which is more than max, 1",
        ),
        (
            ("X: {features: [person.*]}", "X: {features: [person.*]}\nserve: {deadline: 0s}"),
            "9:19: error: serve.deadline: must be more than nothing",
        ),
        (
            ("X: {features: [person.*]}", "X: {features: [person.*]}\nserve: {deadline: 2m}"),
            "9:19: warning: serve.deadline: cut to limits.max_deadline of gateway.yaml, 1m",
        ),
        (
            ("model: employment", "model: jobs"),
            "2:8: warning: model: the file is called `employment.yaml` (rename it to `jobs.yaml`)",
        ),
        (
            ("../v1.onnx", "../v3.onnx"),
            (
                "4:14: error: versions.v1.path: there is no such model file "
                "(the path starts at the folder of this YAML file)"
            ),
        ),
        (
            ("../v1.onnx", "../models"),
            (
                "4:14: error: versions.v1.path: the model file is no regular file "
                "(the path starts at the folder of this YAML file)"
            ),
        ),
        (
            (DIGEST, "0" * 64),
            (
                "4:34: error: versions.v1.sha256: the model file has another digest "
                f"(if the file is right, write {DIGEST})"
            ),
        ),
        (
            (f"../v2.onnx, sha256: {OTHER_DIGEST}", f"../v1.onnx, sha256: {DIGEST}"),
            "5:34: warning: versions.v2.sha256: the same model file as `v1`",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_explained(root: Path, change: Edit, expected: str) -> None:
    """Each rule for models/*.yaml points at the value and says what would fit."""
    edit(root / "models" / "employment.yaml", change)

    assert findings(root) == [f"models/employment.yaml:{expected}"]


def test_a_view_whose_key_no_client_sends_is_explained(root: Path) -> None:
    """The entity a view is looked up by must be one of the model's."""
    edit(
        root / "models" / "employment.yaml",
        ("entity: {person_id: INT64}\n", ""),
        ("  assignment: {key: person_id}\n", ""),
    )

    [finding] = findings(root)

    assert "looked up by `person_id`, which no client sends" in finding
    assert "add `entity: {person_id: INT64}`" in finding


def test_a_linked_model_file_is_refused(root: Path) -> None:
    """A link could be turned to another file after the check."""
    (root / "v1.onnx").rename(root / "real.onnx")
    (root / "v1.onnx").symlink_to("real.onnx")

    assert "is a symbolic link" in findings(root)[0]


def test_model_files_are_left_alone_when_asked(root: Path) -> None:
    """Without artifacts a configuration is judged where its model files are not."""
    (root / "v1.onnx").unlink()

    assert findings(root, artifacts=False) == []


def test_views_and_fields_may_have_dots_in_their_names(root: Path) -> None:
    """`a.b.c` is field `c` of view `a.b` if there is such a view."""
    edit(root / "features" / "person.yaml", ("view: person", "view: person.v2"))
    (root / "features" / "person.yaml").rename(root / "features" / "person.v2.yaml")
    edit(root / "models" / "employment.yaml", ("person.*", "person.v2.AGEP, person.v2.SCHL"))

    assert findings(root) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("{person_id: int64}", "{}"), "entity: a view is looked up by a key"),
        (("{person_id: int64}", "{AGEP: int64}"), "fields.AGEP: `AGEP` is also a key of this view"),
        (("fields:", "source: feast\nfields:"), "source: Feast's project is not said"),
        (
            ("fields:", "feast: {project: p}\nfields:"),
            "feast: means nothing without `source: feast`",
        ),
        (
            ("fields:", "source: feast\nfeast: {project: p}\nstream: s\nfields:"),
            "stream: Feast writes this view; it is only read here",
        ),
        (("fields:", "seed: nowhere.csv\nfields:"), "seed: no such file or directory"),
        (("default: 0", "default: x"), "fields.AGEP.default: `x` is no float32"),
        (("default: 0", "default: 1e39"), "fields.AGEP.default: `1e+39` is no float32"),
        (("default: 1", "default: 128"), "fields.SCHL.default: `128` is no int8"),
        (("default: 1", "default: 1.5"), "fields.SCHL.default: `1.5` is no int8"),
        (("default: 1", "default: true"), "fields.SCHL.default: `True` is no int8"),
        (("int8, default: 1", "string, default: 1"), "fields.SCHL.default: `1` is no string"),
        (("int8, default: 1", "bool, default: 1"), "fields.SCHL.default: `1` is no bool"),
        (("view: person", "view: people"), "warning: view: the file is called `person.yaml`"),
        ((VIEW.partition("fields:")[2], " {}\n"), "fields: a view needs a field"),
        ((", default: 1", ""), "fields.SCHL: `on_missing: default` needs a default here"),
        (("fields:", "fresh_for: 7\nfields:"), "fresh_for: expected a number with a unit"),
        (("fields:", "keep_for: 1d\nfields:"), "keep_for: shorter than fresh_for, 7d"),
        (("fields:", "on_missing: nan\nfields:"), "fields.SCHL.type: `on_missing: nan` needs"),
    ],
)
def test_a_view_that_contradicts_itself_is_explained(
    root: Path, change: Edit, expected: str
) -> None:
    """Each rule for features/*.yaml names the option."""
    edit(root / "features" / "person.yaml", change)

    assert any(expected in finding for finding in findings(root) if "features/" in finding)


def test_two_views_do_not_share_a_stream(root: Path) -> None:
    """An entry is a row of one of them."""
    text = VIEW.replace("fields:", "stream: s\nfields:")
    (root / "features" / "person.yaml").write_text(text)
    (root / "features" / "other.yaml").write_text(text.replace("view: person", "view: other"))

    assert any("stream: `s` is also the stream of `other`" in one for one in findings(root))


def test_features_that_feast_keeps_under_one_name_are_found(root: Path) -> None:
    """Their hashes collide, and Feast does not look."""
    fields = ", ".join(
        f"{name}: {{type: float32, default: 0}}"
        for name in ("avg_item_8049_1h", "std_item_2738_24h")
    )
    (root / "features" / "user_stats.yaml").write_text(
        f"view: user_stats\nentity: {{id: int64}}\nsource: feast\nfeast: {{project: p}}\n"
        f"fields: {{{fields}}}\n"
    )

    [finding] = findings(root)

    assert "fields.std_item_2738_24h: Feast keeps it under the same name as" in finding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "engine: {kind: local, address: 127.0.0.1:6379}",
            "engine.address: the engine `local` joins no cluster",
        ),
        (
            "engine: {workers: {min: 3, max: 2}}",
            "1:25: error: engine.workers.min: min is 3, more than max, which is 2",
        ),
        (
            "engine: {workers: {min: 1, max: 2}}",
            "1:33: warning: engine.workers.max: the engine `local` does not scale",
        ),
        (
            "limits: {default_deadline: 2m}",
            "1:28: error: limits.default_deadline: longer than limits.max_deadline, 1m",
        ),
        ("limits: {max_body: 0B}", "1:20: error: limits.max_body: must be more than nothing"),
        ("limits: {idle_timeout: 0s}", "limits.idle_timeout: must be more than nothing"),
        (
            "listen: {http: 127.0.0.1:8001}",
            "1:1: error: listen.grpc: the same port as listen.http",
        ),
        (
            "listen: {http: 127.0.0.1:9, admin: 'localhost:9'}",
            "1:36: error: listen.admin: the same port as listen.http",
        ),
        ("listen: {http: 8000}", "1:16: error: listen.http: expected `host:port`, such as"),
        ("listen: {http: ':8000'}", "listen.http: the host is missing"),
        ("listen: {http: '::1:8000'}", "listen.http: an IPv6 address needs brackets"),
        ("listen: {http: 'localhost:65536'}", "listen.http: the port must be a number"),
        ("listen: {http: 'localhost:x'}", "listen.http: the port must be a number"),
        ("listen: {http: 'http://localhost:80'}", "listen.http: an IPv6 address needs brackets"),
        ("listen: {http: 'a/b:80'}", "listen.http: expected `host:port` and nothing else"),
        ("auth: {tokens: none.yaml}", "none.yaml: error: no such file"),
    ],
)
def test_a_gateway_that_cannot_run_is_explained(root: Path, text: str, expected: str) -> None:
    """Each rule for gateway.yaml names the option."""
    (root / "gateway.yaml").write_text(text)

    assert any(expected in finding for finding in findings(root))


@pytest.mark.parametrize(
    "text",
    [
        "listen: {http: '127.0.0.1:0', grpc: '127.0.0.1:0', admin: '127.0.0.1:0'}",
        "listen: {http: '[::1]:8000', grpc: 'localhost:8001'}",
        "listen: {http: '127.0.0.1:9', grpc: '127.0.0.2:9'}",
        "engine: {workers: {min: 2, max: 2}}",
    ],
)
def test_a_gateway_that_can_run_is_left_in_peace(root: Path, text: str) -> None:
    """Port 0 never collides, loopback has many spellings, and several addresses share a port."""
    (root / "gateway.yaml").write_text(text)

    assert findings(root) == []


@pytest.fixture
def secured(root: Path) -> Path:
    """The directory with certificates, an authority for clients, and a token."""
    authority = trustme.CA()
    issued = authority.issue_cert("gateway.example")
    issued.cert_chain_pems[0].write_to_path(root / "cert.pem")
    issued.private_key_pem.write_to_path(root / "key.pem")
    authority.cert_pem.write_to_path(root / "ca.pem")
    (root / "key.pem").chmod(0o600)
    (root / "tokens.yaml").write_text(
        f"tokens: [{{name: web, sha256: {DIGEST}, roles: [infer]}}]\n"
    )
    (root / "tokens.yaml").chmod(0o600)
    return root


OPEN = "listen: {http: 0.0.0.0:8000}"
TLS = "listen: {http: {address: 0.0.0.0:8000, tls: {cert: cert.pem, key: key.pem}}}"
MUTUAL = (
    "listen: {http: {address: 0.0.0.0:8000, "
    "tls: {cert: cert.pem, key: key.pem, client_ca: ca.pem}}}"
)
TOKENS = "\nauth: {tokens: tokens.yaml}"


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        (OPEN, ["not encrypted", "everybody"]),
        (OPEN + TOKENS, ["not encrypted"]),
        (TLS, ["everybody"]),
        ("listen: {admin: '[::]:8002'}", ["not encrypted", "everybody"]),
        ("listen: {grpc: 'gateway.example:8001'}", ["not encrypted", "everybody"]),
    ],
)
def test_a_listener_beyond_loopback_must_be_protected(
    secured: Path, text: str, lacking: list[str]
) -> None:
    """Without encryption or without a way to know callers, it is refused unless forced by name."""
    (secured / "gateway.yaml").write_text(text)

    [finding] = findings(secured)
    [forced] = findings(secured, insecure=True)

    assert all(word in finding for word in [*lacking, "--insecure-bind"])
    assert ("not encrypted" in finding, "everybody" in finding) == (
        "not encrypted" in lacking,
        "everybody" in lacking,
    )
    assert forced == finding.replace(": error: ", ": warning: ")


@pytest.mark.parametrize("text", [TLS + TOKENS, MUTUAL, MUTUAL + TOKENS])
def test_a_protected_listener_may_be_reached_from_anywhere(secured: Path, text: str) -> None:
    """TLS together with tokens or client certificates is enough."""
    (secured / "gateway.yaml").write_text(text)

    assert findings(secured) == []


def _encrypted_key(root: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((root / "key.pem").read_bytes(), None)
    (root / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: (root / "cert.pem").unlink(), "tls.cert: there is no such file"),
        (lambda root: (root / "key.pem").unlink(), "tls.key: there is no such file"),
        (lambda root: (root / "ca.pem").unlink(), "tls.client_ca: there is no such file"),
        (lambda root: (root / "cert.pem").write_text("x"), "tls.cert: holds no certificate"),
        (lambda root: (root / "key.pem").write_text("x"), "tls.key: holds no unencrypted private"),
        (lambda root: (root / "ca.pem").write_text("x"), "tls.client_ca: holds no certificate"),
        (_encrypted_key, "tls.key: holds no unencrypted private key"),
        (
            lambda root: (
                trustme.CA().issue_cert("a").private_key_pem.write_to_path(root / "key.pem")
            ),
            "tls.key: is not the key of the certificate",
        ),
        (lambda root: (root / "key.pem").chmod(0o604), "error: listen.http.tls.key: every user"),
        (lambda root: (root / "key.pem").chmod(0o640), "warning: listen.http.tls.key: a whole"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_explained(
    secured: Path, spoil: Callable[[Path], object], expected: str
) -> None:
    """Missing, foreign, encrypted, mismatched and readable keys are found before the start."""
    (secured / "gateway.yaml").write_text(MUTUAL)
    spoil(secured)

    assert any(expected in finding for finding in findings(secured))


def test_a_token_file_that_others_may_read_is_a_warning(secured: Path) -> None:
    """Its hashes are no secrets, but who writes there could let himself in."""
    (secured / "gateway.yaml").write_text(TOKENS)
    (secured / "tokens.yaml").chmod(0o644)

    assert findings(secured) == [
        (
            "gateway.yaml:2:16: warning: auth.tokens: others may read the token file (mode 0644) "
            "(chmod 600)"
        )
    ]


def test_names_and_tokens_are_given_once(secured: Path) -> None:
    """Two entries of one name, and two names for one token, are mistakes."""
    (secured / "gateway.yaml").write_text(TOKENS)
    (secured / "tokens.yaml").write_text(
        "tokens:\n"
        f"  - {{name: web, sha256: {DIGEST}, roles: [infer]}}\n"
        f"  - {{name: web, sha256: {OTHER_DIGEST}, roles: [infer]}}\n"
        f"  - {{name: ops, sha256: {DIGEST}, roles: [admin]}}\n"
    )

    assert findings(secured) == [
        "tokens.yaml: error: tokens[1].name: `web` is also the name of tokens[0]",
        (
            "tokens.yaml: error: tokens[2].sha256: the same token as tokens[0] "
            "(make another with `sluice tokens new`)"
        ),
    ]


def test_mistakes_in_the_token_file_are_all_told(secured: Path) -> None:
    """They come with the file's own lines."""
    (secured / "gateway.yaml").write_text(TOKENS)
    (secured / "tokens.yaml").write_text("tokens:\n  - {name: Web, roles: [root]}\n")

    found = findings(secured)

    assert len(found) == 4
    assert sum(finding.startswith("tokens.yaml:2:") for finding in found) == 3
