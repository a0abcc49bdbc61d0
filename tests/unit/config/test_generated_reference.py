"""The generated reference and schema, and the examples beside them."""

import json
import shutil
from pathlib import Path

import pytest
import trustme

from serving.config.check import require_valid
from serving.config.decode import decode
from serving.config.docstrings import field_docs
from serving.config.reference import FILES, reference_documents, reference_yaml, schema_json
from serving.config.schema import Limits

CONFIGS = Path(__file__).parents[3] / "configs"
EXAMPLES = CONFIGS / "examples"


@pytest.mark.parametrize(
    ("name", "current"), [("reference.yaml", reference_yaml), ("schema.json", schema_json)]
)
def test_the_checked_in_file_is_current(name: str, current: object) -> None:
    """An option changed in the schema without `make generate` fails here."""
    assert (CONFIGS / name).read_text(encoding="utf-8") == current()


@pytest.mark.parametrize("file", FILES)
def test_each_document_of_the_reference_loads(file: str) -> None:
    """What the reference shows is a file the gateway takes, with every option given."""
    documents = (CONFIGS / "reference.yaml").read_text(encoding="utf-8").split("\n---\n")
    [text] = [text for text in documents if text.startswith(f"# {file}\n")]

    decoded = decode(text, file, FILES[file])

    assert [str(problem) for problem in decoded.problems] == []
    named = {path[-1] for _, path in decoded.locations if path}
    assert named >= set(FILES[file].__struct_fields__)


def test_the_reference_is_a_sound_configuration(tmp_path: Path) -> None:
    """Taken together the documents fit each other, certificates aside."""
    for file, text in reference_documents().items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "tokens.yaml").chmod(0o600)
    certificates(tmp_path / "tls", "clients.pem")

    _, warnings = require_valid(tmp_path, artifacts=False)

    # Every option is shown, so one is there that only another value of its neighbour needs.
    assert [warning.path for warning in warnings] == ["feast"]


def test_every_option_has_words_in_the_reference() -> None:
    """The text under each field stands above the option."""
    text = " ".join(reference_yaml().replace("#", " ").split())

    assert all(words in text for words in field_docs(Limits).values())


def test_an_option_without_words_is_refused() -> None:
    """A field whose docstring was forgotten stops the generator."""

    class Undocumented:
        __struct_fields__ = ("option",)

    with pytest.raises(LookupError, match="option"):
        field_docs(Undocumented)


def test_the_schema_refers_only_to_what_it_defines() -> None:
    """Every `$ref` leads somewhere, and every section forbids unknown keys."""
    schema = json.loads(schema_json())
    references = set()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            references.update([node["$ref"]] if "$ref" in node else [])
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(schema)
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}
    assert all(section["additionalProperties"] is False for section in schema["$defs"].values())


def test_the_schema_knows_units_bounds_and_defaults() -> None:
    """What editors complete and underline is what the loader takes."""
    limits = json.loads(schema_json())["$defs"]["Limits"]["properties"]

    assert limits["max_body"]["default"] == "16MiB"
    assert limits["default_deadline"]["examples"] == ["50ms", "5s", "7d"]
    assert (limits["max_json_depth"]["minimum"], limits["max_json_depth"]["maximum"]) == (4, 128)


def certificates(folder: Path, authority_name: str) -> None:
    """The files that the TLS examples name."""
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "gateway.pem")
    issued.private_key_pem.write_to_path(folder / "gateway.key")
    authority.cert_pem.write_to_path(folder / authority_name)
    (folder / "gateway.key").chmod(0o600)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_each_example_is_sound(tmp_path: Path, name: str) -> None:
    """An example has no mistake once its certificates are made."""
    root = tmp_path / name
    shutil.copytree(EXAMPLES / name, root, ignore=shutil.ignore_patterns("tls"))
    certificates(root / "tls", "authority.pem")
    if (root / "tokens.yaml").exists():
        (root / "tokens.yaml").chmod(0o600)

    _, warnings = require_valid(root, artifacts=False)

    assert warnings == []


@pytest.mark.parametrize("name", ["canary", "shadow"])
def test_examples_name_the_demo_models_by_their_digest(name: str) -> None:
    """Training the demo again without correcting the examples fails here."""
    require_valid(EXAMPLES / name)
