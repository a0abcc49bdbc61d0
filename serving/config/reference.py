"""Generate `configs/reference.yaml` and `configs/schema.json` from the schema.

    python -m serving.config.reference configs/

Names, bounds and defaults come from the structs, the words from the text under each field.
Neither file is edited by hand; a test fails when one is not current.
"""

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from feature_cache.views import FeatureView
from serving.config.describe import expected
from serving.config.docstrings import field_docs
from serving.config.json_schema import json_schema
from serving.config.schema import GatewayConfig, ModelConfig, TokensFile
from serving.config.units import ByteSize, Seconds

__all__ = ["FILES", "reference_documents", "reference_yaml", "schema_json", "write"]

FILES: Final[dict[str, type[msgspec.Struct]]] = {
    "gateway.yaml": GatewayConfig,
    "models/employment.yaml": ModelConfig,
    "features/person_profile.yaml": FeatureView,
    "tokens.yaml": TokensFile,
}
"""The files of a configuration directory, with an example's name, and what each holds."""

# What the reference shows where there is no default, or a default that shows nothing.
# For mappings with free keys: the keys; one that is None is written out with every option. For
# lists of mappings: what follows the one that is written out.
EXAMPLES: Final[dict[tuple[str, str], Any]] = {
    ("TlsConfig", "cert"): "tls/gateway.pem",
    ("TlsConfig", "key"): "tls/gateway.key",
    ("TlsConfig", "client_ca"): "tls/clients.pem",
    ("Listener", "address"): "127.0.0.1:8000",
    ("AuthConfig", "tokens"): "tokens.yaml",
    ("TracingConfig", "otlp"): "http://127.0.0.1:4317",
    ("TokenEntry", "name"): "web-shop",
    ("TokenEntry", "sha256"): "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ("TokenEntry", "roles"): ["infer"],
    ("ModelConfig", "model"): "employment",
    ("ModelConfig", "versions"): {
        "v1": None,
        "v2": {"path": "../artifacts/employment-v2.onnx", "sha256": "0" * 63 + "2"},
        "v3": {"path": "../artifacts/employment-v3.onnx", "sha256": "0" * 63 + "3"},
    },
    ("ModelConfig", "entity"): {"person_id": "INT64"},
    ("ModelConfig", "inputs"): {"X": None},
    ("ModelConfig", "outputs"): ["probabilities"],
    ("VersionSource", "path"): "../artifacts/employment-v1.onnx",
    ("VersionSource", "sha256"): "0" * 63 + "1",
    ("VersionSource", "labels"): ["not employed", "employed"],
    ("InputConfig", "features"): ["person_profile.*"],
    ("ServeConfig", "deadline"): Seconds(0.1),
    ("Canary", "version"): "v2",
    ("Canary", "weight"): 5,
    ("Shadow", "version"): "v3",
    ("Assignment", "key"): "person_id",
    ("Assignment", "header"): "x-user-id",
    ("TrafficConfig", "production"): "v1",
    ("RolloutConfig", "canary"): "v2",
    ("RolloutConfig", "steps"): [
        {"weight": 5, "bake": {"min": Seconds(600.0), "max": Seconds(86400.0)}},
        {"weight": 100},
    ],
    ("Approval", "group"): "fraud-ml",
    ("Rule", "name"): "errors",
    ("Rule", "metric"): "error_rate",
    ("Rule", "tolerance"): 1.5,
    ("Rule", "prove"): 2.0,
    ("NotifyConfig", "webhook"): "https://ci.example/rollouts",
    ("NotifyConfig", "secret_file"): "ci.key",
    ("RetrainConfig", "webhook"): "https://trainer.example/requests",
    ("RetrainConfig", "secret_file"): "trainer.key",
    ("FeatureView", "view"): "person_profile",
    ("FeatureView", "entity"): {"person_id": "int64"},
    ("FeatureView", "fields"): {"AGEP": None},
    ("FeatureView", "seed"): "../data/people.parquet",
    ("FeatureView", "stream"): "person-updates",
    ("FeastSource", "project"): "people",
    ("FeastSource", "feature_view"): "person_stats",
    ("Field", "type"): "float32",
    ("Field", "default"): 0,
}

# Written as a comment, because it excludes its neighbour.
ALTERNATIVES: Final = frozenset({("Assignment", "header"), ("TrafficConfig", "canary")})

_WIDTH: Final = 96
_HEADING: Final = """\
# Every option of every file, with its unit, its bounds and its default.
# Made by `make generate` from serving/config/schema/; change the words there.
#
# A document below is one file of a configuration directory. Copy what you need: what is left
# out has its default, and what is misspelt is an error (`sluice check DIR`).
"""


def reference_yaml() -> str:
    """The commented reference, one YAML document per file."""
    return _HEADING + "".join(f"\n---\n{document}" for document in reference_documents().values())


def reference_documents() -> dict[str, str]:
    """The same documents, keyed by the file each one shows."""
    return {file: _document(file, kind) for file, kind in FILES.items()}


def schema_json() -> str:
    """The JSON Schema of all files; which one applies follows from a file's own keys."""
    return json.dumps(json_schema(list(FILES.values())), indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    """Write both files into a folder."""
    (folder / "reference.yaml").write_text(reference_yaml(), encoding="utf-8")
    (folder / "schema.json").write_text(schema_json(), encoding="utf-8")


def _document(file: str, kind: type[msgspec.Struct]) -> str:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    lines = [f"# {file}", *_comment(kind.__doc__ or "", ""), ""]
    return "\n".join([*lines, *_Printer().section(info, "")]).rstrip("\n") + "\n"


class _Printer:
    """Writes one document. A section that may be written in two ways is spelt out once."""

    def __init__(self) -> None:
        self._spelt_out: set[type] = set()

    def section(self, info: inspect.StructType, indent: str) -> Iterator[str]:
        """Every option of a section; top-level ones with a line between them."""
        docs = field_docs(info.cls)
        for field in info.fields:
            key = (info.cls.__name__, field.encode_name)
            yield from _comment(docs[field.encode_name], indent)
            yield from _comment(_summary(field), indent)
            if key in ALTERNATIVES:
                for line in self._option(key, field, ""):
                    yield f"{indent}# {line}"
            else:
                yield from self._option(key, field, indent)
            if not indent:
                yield ""

    def _option(self, key: tuple[str, str], field: inspect.Field, indent: str) -> Iterator[str]:
        name, inner = field.encode_name, indent + "  "
        kind = _without_none(field.type)
        if isinstance(kind, inspect.UnionType):
            section = next((one for one in kind.types if isinstance(one, inspect.StructType)), None)
            if section is not None and section.cls not in self._spelt_out:
                self._spelt_out.add(section.cls)
                short = f"`{name}: {_flow(_default(field))}` is the short form."
                yield from _comment(short, indent)
                kind = section
        match kind:
            case inspect.StructType():
                yield f"{indent}{name}:"
                yield from self.section(kind, inner)
            case inspect.DictType(value_type=inspect.StructType() as value):
                yield f"{indent}{name}:"
                for entry, example in EXAMPLES[key].items():
                    if example is None:
                        yield f"{inner}{entry}:"
                        yield from self.section(value, inner + "  ")
                    else:
                        yield f"{inner}{entry}: {_flow(example)}"
            case inspect.ListType(item_type=inspect.StructType() as item):
                yield f"{indent}{name}:"
                lines = list(self.section(item, ""))
                lines = [line for line in lines if line]
                yield f"{inner}-"
                yield from (f"{inner}  {line}" for line in lines)
                yield from (f"{inner}- {_flow(one)}" for one in EXAMPLES.get(key, ()))
            case _:
                value = EXAMPLES[key] if key in EXAMPLES else _default(field)
                yield f"{indent}{name}: {_flow(value)}"


def _summary(field: inspect.Field) -> str:
    """Bounds and default, as a sentence each."""
    kind = _without_none(field.type)
    plain = not isinstance(kind, (inspect.StructType, inspect.DictType))
    accepts = expected(kind) if plain else ""
    if accepts.isdigit():
        return f"Always {accepts}."
    sentences = [accepts[0].upper() + accepts[1:]] if accepts else []
    default = _default(field)
    if field.required:
        sentences.append("Required")
    elif default is None:
        sentences.append("Default: absent")
    elif default in ([], {}):
        sentences.append("Default: none")
    elif not isinstance(default, msgspec.Struct):
        sentences.append(f"Default: {_flow(default)}")
    return ". ".join(sentences) + "." if sentences else ""


def _default(field: inspect.Field) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default


def _without_none(info: inspect.Type) -> inspect.Type:
    if not isinstance(info, inspect.UnionType):
        return info
    kinds = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
    return kinds[0] if len(kinds) == 1 else inspect.UnionType(tuple(kinds))


def _flow(value: Any) -> str:
    """A value on one line."""
    match value:
        case Seconds() | ByteSize():
            return str(value)
        case dict():
            return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(_flow(one) for one in value) + "]"
        case str():
            bare = value and not set(value) & set("{}[],#&!|>'\"%@`") and ": " not in value
            digits = value.isdigit()
            return value if bare and not digits else json.dumps(value)
        case float():
            return f"{value:g}"
    return json.dumps(value)


def _comment(text: str, indent: str) -> list[str]:
    words = " ".join(text.split())
    return [f"{indent}# {line}" for line in textwrap.wrap(words, _WIDTH - len(indent))]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
