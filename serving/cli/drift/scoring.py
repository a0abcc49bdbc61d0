"""Outputs of a table's rows: as the table holds them, or as the model file answers."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.cli.output import CommandError
from serving.drift.columns import output_columns

if TYPE_CHECKING:
    from serving.config.load import Loaded
    from serving.types import Signature

__all__ = ["score"]

_BATCH: Final = 4096

Arrays = dict[str, NDArray[Any]]


def score(
    loaded: "Loaded", model: str, version: str, features: Arrays, table: Arrays
) -> tuple[Arrays, list[str]]:
    """Columns of the outputs, and what cannot be watched, in words.

    Args:
        loaded: the configuration.
        model: its name.
        version: whose file is asked.
        features: columns of the model's features, as it gets them.
        table: everything the table holds; outputs in it are taken as they are.
    """
    from serving.config.load import resolve_artifacts
    from serving.models import artifact
    from serving.models.runtime import Model

    path = resolve_artifacts(loaded).get((model, version))
    if path is None:
        return _in_table(features, table), []
    signature = _examine(path)
    names = [output.name for output in signature.outputs]
    held = {
        column: values
        for column, values in table.items()
        if column.partition("[")[0] in names and values.ndim == 1
    }
    for name in names:
        if name in table and table[name].ndim == 2:
            held |= output_columns(name, table[name])
    if held:
        return held, []
    feed, missing = _feed(loaded, model, signature, features)
    if missing:
        words = f"outputs (the model also takes {missing}, which no feature fills)"
        return {}, [words]
    sha256 = loaded.configuration.models[model].versions[version].sha256
    opened = Model(artifact.read(path, sha256))
    rows = len(next(iter(feed.values())))
    step = _BATCH if signature.batchable else 1
    parts = [
        opened.run(names, {name: one[start : start + step] for name, one in feed.items()}, None)
        for start in range(0, rows, step)
    ]
    columns: Arrays = {}
    ignored = []
    for name, *pieces in zip(names, *parts, strict=True):
        split = output_columns(name, np.concatenate(pieces))
        columns |= split
        if not split:
            ignored.append(f"`{name}` (too many values a row)")
    return columns, ignored


def _in_table(features: Arrays, table: Arrays) -> Arrays:
    """For a version at another server: every other column of the table that is no feature."""
    return {
        name: values
        for name, values in table.items()
        if name not in features and values.ndim == 1 and values.dtype.kind in "biuf"
    }


def _examine(path: Path) -> "Signature":
    """What the file takes and gives, found in a throw-away process, as `sluice check` does."""
    from serving.models.artifact import check_many
    from serving.types import Signature

    with TemporaryDirectory(prefix="sluice-freeze-") as folder:
        verdict = check_many([path], checked_dir=Path(folder))[path]
    if isinstance(verdict, Signature):
        return verdict
    raise CommandError(f"the model file must not be served: {verdict.message}") from verdict


def _feed(
    loaded: "Loaded", model: str, signature: "Signature", features: Arrays
) -> tuple[Arrays, str]:
    """The inputs of every row; or, second, the name of one that features do not fill."""
    import json

    from serving.config.columns import columns_of
    from serving.types import NUMPY_OF

    configuration = loaded.configuration
    inputs = configuration.models[model].inputs
    feed = {}
    for spec in signature.inputs:
        source = inputs.get(spec.name)
        if source is None:
            return {}, f"`{spec.name}`"
        names = [column.field for column in columns_of(source.features, configuration.views)]
        if source.order == "onnx_metadata":
            names = json.loads(signature.metadata["feature_names"])
        stacked = np.stack([features[name] for name in names], 1)
        feed[spec.name] = stacked.astype(NUMPY_OF[spec.datatype])
    return feed, ""
