"""Join: from what the client sent to what the model takes.

Everything about names, datatypes and shapes is resolved when the table is compiled; a request
costs a few dictionary look-ups. Three kinds of input are told apart:

- *direct*: the ONNX input itself (`X`), passed on as it is;
- *feature*: one column of an ONNX input (`AGEP`), shape `[n]` or `[n, 1]`; it wins over the
  same column of a direct input sent along;
- *entity*: the key (`person_id`), shape `[n]` or `[n, 1]`, which traffic assignment reads and
  by which features that were not sent are looked up.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from feature_cache.cache import Batch, FeatureCache, Reading
from feature_cache.keys import InvalidEntity
from feature_cache.plan import Plan
from feature_cache.views import FeatureView
from serving.config.columns import columns_of
from serving.config.frozen_bins import Reference
from serving.config.schema import ModelConfig
from serving.config.snapshot import StagedVersion
from serving.errors import FeaturesUnavailable, InvalidRequest
from serving.recording.row_plan import RowPlan, plan_rows
from serving.types import NUMPY_OF, InferRequest, RequestedOutput, Signature, Tensor, TensorMetadata
from serving.worker.join_checks import check_column, check_whole, listed, missing_input

__all__ = ["JoinColumn", "JoinPlan", "Joined", "Wanted"]

_MAX_LAYOUTS: Final = 64


class Joined(msgspec.Struct, gc=False):
    """What one version's session is given.

    `feed` maps each ONNX input to its array; `rows` is the batch size (1 for a model whose
    first dimension is no batch); `outputs` names what is wanted, in answering order.
    """

    feed: dict[str, NDArray[Any]]
    rows: int
    outputs: tuple[str, ...]
    batch: Batch | None = None
    """What was read from the store for it, if anything was."""


class Wanted(msgspec.Struct, gc=False):
    """What a request leaves to the store: whose features, and which it has sent itself."""

    entities: dict[str, list[Any]]
    sent: dict[str, NDArray[Any]]


class JoinColumn(msgspec.Struct, frozen=True):
    """One feature of one assembled input."""

    name: str
    datatype: str
    target: str
    index: int


class _Layout(msgspec.Struct, frozen=True):
    """A sequence of tensor names, understood: positions of columns, datatypes, which are keys."""

    columns: dict[str, list[int]]
    datatypes: list[str]
    keys: list[bool]


class JoinPlan:
    """One version's way from tensors to feed, compiled."""

    def __init__(
        self,
        *,
        model: str,
        signature: Signature,
        columns: Mapping[str, tuple[JoinColumn, ...]],
        entity: Mapping[str, str],
        outputs: tuple[str, ...],
        features: FeatureCache | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.model = model
        self.features = features
        self._plan = plan
        self._leaves: dict[tuple[str, ...], bool] = {}
        self.batchable = signature.batchable
        self.inputs = {spec.name: spec for spec in signature.inputs}
        self.entity = dict(entity)
        self._columns = dict(columns)
        self._column_of = {column.name: column for group in columns.values() for column in group}
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._outputs = outputs
        self._known_outputs = {spec.name for spec in signature.outputs}
        only = signature.inputs[0] if len(signature.inputs) == 1 else None
        # One fixed-width input is the common case and gets the shortest way.
        self._only = only if only is not None and all(d > 0 for d in only.shape[1:]) else None
        self._only_batched = self._only is not None and bool(only and only.shape[:1] == (-1,))
        self._only_tail = self._only.shape[1:] if self._only is not None else ()

    def join(self, request: InferRequest) -> Joined:
        """Check the request against the model and assemble its feed.

        Raises:
            InvalidRequest: naming the input or output that does not fit.
        """
        inputs = request.inputs
        outputs = self._wanted(request.outputs) if request.outputs else self._outputs
        only = self._only
        if only is not None and len(inputs) == 1:
            tensor = inputs[0]
            shape = tensor.data.shape
            if (
                self._only_batched
                and tensor.name == only.name
                and tensor.datatype == only.datatype
                and shape[1:] == self._only_tail
                and shape  # [] has no rows, and the tail of a model of plain rows is [] too
                and shape[0] > 0
            ):
                return Joined({only.name: tensor.data}, shape[0], outputs)
        feed = self._columns_only(inputs)
        if feed is not None:
            return Joined(feed, len(inputs[0].data), outputs)
        return self._assemble(inputs, outputs)

    @property
    def reads(self) -> bool:
        """Whether a request may leave something to the store."""
        return self._plan is not None

    def wanted(self, request: InferRequest) -> Wanted | None:
        """Say what has to be read for a request; None if it brings everything, or no keys.

        Raises:
            InvalidRequest: a key or feature of the wrong datatype or shape.
        """
        plan = self._plan
        if plan is None:
            return None
        inputs = request.inputs
        names = tuple([tensor.name for tensor in inputs])
        leaves = self._leaves.get(names)
        if leaves is None:
            leaves = self._leaves[names] = self._leaves_something(names, plan)
            if len(self._leaves) > _MAX_LAYOUTS:
                self._leaves.clear()
        if not leaves:
            return None
        if len(inputs) == 1:  # the key and nothing else
            [tensor] = inputs
            check_column(tensor, self.entity[tensor.name])
            data = tensor.data
            if not len(data):
                self._rows(inputs)
            values = data.tolist() if data.ndim == 1 else data.reshape(-1).tolist()
            return Wanted({tensor.name: values}, {})
        return self._sorted(inputs, plan)

    def _sorted(self, inputs: list[Tensor], plan: Plan) -> Wanted:
        """Tell keys from features that were sent, and check both."""
        wanted = Wanted({}, {})
        for tensor in inputs:
            name = tensor.name
            if name in plan.entity:
                check_column(tensor, self.entity[name])
                wanted.entities[name] = tensor.data.reshape(-1).tolist()
            elif name in self._column_of:
                check_column(tensor, self._column_of[name].datatype)
                wanted.sent[name] = tensor.data.reshape(-1)
            elif name in self.inputs:
                check_whole(tensor, self.inputs[name], self.model)
        self._rows(inputs)
        return wanted

    def _leaves_something(self, names: tuple[str, ...], plan: Plan) -> bool:
        known = frozenset(names)
        return (
            len(known) == len(names)
            and plan.entity.keys() <= known
            and any(
                name not in known and not known.issuperset([column.name for column in columns])
                for name, columns in self._columns.items()
            )
        )

    def ask(self, wanted: Wanted, seconds: float) -> Reading | Awaitable[Reading]:
        """Have the store asked, for at most `seconds`; at once what this process holds.

        Raises:
            InvalidRequest: an unusable key.
        """
        features, plan = self.features, self._plan
        assert features is not None
        assert plan is not None
        try:
            deadline = features.reader.now() + seconds
            return features.ask(plan, wanted.entities, wanted.sent, deadline)
        except InvalidEntity as error:
            raise InvalidRequest(str(error)) from None

    def join_read(self, request: InferRequest, wanted: Wanted, reading: Reading) -> Joined:
        """Assemble a feed from what the request brought and the store said.

        Raises:
            FeaturesUnavailable: a view's policy rejects what the store said.
            InvalidRequest: as `join`.
        """
        features, plan = self.features, self._plan
        assert features is not None
        assert plan is not None
        outputs = self._wanted(request.outputs) if request.outputs else self._outputs
        batch = features.assemble(plan, reading, wanted.sent)
        if batch.unknown:
            features.look(batch.unknown)
        if batch.refusal:
            raise FeaturesUnavailable(batch.refusal)
        if (
            len(request.inputs) == len(wanted.entities)
            and batch.values.keys() == self.inputs.keys()
        ):
            return Joined(batch.values, reading.rows, outputs, batch)
        direct = {tensor.name: tensor.data for tensor in request.inputs}
        feed = {}
        for name, spec in self.inputs.items():
            if name in direct and name in self._columns:
                sent = {t.name: t for t in request.inputs if t.name in wanted.sent}
                feed[name] = self._fill(spec, self._columns[name], direct[name], sent, reading.rows)
            elif name in direct:
                feed[name] = direct[name]
            elif name in batch.values:
                feed[name] = batch.values[name]
            else:
                raise missing_input(spec, self.model)
        return Joined(feed, reading.rows, outputs, batch)

    def _columns_only(self, inputs: list[Tensor]) -> dict[str, NDArray[Any]] | None:
        """Assemble a request that sends every feature as a column `[n, 1]`, and keys, no more.

        None for any other; `_assemble` then says what is wrong, if anything is.
        """
        names = tuple([tensor.name for tensor in inputs])
        layout = self._layouts.get(names)
        if layout is None:
            layout = self._layouts[names] = self._layout(names)
            if len(self._layouts) > _MAX_LAYOUTS:  # clients choose the order, not how many we keep
                self._layouts.clear()
        if not layout.columns or [tensor.datatype for tensor in inputs] != layout.datatypes:
            return None
        rows = len(inputs[0].data) if inputs[0].data.ndim else 0
        column, flat = (rows, 1), (rows,)
        for tensor, key in zip(inputs, layout.keys, strict=True):
            shape = tensor.data.shape
            if shape != column and not (key and shape == flat):
                return None
        if not rows:
            return None
        return {
            name: np.concatenate(
                [inputs[position].data for position in positions],
                axis=1,
                dtype=NUMPY_OF[self.inputs[name].datatype],
                casting="same_kind",
            )
            for name, positions in layout.columns.items()
        }

    def _layout(self, names: tuple[str, ...]) -> "_Layout":
        """Find where each input's columns are among these tensors; empty if it is not so simple."""
        at = {name: position for position, name in enumerate(names)}
        known = len(at) == len(names) and at.keys() <= self._column_of.keys() | self.entity.keys()
        complete = (
            self._columns.keys() == self.inputs.keys() and self._column_of.keys() <= at.keys()
        )
        if not known or not complete:
            return _Layout({}, [], [])
        return _Layout(
            {
                name: [at[column.name] for column in columns]
                for name, columns in self._columns.items()
            },
            [
                self._column_of[name].datatype if name in self._column_of else self.entity[name]
                for name in names
            ],
            [name not in self._column_of for name in names],
        )

    def _wanted(self, requested: list[RequestedOutput]) -> tuple[str, ...]:
        for output in requested:
            if output.name not in self._known_outputs:
                raise InvalidRequest(
                    f"unknown output '{output.name[:128]}': model '{self.model}' has "
                    f"{listed(self._known_outputs)}"
                )
        return tuple(output.name for output in requested)

    def _assemble(self, inputs: list[Tensor], outputs: tuple[str, ...]) -> Joined:
        direct: dict[str, NDArray[Any]] = {}
        features: dict[str, Tensor] = {}
        for tensor in inputs:
            name = tensor.name
            if name in self.inputs:
                check_whole(tensor, self.inputs[name], self.model)
                direct[name] = tensor.data
            elif name in self._column_of:
                check_column(tensor, self._column_of[name].datatype)
                features[name] = tensor
            elif name in self.entity:
                check_column(tensor, self.entity[name])
            else:
                raise InvalidRequest(
                    f"unknown input '{name[:128]}': model '{self.model}' takes "
                    f"{listed([*self.inputs, *self._column_of, *self.entity])}"
                )
        rows = self._rows(inputs)
        feed: dict[str, NDArray[Any]] = {}
        for name, spec in self.inputs.items():
            columns = self._columns.get(name)
            if columns is not None:
                feed[name] = self._fill(spec, columns, direct.get(name), features, rows)
            elif name in direct:
                feed[name] = direct[name]
            else:
                raise missing_input(spec, self.model)
        return Joined(feed, rows, outputs)

    def _rows(self, inputs: list[Tensor]) -> int:
        """Count the rows, on which all inputs must agree; 1 where nothing is a batch."""
        counts = {
            tensor.name: tensor.data.shape[0] if tensor.data.ndim else 0
            for tensor in inputs
            if self.batchable or tensor.name not in self.inputs
        }
        if not counts:
            return 1
        first, rows = next(iter(counts.items()))
        for name, count in counts.items():
            if count != rows:
                raise InvalidRequest(f"input '{name}' has {count} rows, but '{first}' has {rows}")
        if rows == 0:
            raise InvalidRequest(f"input '{first}' has no rows")
        return rows

    def _fill(
        self,
        spec: TensorMetadata,
        columns: tuple[JoinColumn, ...],
        whole: NDArray[Any] | None,
        features: dict[str, Tensor],
        rows: int,
    ) -> NDArray[Any]:
        if whole is not None:
            sent = [column for column in columns if column.name in features]
            if not sent:
                return whole
            filled = whole.copy()
        else:
            missing = [column.name for column in columns if column.name not in features]
            if missing:
                raise InvalidRequest(
                    f"missing features {listed(missing)} of input '{spec.name}': send each as an "
                    f"input of its own name, or all of them as '{spec.name}'"
                )
            sent = list(columns)
            filled = np.empty((rows, len(columns)), NUMPY_OF[spec.datatype])
        for column in sent:
            filled[:, column.index] = features[column.name].data.reshape(rows)
        return filled

    def row_plan(
        self,
        config: ModelConfig,
        version: str,
        staged: StagedVersion,
        views: Mapping[str, FeatureView],
        reference: Reference | None = None,
    ) -> RowPlan:
        """Say what a row of this version looks like in the prediction log."""
        columns = [
            one for source in config.inputs.values() for one in columns_of(source.features, views)
        ]
        return plan_rows(
            model=config.model,
            version=version,
            digest=staged.sha256,
            log=config.log,
            batchable=self.batchable,
            entity=self.entity,
            inputs=list(self.inputs.values()),
            features={
                name: [column.name for column in columns] for name, columns in self._columns.items()
            },
            outputs=staged.signature.outputs,
            views=self._plan.names if self._plan is not None else (),
            view_of={column.field: column.view for column in columns},
            reference=reference,
        )

    def client_inputs(self) -> list[TensorMetadata]:
        """Every tensor a client may send: keys, features and the ONNX inputs themselves.

        An ONNX input that can be assembled from features is optional, and so are they.
        """
        listed = [
            TensorMetadata(name, datatype, (-1,), optional=True)
            for name, datatype in self.entity.items()
        ]
        listed += [
            TensorMetadata(column.name, column.datatype, (-1,), optional=True)
            for column in self._column_of.values()
        ]
        listed += [
            TensorMetadata(spec.name, spec.datatype, spec.shape, optional=name in self._columns)
            for name, spec in self.inputs.items()
        ]
        return listed
