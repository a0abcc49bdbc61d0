"""From snapshot to live table: what is reused, what is closed, and when nothing changes."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pipeline_kit import SIGNATURE, Kit, ScriptedUpstream, row

from serving.config.schema import ModelConfig, ServeConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.errors import EngineError, InvalidArtifact, InvalidConfig, ModelNotFound, ModelNotReady
from serving.types import InferRequest, Tensor
from serving.worker.table import LiveTable

VERSIONS = ("v1", "v2", "v3")


class Loading(Kit):
    """A kit that keeps every upstream it loads, and fails on the versions it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.loaded: list[tuple[str, ScriptedUpstream]] = []
        self.failures: dict[str, Exception] = {}

    async def _load(self, config: ModelConfig, version: str, staged: StagedVersion) -> Any:
        if version in self.failures:
            raise self.failures[version]
        upstream = await super()._load(config, version, staged)
        self.loaded.append((version, upstream))
        return upstream

    async def take(self, snapshot: Snapshot) -> None:
        """Replace the table by this snapshot, as a worker does."""
        old = self.pipeline.table
        self.pipeline.table = new = await self.loader.build(snapshot, old)
        await self.loader.retire(old, new)

    @property
    def now(self) -> dict[str, Any]:
        """The upstreams that answer for the model, by version."""
        return {name: lane.upstream for name, lane in self.pipeline.table.model("m").lanes.items()}

    def closed(self) -> list[str]:
        """The versions of upstreams closed so far, in the order they were loaded."""
        return [version for version, upstream in self.loaded if upstream.closed]


@pytest.fixture
async def kit(tmp_path: Path) -> Loading:
    """Three versions served under revision 1."""
    kit = Loading(tmp_path)
    await kit.take(kit.snapshot(1))
    return kit


def edited(kit: Kit, revision: int, **changes: Any) -> Snapshot:
    """The kit's snapshot with fields of the model's configuration replaced."""
    snapshot = kit.snapshot(revision)
    config = msgspec.structs.replace(snapshot.models["m"], **changes)
    return msgspec.structs.replace(snapshot, models={"m": config})


def restaged(snapshot: Snapshot, version: str, sha256: str) -> Snapshot:
    """The snapshot with another file behind a version; empty: no file at all."""
    staged = dict(snapshot.staged["m"])
    if sha256:
        staged[version] = StagedVersion(path=version, sha256=sha256, signature=SIGNATURE)
    else:
        del staged[version]
    return msgspec.structs.replace(snapshot, staged={"m": staged})


# --- what is reused -------------------------------------------------------------------------


async def test_what_has_not_changed_is_not_loaded_again(kit: Loading) -> None:
    """Another traffic plan takes over the upstreams of the table before, all still open."""
    before = kit.now

    await kit.take(kit.snapshot(2, production="v2"))

    assert kit.pipeline.table.revision == 2
    assert kit.pipeline.table.model("m").route.production == "v2"
    assert all(kit.now[version] is before[version] for version in VERSIONS)
    assert len(kit.loaded) == 3
    assert kit.closed() == []


async def test_another_file_is_loaded_and_the_old_one_closed(kit: Loading) -> None:
    """A version whose digest changed gets a new upstream; its neighbours keep theirs."""
    before = kit.now

    await kit.take(restaged(kit.snapshot(2), "v2", "f" * 64))

    assert [version for version, _ in kit.loaded] == [*VERSIONS, "v2"]
    assert kit.now["v2"] is kit.loaded[-1][1]
    assert kit.now["v1"] is before["v1"]
    assert before["v2"].closed
    assert kit.closed() == ["v2"]


async def test_other_serving_options_load_everything_anew(kit: Loading) -> None:
    """Batch bounds and threads belong to the upstream, so it is built again with them."""
    await kit.take(edited(kit, 2, serve=ServeConfig(max_batch_size=3)))

    assert [version for version, _ in kit.loaded] == [*VERSIONS, *VERSIONS]
    assert [upstream.closed for _, upstream in kit.loaded] == [True] * 3 + [False] * 3


async def test_a_version_no_longer_staged_is_closed(kit: Loading) -> None:
    """It is known as long as the configuration names it, and not ready."""
    await kit.take(restaged(kit.snapshot(2), "v3", ""))

    assert kit.closed() == ["v3"]
    with pytest.raises(ModelNotReady, match="version 'v3' is not ready"):
        kit.pipeline.table.model("m").lane("v3")


async def test_a_model_no_longer_configured_is_closed(kit: Loading) -> None:
    """Nothing of it answers, and nothing of it stays in memory."""
    empty = msgspec.structs.replace(kit.snapshot(2), models={}, staged={})

    await kit.take(empty)

    assert kit.closed() == list(VERSIONS)
    with pytest.raises(ModelNotFound):
        kit.pipeline.table.model("m")


async def test_unloading_closes_and_loading_again_loads(kit: Loading) -> None:
    """An unloaded model holds no session; when it comes back it is loaded anew."""
    await kit.take(kit.snapshot(2, unloaded=True))
    unloaded = kit.closed()
    await kit.take(kit.snapshot(3))

    assert unloaded == list(VERSIONS)
    assert [version for version, _ in kit.loaded] == [*VERSIONS, *VERSIONS]
    assert all(not upstream.closed for upstream in kit.now.values())


async def test_a_version_that_a_request_waits_to_ask_is_closed_after_it(kit: Loading) -> None:
    """Its features come when the table is another already; its session is still there then."""
    old = kit.pipeline.table
    lane = old.model("m").lanes["v2"]
    lane.joining += 1  # as `Pipeline._read` says while it waits for the store
    empty = msgspec.structs.replace(kit.snapshot(2), models={}, staged={})

    taking = asyncio.create_task(kit.take(empty))
    await asyncio.sleep(0.05)
    assert kit.pipeline.table is not old
    assert kit.closed() == []

    lane.joining -= 1
    await taking
    assert kit.closed() == list(VERSIONS)


async def test_retiring_a_table_for_itself_closes_nothing(kit: Loading) -> None:
    """What the new table uses stays open, whoever else used it."""
    table = kit.pipeline.table

    await kit.loader.retire(table, table)
    await kit.loader.retire(LiveTable.empty(), table)

    assert kit.closed() == []


async def test_requests_go_on_while_a_table_is_built(kit: Loading) -> None:
    """The old table answers until the new one is there, with nothing of it closed."""
    new = await kit.loader.build(
        edited(kit, 2, serve=ServeConfig(max_batch_size=3)), kit.pipeline.table
    )

    response = await kit.infer()

    assert response.outputs[0].data.tolist() == [3.0]
    assert kit.closed() == []
    assert new.revision == 2


# --- all or nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        InvalidArtifact("v3 is no model"),
        InvalidConfig("v3 is no model"),
        EngineError("v3 is no model"),
        ModelNotReady("v3 is no model"),
    ],
)
async def test_a_version_that_does_not_load_changes_nothing(
    kit: Loading, failure: Exception
) -> None:
    """What was loaded for the refused table is closed; what was serving goes on."""
    before = kit.pipeline.table
    kit.failures = {"v3": failure}
    refused = edited(kit, 2, serve=ServeConfig(max_batch_size=3))

    with pytest.raises((InvalidArtifact, InvalidConfig), match="v3 is no model"):
        await kit.take(refused)

    assert kit.pipeline.table is before
    assert [upstream.closed for _, upstream in kit.loaded] == [False] * 3 + [True] * 2
    assert (await kit.infer()).outputs[0].data.tolist() == [3.0]


async def test_a_refused_table_closes_nothing_that_it_would_have_reused(kit: Loading) -> None:
    """Upstreams shared with the serving table are not the refused one's to close."""
    kit.failures = {"v3": InvalidArtifact("gone")}

    with pytest.raises(InvalidArtifact, match="gone"):
        await kit.take(restaged(kit.snapshot(2), "v3", "f" * 64))

    assert kit.closed() == []


async def test_an_impossible_join_is_refused_and_closes_what_was_loaded(kit: Loading) -> None:
    """A version that loads but cannot be fed counts as one that does not load."""
    impossible = edited(
        kit,
        2,
        serve=ServeConfig(max_batch_size=3),
        outputs=["no such output"],
    )

    with pytest.raises(InvalidConfig):
        await kit.take(impossible)

    assert kit.closed() == ["v1"]
    assert (await kit.infer()).version == "v1"


async def test_a_refused_table_can_be_followed_by_a_good_one(kit: Loading) -> None:
    """After a failure the next revision starts from the table that serves."""
    kit.failures = {"v3": InvalidArtifact("gone")}
    with pytest.raises(InvalidArtifact):
        await kit.take(restaged(kit.snapshot(2), "v3", "f" * 64))
    kit.failures = {}

    await kit.take(restaged(kit.snapshot(3), "v3", "f" * 64))

    assert kit.pipeline.table.revision == 3
    assert kit.closed() == ["v3"]


async def test_failures_on_the_first_table_leave_it_empty(tmp_path: Path) -> None:
    """A worker that cannot load its first snapshot serves nothing."""
    kit = Loading(tmp_path)
    kit.failures = {"v2": InvalidArtifact("gone")}

    with pytest.raises(InvalidArtifact):
        await kit.take(kit.snapshot())

    assert kit.pipeline.table.models == {}
    assert kit.closed() == ["v1"]


# --- looking things up ----------------------------------------------------------------------


async def test_unknown_names_are_quoted_only_so_far(kit: Loading) -> None:
    """A caller's megabyte of a name does not come back in the error."""
    table = kit.pipeline.table

    with pytest.raises(ModelNotFound, match=r"^Request for unknown model") as of_model:
        table.model("x" * 10_000)
    with pytest.raises(ModelNotFound, match=r"^Request for unknown model") as of_version:
        table.model("m").lane("x" * 10_000)

    assert len(of_model.value.message) < 200
    assert len(of_version.value.message) < 200


async def test_an_unready_version_is_not_an_unknown_one(kit: Loading) -> None:
    """Who asks by name is told which of the two it is."""
    live = kit.pipeline.table.model("m")
    kit.upstreams["v2"].is_ready = False

    with pytest.raises(ModelNotReady, match="version 'v2' is not ready"):
        live.lane("v2")
    with pytest.raises(ModelNotFound, match="no version 'v9'"):
        live.lane("v9")


async def test_a_decision_for_an_unloaded_model_finds_no_lane(kit: Loading) -> None:
    """The hot path's look-up gives the lane that would answer, or says why there is none."""
    decision = kit.pipeline.table.model("m").route.pin("v2", "version")
    found = kit.pipeline.table.model("m").answering(decision)
    await kit.take(kit.snapshot(2, unloaded=True))

    assert (found.model, found.version) == ("m", "v2")
    with pytest.raises(ModelNotReady, match="is unloaded"):
        kit.pipeline.table.model("m").answering(decision)


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        ({}, set()),
        ({"assignment": {"header": "x-user"}}, {"x-user"}),
        ({"overrides": [{}, {"header": "x-pin"}]}, {"x-sluice-version", "x-pin"}),
    ],
)
async def test_a_table_knows_the_headers_its_plans_read(
    kit: Loading, plan: dict[str, Any], names: set[str]
) -> None:
    """Listeners keep these and drop all others."""
    await kit.take(kit.snapshot(2, **plan))

    assert kit.pipeline.table.header_names == names


def asking(*inputs: Tensor) -> InferRequest:
    """A request with these tensors."""
    return InferRequest("m", "", list(inputs))


def blob(*values: bytes) -> np.ndarray[Any, Any]:
    """A BYTES tensor's array."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


SPLIT: dict[str, Any] = {"canary": {"version": "v2", "weight": 50}}


@pytest.mark.parametrize(
    ("inputs", "key"),
    [
        ([Tensor("key", "INT64", np.array([42, 43]))], b"42"),
        ([Tensor("key", "INT64", np.array([[-7]]))], b"-7"),
        ([Tensor("key", "BYTES", blob(b"ann", b"bob"))], b"ann"),
        ([row(1, 2), Tensor("key", "INT64", np.array([42]))], b"42"),
        ([Tensor("key", "INT64", np.array([], np.int64))], None),
        ([row(1, 2)], None),
        ([], None),
    ],
)
async def test_the_first_row_of_the_entity_is_the_key(
    kit: Loading, inputs: list[Tensor], key: bytes | None
) -> None:
    """A batch goes where its first row goes; an empty or missing entity has no key."""
    await kit.take(kit.snapshot(2, assignment={"key": "key"}, **SPLIT))

    assert kit.pipeline.table.model("m").key_of(asking(*inputs), {}) == key


async def test_a_header_holds_the_key_where_the_plan_says_so(kit: Loading) -> None:
    """An empty header is no key."""
    await kit.take(kit.snapshot(2, assignment={"header": "x-user"}, **SPLIT))
    live = kit.pipeline.table.model("m")

    assert live.key_of(asking(row(1, 2)), {"x-user": "ann"}) == b"ann"
    assert live.key_of(asking(row(1, 2)), {"x-user": ""}) is None
    assert live.key_of(asking(row(1, 2)), {}) is None


async def test_a_plan_that_draws_no_lots_reads_no_key(kit: Loading) -> None:
    """Where production answers everybody, nobody's key is looked at."""
    await kit.take(kit.snapshot(2, assignment={"key": "key"}))

    keyed = asking(Tensor("key", "INT64", np.array([42])))
    assert kit.pipeline.table.model("m").key_of(keyed, {}) is None


async def test_an_empty_table_is_revision_zero() -> None:
    """Before the first snapshot there is a table, with nothing in it."""
    table = LiveTable.empty()

    assert (table.revision, dict(table.models), table.header_names) == (0, {}, frozenset())
