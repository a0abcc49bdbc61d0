"""Write `inference_pb2*.py` and `.pyi` from `inference.proto`.

Run as `python -m serving.protocol._generated.generate [--check]` in an environment that has the
development tools (grpcio-tools, mypy-protobuf). `--check` writes nothing and exits 1 if a
checked-in file is out of date.

One line of protoc's output is changed: the messages live in a descriptor pool of their own.
Every client of the protocol registers the same full names (`inference.ModelInferRequest` …) in
the process-wide default pool, where a second definition raises; with its own pool this package
and a client can share a process.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = Path(*__package__.split("."))
ROOT = HERE.parents[len(PACKAGE.parts) - 1]
WRITTEN = (
    "inference_pb2.py",
    "inference_pb2.pyi",
    "inference_pb2_grpc.py",
    "inference_pb2_grpc.pyi",
)
DEFAULT_POOL = "_descriptor_pool.Default().AddSerializedFile("
OWN_POOL = "_descriptor_pool.DescriptorPool().AddSerializedFile("


def generate(target: Path) -> dict[str, str]:
    """Run protoc into the empty folder `target`; give each written file's text by name.

    Raises:
        RuntimeError: protoc failed, or its output no longer holds the line to change.
    """
    from grpc_tools import protoc

    tools = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT}",
            f"--plugin=protoc-gen-mypy={tools / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={tools / 'protoc-gen-mypy_grpc'}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            str(ROOT / PACKAGE / "inference.proto"),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc exited with {status}")
    texts = {name: (target / PACKAGE / name).read_text(encoding="utf-8") for name in WRITTEN}
    messages = texts["inference_pb2.py"]
    if messages.count(DEFAULT_POOL) != 1:
        raise RuntimeError("protoc's output has changed: the line that picks the pool is gone")
    texts["inference_pb2.py"] = messages.replace(DEFAULT_POOL, OWN_POOL)
    return texts


def main() -> int:
    """Write the files, or with --check compare them."""
    with tempfile.TemporaryDirectory() as folder:
        texts = generate(Path(folder))
    if "--check" in sys.argv[1:]:
        stale = [n for n, text in texts.items() if (HERE / n).read_text(encoding="utf-8") != text]
        for name in stale:
            print(f"{name} is out of date: run python -m {__package__}.generate")
        return 1 if stale else 0
    for name, text in texts.items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
