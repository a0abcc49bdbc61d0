"""Reading a configuration directory: all mistakes, with their places."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.config.decode import MAX_PROBLEMS, decode
from serving.config.load import (
    MAX_FILE_BYTES,
    load_directory,
    load_gateway,
    load_tokens,
    resolve_artifacts,
)
from serving.config.problems import Location
from serving.config.schema import GatewayConfig, Listener, ModelConfig, TokensFile, WorkersConfig
from serving.config.units import ByteSize, Seconds
from serving.errors import InvalidConfig

DIGEST = "0123456789abcdef" * 4

MODEL = f"""\
schema_version: 1
model: employment
versions:
  v1: {{path: ../artifacts/v1.onnx, sha256: {DIGEST}}}
traffic: {{production: v1}}
"""


def directory(tmp_path: Path, **files: str) -> Path:
    """A configuration directory; `models__a` becomes models/a.yaml."""
    for name, text in {"gateway": "schema_version: 1\n", **files}.items():
        file = tmp_path / f"{name.replace('__', '/')}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def mistakes(root: Path) -> list[str]:
    """Every problem of a directory that cannot be loaded, as lines."""
    with pytest.raises(InvalidConfig) as caught:
        load_directory(root)
    return [str(problem) for problem in caught.value.problems]


def test_a_directory_is_read_whole(tmp_path: Path) -> None:
    """Gateway, models and views come out typed, with units, defaults and their files."""
    root = directory(
        tmp_path,
        gateway="limits: {max_body: 1MiB, default_deadline: 250ms}\n",
        models__employment=MODEL,
        features__person="view: person\nentity: {id: int64}\nfields: {a: {type: int8}}\n",
    )

    loaded = load_directory(root)

    gateway = loaded.configuration.gateway
    assert gateway.limits.max_body == ByteSize(1 << 20)
    assert gateway.limits.default_deadline == Seconds(0.25)
    assert type(gateway.limits.default_deadline) is Seconds
    assert gateway.limits.max_elements == 4_194_304
    assert loaded.configuration.models["employment"].traffic.production == "v1"
    assert loaded.configuration.views["person"].fields["a"].type == "int8"
    assert loaded.model_files == {"employment": "models/employment.yaml"}
    assert loaded.view_files == {"person": "features/person.yaml"}


def test_both_spellings_of_listeners_and_workers_are_read() -> None:
    """A bare address or number, and the mapping with more options, mean the same."""
    short = decode("listen: {http: 'h:1'}\nengine: {workers: 3}", "g", GatewayConfig).value
    long = decode(
        "listen: {http: {address: 'h:1'}}\nengine: {workers: {min: 3}}", "g", GatewayConfig
    ).value

    assert (short.listen.http, short.engine.workers) == ("h:1", 3)
    assert (long.listen.http, long.engine.workers) == (
        Listener(address="h:1"),
        WorkersConfig(min=3),
    )


def test_every_mistake_of_every_file_is_reported_with_its_place(tmp_path: Path) -> None:
    """One run names all of them, in file order, so that one edit can mend them."""
    root = directory(
        tmp_path,
        gateway="store: mysql://x\nengine: {workers: 0, kind: k8s}\n",
        models__employment="""\
model: Employment
version:
  v1: {path: a.onnx, sha256: 9f2c}
serve: {deadline: 100, max_batchsize: 64}
traffic:
  shadow: {version: v1}
  assignment: {on_missing_key: rando}
""",
        features__person="view: person\nfields: {}\nrequired: yes\n",
    )

    found = [line.split(": error: ") for line in mistakes(root)]
    assert [(place, message.split(":")[0]) for place, message in found] == [
        ("features/person.yaml:1:1", "missing key `entity` (a mapping)"),
        ("features/person.yaml:3:11", "required"),
        ("gateway.yaml:1:8", "store"),
        ("gateway.yaml:2:19", "engine.workers"),
        ("gateway.yaml:2:28", "engine.kind"),
        ("models/employment.yaml:1:8", "model"),
        ("models/employment.yaml:2:1", "version"),
        ("models/employment.yaml:3:30", "version.v1.sha256"),
        ("models/employment.yaml:4:19", "serve.deadline"),
        ("models/employment.yaml:4:24", "serve.max_batchsize"),
        ("models/employment.yaml:5:1", "traffic"),
        ("models/employment.yaml:6:11", "traffic.shadow"),
        ("models/employment.yaml:7:32", "traffic.assignment.on_missing_key"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limits: {max_body: 16}", "limits.max_body: expected a size such as"),
        ("engine: {workers: 0}", "expected a whole number from 1 to 256, got `0`"),
        ("engine: {workers: many}", "expected a whole number from 1 to 256 or a mapping with"),
        ("engine: {kind: loca}", "one of `local`, `ray`, got `loca` (did you mean `local`?)"),
        ("limits: {max_jsn_depth: 8}", "unknown key `max_jsn_depth` (did you mean `max_json_d"),
        ("logs: {format: {}}", "logs.format: expected one of `json`, `text`, got a mapping"),
        ("limits: {max_body: 16MB}", "limits.max_body: expected a size such as"),
        ("limits: {max_body: '9'}", "limits.max_body: expected a size such as"),
        (f"limits: {{max_body: {'9' * 400}GiB}}", "limits.max_body: expected a size such as"),
        ("limits: {default_deadline: 5}", "limits.default_deadline: expected a duration"),
        (f"limits: {{default_deadline: {'9' * 400}s}}", "limits.default_deadline: expected"),
        ("limits: {default_deadline: -5s}", "limits.default_deadline: expected a duration"),
        ("limits: {max_elements: 1.5}", "expected a whole number of at least 1, got `1.5`"),
        ("limits: {max_elements: true}", "expected a whole number of at least 1, got `true`"),
        ("limits: {max_elements: '5'}", "(leave out the quotes)"),
        (f"limits: {{max_elements: {2**63}}}", "expected a whole number of at least 1"),
        (f"limits: {{max_elements: {'9' * 9999}}}", "expected a whole number of at least 1"),
        ("limits: [1]", "limits: expected a mapping with"),
        ("limits:", "limits: expected a mapping with"),
        ("limits: {<<: {max_body: 1MiB}}", "unknown key `<<`"),
        ("tracing: {otlp: x, sample: .nan}", "expected a number from 0 to 1, got `.nan`"),
        ("tracing: {otlp: x, sample: 1e999}", "expected a number from 0 to 1, got `1e999`"),
        ("tracing: {otlp: x, sample: 1.5}", "expected a number from 0 to 1, got `1.5`"),
        ("server_name: ''", "expected text of 1 to 64 characters, got nothing"),
        ("server_name: true", "got `true` (put it in quotes)"),
        ("server_name: 'a\tb'", "(leave out control characters)"),
        ('server_name: "a\\0b"', "(leave out control characters)"),
        ("schema_version: 2", "schema_version: expected 1, got `2`"),
        ("listen: {http: {}}", "listen.http: missing key `address`"),
        ("listen: {grpc: [1]}", "listen.grpc: expected text or a mapping with `address`"),
        ("auth: {token: t.yaml}", "unknown key `token` (did you mean `tokens`?)"),
        ("[1, 2]", "expected a mapping with"),
        ("just text", "expected a mapping with"),
        ("5: x", "unknown key `5`"),
        ("~: x", "unknown key `~`"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_a_mistake_names_the_option_and_what_it_takes(text: str, expected: str) -> None:
    """Wrong types, units, bounds and shapes are told apart, and nothing is coerced."""
    decoded = decode(text, "gateway.yaml", GatewayConfig)

    assert decoded.value is None
    assert len(decoded.problems) == 1
    assert expected in str(decoded.problems[0])


@pytest.mark.parametrize("digits", ["1" * 64, "0" * 64, "12e" + "4" * 61, "0" * 63 + "7"])
def test_a_digest_that_reads_as_a_number_is_a_digest(digits: str) -> None:
    """A digest of digits only, or one that looks like `1e5`, needs no quotes."""
    text = MODEL.replace(DIGEST, digits)

    model = decode(text, "m.yaml", ModelConfig).value

    assert model.versions["v1"].sha256 == digits


def test_names_of_digits_need_no_quotes() -> None:
    """A version called 1 is the text `1`, as key and as value."""
    text = MODEL.replace("v1:", "1:").replace("production: v1", "production: 1")

    model = decode(text, "m.yaml", ModelConfig).value

    assert list(model.versions) == ["1"]
    assert model.traffic.production == "1"


@pytest.mark.parametrize("name", ['"v1\\n"', "V1", "v/1", "..", "''", "x" * 65, "-v"])
def test_a_version_outside_the_name_rule_is_refused(name: str) -> None:
    """Keys of `versions` are held to the same rule as every name, line ends included."""
    decoded = decode(MODEL.replace("  v1:", f"  {name}:"), "m.yaml", ModelConfig)

    assert any("expected a name" in problem.message for problem in decoded.problems)


def test_a_token_or_an_address_with_a_password_is_never_repeated() -> None:
    """Where a secret may have been written by mistake, only its length is told."""
    tokens = decode(
        "tokens: [{name: a, sha256: s3cret-token, roles: [infer]}]", "t.yaml", TokensFile
    )
    store = decode("store: 'redi://:s3cret@host'", "gateway.yaml", GatewayConfig)

    shown = " ".join(str(problem) for problem in tokens.problems + store.problems)
    assert "12 characters" in shown
    assert "s3cret" not in shown


def test_a_misspelt_key_is_not_also_missing_and_its_content_is_checked() -> None:
    """`version:` for `versions:` is one mistake, and the mistakes below it are found too."""
    decoded = decode(
        MODEL.replace("versions:", "version:").replace(DIGEST, "x"), "m.yaml", ModelConfig
    )

    assert [problem.path for problem in decoded.problems] == ["version", "version.v1.sha256"]


def test_a_file_full_of_mistakes_is_given_up_on() -> None:
    """After a hundred mistakes the rest is not looked at; somebody gave the wrong file."""
    text = "\n".join(f"key{number}: 1" for number in range(5000))

    decoded = decode(text, "gateway.yaml", GatewayConfig)

    assert len(decoded.problems) == MAX_PROBLEMS + 1
    assert "and more" in decoded.problems[-1].message


def test_escape_sequences_of_a_file_do_not_reach_the_terminal() -> None:
    """A problem is one printable line, whatever the file holds."""
    decoded = decode('"a\\e[31m\\nb": 1', "gateway.yaml", GatewayConfig)

    assert str(decoded.problems[0]).isprintable()


def test_values_know_where_they_were_written(tmp_path: Path) -> None:
    """Rules that judge later can point at the line; a default points at what is around it."""
    loaded = load_directory(directory(tmp_path, models__employment=MODEL))

    file = "models/employment.yaml"
    assert loaded.sources.at(file, ("traffic", "production")) == Location(file, 5, 23)
    assert loaded.sources.at(file, ("traffic", "canary", "weight")) == Location(file, 5, 1)
    assert loaded.sources.at(file, ("serve", "deadline")) == Location(file, 1, 1)
    assert loaded.sources.at("elsewhere.yaml", ("x",)) == Location("elsewhere.yaml")


def test_artifacts_are_found_from_the_file_that_names_them(tmp_path: Path) -> None:
    """A relative path starts at the model's YAML file and comes out absolute."""
    loaded = load_directory(directory(tmp_path, models__employment=MODEL))

    [(key, path)] = resolve_artifacts(loaded).items()

    assert key == ("employment", "v1")
    assert path.is_absolute()
    assert Path(os.path.normpath(path)) == tmp_path / "artifacts" / "v1.onnx"


def test_two_files_with_one_model_are_refused(tmp_path: Path) -> None:
    """The second file is reported at its name, and names the first."""
    root = directory(tmp_path, models__a=MODEL, models__b=MODEL)

    assert mistakes(root) == [
        "models/b.yaml:2:8: error: model: the model `employment` is also defined in models/a.yaml"
    ]


def test_a_file_that_would_be_ignored_is_an_error(tmp_path: Path) -> None:
    """`.yml` is not silently skipped; hidden files and other kinds of files are."""
    root = directory(tmp_path, models__employment=MODEL)
    for name in ("other.yml", "OTHER.YAML", ".hidden.yaml", "README.md"):
        (root / "models" / name).write_text("x")

    assert [line.split(":")[0] for line in mistakes(root)] == [
        "models/OTHER.YAML",
        "models/other.yml",
    ]


def test_a_linked_file_is_read(tmp_path: Path) -> None:
    """Kubernetes mounts configuration as symbolic links into a hidden directory."""
    root = directory(tmp_path)
    (root / "models" / "..data").mkdir(parents=True)
    (root / "models" / "..data" / "employment.yaml").write_text(MODEL)
    (root / "models" / "employment.yaml").symlink_to("..data/employment.yaml")

    assert set(load_directory(root).configuration.models) == {"employment"}


def test_odd_files_are_named_and_never_block(tmp_path: Path) -> None:
    """Directories, pipes, dead links, large files and other encodings each get their line."""
    root = directory(tmp_path, models__good=MODEL)
    models = root / "models"
    (models / "a.yaml").mkdir()
    os.mkfifo(models / "b.yaml")
    (models / "c.yaml").symlink_to("nowhere.yaml")
    (models / "d.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (models / "e.yaml").write_bytes(b"model: a\n# caf\xe9\n")
    (models / "f.yaml").symlink_to("f.yaml")

    assert mistakes(root) == [
        "models/a.yaml: error: a directory; a YAML file is expected here",
        "models/b.yaml: error: not a regular file; a YAML file is expected here",
        "models/c.yaml: error: no such file (the symbolic link points to nothing)",
        "models/d.yaml: error: larger than 1 MiB",
        "models/e.yaml:2:6: error: not UTF-8 text (save it as UTF-8)",
        "models/f.yaml: error: cannot be read: too many levels of symbolic links",
    ]


def test_a_missing_gateway_file_is_named(tmp_path: Path) -> None:
    """A directory without gateway.yaml is refused, and a near name is pointed out."""
    (tmp_path / "gatewy.yaml").write_text("")

    assert mistakes(tmp_path) == ["gateway.yaml: error: no such file (did you mean `gatewy.yaml`?)"]
    assert "does not exist" in mistakes(tmp_path / "nowhere")[0]
    assert "a file where a directory is expected" in mistakes(tmp_path / "gatewy.yaml")[0]


def test_an_empty_gateway_file_is_all_defaults(tmp_path: Path) -> None:
    """Every option of gateway.yaml has a default."""
    (tmp_path / "gateway.yaml").write_text("# nothing yet\n")

    assert load_gateway(tmp_path) == GatewayConfig()


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    """Editors on other systems write both."""
    (tmp_path / "gateway.yaml").write_bytes(b"\xef\xbb\xbfserver_name: a\r\nstore: embedded\r\n")

    assert load_gateway(tmp_path).server_name == "a"


def test_a_token_file_is_read_with_all_its_mistakes(tmp_path: Path) -> None:
    """The entries come out typed; a wrong file names each wrong entry."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"tokens:\n  - {{name: web, sha256: {DIGEST}, roles: [infer]}}\n")
    bad.write_text("tokens:\n  - {name: Web, sha256: x, roles: []}\n  - {name: a}\n")

    assert [entry.name for entry in load_tokens(good).tokens] == ["web"]
    with pytest.raises(InvalidConfig) as caught:
        load_tokens(bad)
    assert len(caught.value.problems) == 5
    assert "and 4 more" in caught.value.message


YAMLISH = st.text(st.sampled_from("abv1 0.:,-[]{}&*!|>'\"#~?%@\n\t\\é\x00\ud800"), max_size=60)
WORDS = st.sampled_from(
    ["model", "versions", "v1", "traffic", "production", "shadow", "weight", "serve", "1", "~"]
)
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.one_of(YAMLISH, TREES.map(repr), TREES.map(str)))
@pytest.mark.parametrize("kind", [GatewayConfig, ModelConfig, TokensFile])
def test_no_text_raises_anything(kind: type, text: str) -> None:
    """Any text is decoded or explained; exactly one of the two."""
    decoded = decode(text, "f.yaml", kind)

    assert (decoded.value is None) == bool(decoded.problems)
    assert all(str(problem).isprintable() for problem in decoded.problems)


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_raise_anything_but_invalid_config(tmp_path: Path, data: bytes) -> None:
    """Whatever lies in gateway.yaml, loading it succeeds or raises InvalidConfig."""
    (tmp_path / "gateway.yaml").write_bytes(data)

    try:
        load_directory(tmp_path)
    except InvalidConfig as error:
        assert error.problems  # noqa: PT017 - either outcome is right, this one must explain itself
