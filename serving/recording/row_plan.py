"""What one version's rows look like in the prediction log; worked out once for each table."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from numpy.typing import NDArray

from serving.config.frozen_bins import Reference
from serving.config.schema import ModelLog, RoleShares
from serving.types import TensorMetadata

__all__ = ["STATIONS", "Column", "Policy", "RowPlan", "plan_rows"]

_REQUEST_BYTES: Final = 1024
"""The Python objects of one request (measured: 900 to 1,100 with one row of 30 features)."""

Policy = Literal["keep", "hash", "drop"]

STATIONS: Final = ("decode", "admit", "join", "queue", "infer", "answer", "total")
"""Durations kept of each request, in the order of the pipeline's numbers."""


class Column(msgspec.Struct, frozen=True):
    """One column of the log and where it comes from.

    `name` is the tensor's or feature's own; `column` its name in the log; `index` its place in
    an assembled input.
    """

    name: str
    column: str
    datatype: str
    policy: Policy
    index: int = 0
    listed: bool = False
    """A row has several values: the column holds lists."""

    varies: bool = False
    """Rows need not have the same number of them."""


class RowPlan:
    """Everything about names, types and privacy that a row of this version needs.

    It ends with its table: whoever keeps something by a plan refers to it weakly.
    """

    __slots__ = (
        "__weakref__",
        "batchable",
        "digest",
        "direct",
        "entity",
        "features",
        "kept",
        "model",
        "outputs",
        "packing",
        "reference",
        "row_bytes",
        "shares",
        "variable",
        "version",
        "view_of",
        "views",
    )

    def __init__(
        self,
        *,
        model: str,
        version: str,
        digest: str,
        shares: Mapping[str, float],
        batchable: bool = True,
        entity: Sequence[Column] = (),
        features: Mapping[str, Sequence[Column]] | None = None,
        direct: Sequence[Column] = (),
        outputs: Sequence[Column] = (),
        views: Sequence[str] = (),
        view_of: Mapping[str, str] | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self.digest = digest
        self.shares = dict(shares)
        """Share of requests kept, by role; 1 for roles not named."""
        self.batchable = batchable
        self.entity = tuple(entity)
        self.features = {name: tuple(columns) for name, columns in (features or {}).items()}
        self.direct = tuple(direct)
        self.outputs = tuple(outputs)
        self.views = tuple(views)
        self.view_of = dict(view_of or {})
        """The view of each feature that comes from one."""
        self.reference = reference
        """Bins that its rows are counted into; None: they are not."""
        self.packing: Any = None
        """How the log keeps its requests until they are written; the log's own."""
        self.variable = any(column.listed for column in (*direct, *outputs))
        """Whether rows differ in size."""
        named = [
            *self.entity,
            *(column for columns in self.features.values() for column in columns),
            *self.direct,
            *self.outputs,
        ]
        self.row_bytes = 16 * len(named)
        """About what a row holds in memory until it is written."""
        self.kept = tuple(column for column in named if column.policy != "drop")
        """Columns in the order of the schema."""

    def size_of(
        self, rows: int, feed: Mapping[str, NDArray[Any]], outputs: Sequence[NDArray[Any]]
    ) -> int:
        """About how many bytes a request keeps in memory until it is written."""
        size = _REQUEST_BYTES + rows * self.row_bytes
        if self.variable:
            size += sum([array.nbytes for array in feed.values()])
            size += sum([array.nbytes for array in outputs])
        return size

    @classmethod
    def unrouted(cls, model: str) -> "RowPlan":
        """For requests that were refused before a version was picked."""
        return cls(model=model, version="", digest="", shares={})


def plan_rows(
    *,
    model: str,
    version: str,
    digest: str,
    log: ModelLog,
    batchable: bool,
    entity: Mapping[str, str],
    inputs: Sequence[TensorMetadata],
    features: Mapping[str, Sequence[str]],
    outputs: Sequence[TensorMetadata],
    views: Sequence[str],
    view_of: Mapping[str, str] | None = None,
    reference: Reference | None = None,
) -> RowPlan:
    """Compile the plan of one version.

    Args:
        model: by name.
        version: of the model.
        digest: of its artifact.
        log: what is kept of it.
        batchable: the first dimension of every tensor is the row.
        entity: keys and their datatypes.
        inputs: the model's own inputs.
        features: of an assembled input, the name of each column in order.
        outputs: the model's own outputs.
        views: feature views that its features come from.
        view_of: the view of each feature.
        reference: bins that its rows are counted into.
    """
    shares = log.sample
    if not isinstance(shares, RoleShares):
        shares = RoleShares(production=shares, canary=shares, shadow=shares)

    def policy(name: str) -> Policy:
        return log.fields.get(name, "keep")

    datatype_of = {spec.name: spec.datatype for spec in inputs}
    return RowPlan(
        model=model,
        version=version,
        digest=digest,
        shares={role: getattr(shares, role) for role in RoleShares.__struct_fields__},
        batchable=batchable,
        entity=[
            Column(name, f"entity.{name}", datatype, policy(name))
            for name, datatype in entity.items()
        ],
        features={
            name: [
                Column(field, f"feature.{field}", datatype_of[name], policy(field), index)
                for index, field in enumerate(columns)
            ]
            for name, columns in features.items()
        },
        direct=[
            Column(
                spec.name,
                f"input.{spec.name}",
                spec.datatype,
                policy(spec.name),
                listed=_several(spec, batchable=batchable),
                varies=-1 in _of_a_row(spec, batchable=batchable),
            )
            for spec in inputs
            if spec.name not in features
        ],
        outputs=[
            Column(
                spec.name,
                f"output.{spec.name}",
                spec.datatype,
                policy(spec.name),
                listed=_several(spec, batchable=batchable),
                varies=-1 in _of_a_row(spec, batchable=batchable),
            )
            for spec in outputs
        ],
        views=views,
        view_of=view_of,
        reference=reference,
    )


def _several(spec: TensorMetadata, *, batchable: bool) -> bool:
    """Whether one row of a tensor has more than one value, or may have."""
    return any(size != 1 for size in _of_a_row(spec, batchable=batchable))


def _of_a_row(spec: TensorMetadata, *, batchable: bool) -> Sequence[int]:
    """The shape of one row of a tensor; -1: any size."""
    return spec.shape[1:] if batchable else spec.shape
