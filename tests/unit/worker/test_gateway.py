"""The gateway as listeners see it: answers from the live table and from everybody's counters."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from pipeline_kit import SIGNATURE, Kit, row

from serving.config.identity import OpenTable, TokenTable, hash_token
from serving.config.schema import TokenEntry
from serving.errors import ModelNotFound, ModelNotReady, PermissionDenied, Unauthenticated
from serving.metrics import MetricsFile
from serving.metrics_folder import fold
from serving.types import Duration, InferRequest, TensorMetadata
from serving.worker.gateway import EXTENSIONS, Gateway


def gateway(kit: Kit, folder: Path, *, trace_rate: float = 0.0) -> Gateway:
    """A gateway over the kit's pipeline; `folder` holds all metrics."""
    return Gateway(
        kit.pipeline,
        ledger=kit.ledger,
        server_name="census",
        metrics_folder=folder,
        trace_rate=trace_rate,
    )


class Elsewhere:
    """Another worker's numbers for one version, as its file holds them."""

    def __init__(self, path: Path, model: str = "m", version: str = "v1") -> None:
        self.file = MetricsFile(path)
        self._labels = {"model": model, "version": version}

    def count(self, family: str, amount: float, **more: str) -> None:
        """Add to a counter."""
        self.file.counter(family, **self._labels, **more).inc(amount)

    def phase(self, phase: str, count: int, seconds: float) -> None:
        """Add requests and their time in one phase."""
        self.count("sluice_inference_phase_total", count, phase=phase)
        self.count("sluice_inference_seconds_total", seconds, phase=phase)

    def batch(self, rows: int, runs: int, seconds: float) -> None:
        """Add session runs of one size."""
        self.count("sluice_batches_total", runs, size=str(rows))
        self.count("sluice_batch_seconds_total", seconds, size=str(rows))

    def last(self, at: float) -> None:
        """Set the time of the last answer."""
        gauge = "sluice_last_inference_timestamp_seconds"
        self.file.gauge(gauge, **self._labels).set(at)


# --- liveness and readiness -----------------------------------------------------------------


async def test_ready_from_the_first_table_until_the_drain(tmp_path: Path) -> None:
    """It lives all the time, and is ready between its first snapshot and the drain."""
    kit = Kit(tmp_path)
    plane = gateway(kit, tmp_path)
    said = [(plane.live(), plane.ready())]

    await kit.serve()
    said.append((plane.live(), plane.ready()))
    plane.draining = True
    said.append((plane.live(), plane.ready()))

    assert said == [(True, False), (True, True), (True, False)]


async def test_a_model_is_ready_while_its_version_answers(tmp_path: Path) -> None:
    """Without a version production's readiness counts; a name nobody configured is an error."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)
    kit.upstreams["v2"].is_ready = False

    assert plane.model_ready("m")
    assert plane.model_ready("m", "v1")
    assert not plane.model_ready("m", "v2")
    with pytest.raises(ModelNotFound):
        plane.model_ready("nobody")
    with pytest.raises(ModelNotFound):
        plane.model_ready("m", "v9")


async def test_an_unloaded_model_is_known_and_not_ready(tmp_path: Path) -> None:
    """Readiness is no; metadata and configuration say why; an unknown version stays unknown."""
    kit = await Kit(tmp_path).serve(unloaded=True)
    plane = gateway(kit, tmp_path)

    assert plane.model_names() == ["m"]
    assert not plane.model_ready("m")
    for ask in (plane.model_metadata, plane.model_config):
        with pytest.raises(ModelNotReady, match="is unloaded"):
            ask("m")
        with pytest.raises(ModelNotFound):
            ask("m", "v9")


# --- descriptions ---------------------------------------------------------------------------


async def test_the_server_offers_what_it_says(tmp_path: Path) -> None:
    """Name from the configuration, a version, and the extensions in order."""
    metadata = gateway(Kit(tmp_path), tmp_path).server_metadata()

    assert metadata.name == "census"
    assert metadata.version
    assert metadata.extensions == sorted(EXTENSIONS)


async def test_metadata_lists_every_version_or_the_one_asked_for(tmp_path: Path) -> None:
    """Tensors are those a client sends, the entity key among them; outputs as declared."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)

    metadata = plane.model_metadata("m")

    assert (metadata.name, metadata.versions) == ("m", ["v1", "v2", "v3"])
    assert [one.name for one in metadata.inputs] == ["key", "X"]
    assert metadata.outputs == [TensorMetadata("sum", "FP32", (-1,))]
    assert plane.model_metadata("m", "v2").versions == ["v2"]
    with pytest.raises(ModelNotFound, match="unknown model"):
        plane.model_metadata("nobody")


async def test_the_configuration_says_how_much_fits_into_a_batch(tmp_path: Path) -> None:
    """A version whose first dimension is not a batch says 0, whatever the YAML allows."""
    kit = Kit(tmp_path, serve={"max_batch_size": 7})
    snapshot = kit.snapshot()
    fixed = msgspec.structs.replace(
        snapshot.staged["m"]["v2"], signature=msgspec.structs.replace(SIGNATURE, batchable=False)
    )
    staged = {"m": {**snapshot.staged["m"], "v2": fixed}}
    snapshot = msgspec.structs.replace(snapshot, staged=staged)
    kit.pipeline.table = await kit.loader.build(snapshot, kit.pipeline.table)
    plane = gateway(kit, tmp_path)

    assert plane.model_config("m").max_batch_size == 7
    assert plane.model_config("m", "v2").max_batch_size == 0
    assert plane.model_config("m").backend == "onnxruntime"


async def test_headers_of_the_plans_are_asked_for(tmp_path: Path) -> None:
    """Listeners keep exactly the headers that overrides and assignments name."""
    kit = Kit(
        tmp_path,
        assignment={"header": "x-user"},
        overrides=[{"header": "x-pin"}, {"roles": ["admin"]}],
    )
    plane = gateway(kit, tmp_path)
    before = plane.header_names()

    await kit.serve()

    assert before == frozenset()
    assert plane.header_names() == {"x-user", "x-pin", "x-sluice-version"}


async def test_a_credential_is_checked_with_its_role(tmp_path: Path) -> None:
    """The known caller gets in as far as his roles go; nobody else does."""
    entry = TokenEntry(name="app", sha256=hash_token("secret"), roles=["infer"])
    guarded = gateway(Kit(tmp_path, identity=TokenTable.from_entries([entry])), tmp_path)

    assert guarded.authorize("Bearer secret", "infer").name == "app"
    with pytest.raises(PermissionDenied):
        guarded.authorize("Bearer secret", "operator")
    with pytest.raises(Unauthenticated):
        guarded.authorize(None, "infer")


async def test_an_open_door_lets_callers_infer_and_no_more(tmp_path: Path) -> None:
    """Without tokens everybody may infer; nobody may override."""
    plane = gateway(Kit(tmp_path, identity=OpenTable()), tmp_path)

    assert plane.authorize(None, "infer").name == "anonymous"
    with pytest.raises(PermissionDenied):
        plane.authorize(None, "operator")


# --- statistics -----------------------------------------------------------------------------


async def test_statistics_add_up_every_process(tmp_path: Path) -> None:
    """This worker's answers, a living neighbour's and a dead one's make one figure each."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)
    dead = Elsewhere(tmp_path / "dead.metrics")
    dead.phase("success", 3, 0.5)
    dead.phase("fail", 1, 0.25)
    dead.batch(2, 5, 0.125)
    dead.count("sluice_inference_rows_total", 10)
    dead.last(1_700_000_009.0)
    assert fold(tmp_path, lambda path: path.stem != "dead") == 1
    neighbour = Elsewhere(tmp_path / "neighbour.metrics")
    neighbour.phase("success", 4, 1.5)
    neighbour.phase("queue", 4, 0.004)
    neighbour.phase("compute_input", 4, 0.001)
    neighbour.phase("compute_output", 4, 0.003)
    neighbour.batch(2, 7, 0.25)
    neighbour.batch(16, 1, 0.5)
    neighbour.count("sluice_inference_rows_total", 30)
    neighbour.last(1_700_000_005.0)
    await kit.infer()
    await kit.infer()

    [figures] = plane.model_statistics("m", "v1")

    assert figures.success == Duration(3 + 4 + 2, 2_000_000_000)
    assert figures.fail == Duration(1, 250_000_000)
    assert figures.queue == Duration(4 + 2, 6_000_000)
    assert figures.compute_input == Duration(4 + 2, 1_000_000)
    assert figures.compute_infer == Duration(2, 4_000_000)
    assert figures.compute_output == Duration(4 + 2, 3_000_000)
    assert figures.inference_count == 10 + 30 + 2
    assert figures.batches == {2: Duration(12, 375_000_000), 16: Duration(1, 500_000_000)}
    assert figures.execution_count == 13
    assert figures.last_inference == 1_700_000_009_000


async def test_statistics_know_of_the_answer_just_given(tmp_path: Path) -> None:
    """Numbers that are counted later are counted before they are shown."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)
    await kit.infer()

    assert plane.model_statistics("m", "v1")[0].success.count == 1


async def test_statistics_list_every_version_of_every_model(tmp_path: Path) -> None:
    """Without names there is one entry a version, zeros for those that never answered."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)
    Elsewhere(tmp_path / "other.metrics", "gone", "v1").phase("success", 9, 1.0)
    await kit.infer(version="v2")

    everything = plane.model_statistics()

    assert [(one.name, one.version, one.success.count) for one in everything] == [
        ("m", "v1", 0),
        ("m", "v2", 1),
        ("m", "v3", 0),
    ]
    assert plane.model_statistics("m") == everything


async def test_statistics_of_an_unloaded_model_stay(tmp_path: Path) -> None:
    """Unloading does not erase what was counted."""
    kit = await Kit(tmp_path).serve()
    await kit.infer()
    await kit.serve(2, unloaded=True)

    assert gateway(kit, tmp_path).model_statistics("m", "v1")[0].success.count == 1


async def test_statistics_of_nobody_are_not_found(tmp_path: Path) -> None:
    """An unknown model or version is an error in the usual words."""
    plane = gateway(await Kit(tmp_path).serve(), tmp_path)

    with pytest.raises(ModelNotFound, match="unknown model: 'nobody'"):
        plane.model_statistics("nobody")
    with pytest.raises(ModelNotFound, match="no version 'v9'"):
        plane.model_statistics("m", "v9")


@pytest.mark.parametrize("served", [True, False])
async def test_a_version_without_a_model_narrows_nothing(tmp_path: Path, served: bool) -> None:
    """Over gRPC a version can come without a name; all models are listed then, or none."""
    kit = Kit(tmp_path)
    if served:
        await kit.serve()
    plane = gateway(kit, tmp_path)

    assert plane.model_statistics("", "v9") == plane.model_statistics()


async def test_a_model_whose_name_begins_anothers_is_not_mixed_up(tmp_path: Path) -> None:
    """Counters are told apart by whole labels."""
    kit = await Kit(tmp_path).serve()
    other = Elsewhere(tmp_path / "other.metrics", "m2", "v1")
    other.batch(4, 4, 1.0)
    other.count("sluice_inference_rows_total", 16)

    [figures] = gateway(kit, tmp_path).model_statistics("m", "v1")

    assert (figures.inference_count, figures.batches) == (0, {})


# --- the repository -------------------------------------------------------------------------


async def test_the_index_lists_versions_with_their_state(tmp_path: Path) -> None:
    """A version that does not answer says why, and is left out if only ready ones are wanted."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)
    kit.upstreams["v2"].is_ready = False

    states = {one.version: (one.state, one.reason) for one in plane.repository_index()}

    assert states["v1"] == states["v3"] == ("READY", "")
    assert states["v2"] == ("UNAVAILABLE", "model 'm' version 'v2' is not ready")
    assert [one.version for one in plane.repository_index(ready_only=True)] == ["v1", "v3"]


async def test_the_index_of_an_unloaded_model_says_unloaded(tmp_path: Path) -> None:
    """Triton's word for it."""
    plane = gateway(await Kit(tmp_path).serve(unloaded=True), tmp_path)

    index = plane.repository_index()

    assert {(one.state, one.reason) for one in index} == {("UNAVAILABLE", "unloaded")}
    assert plane.repository_index(ready_only=True) == []


async def test_before_the_first_table_there_is_nothing(tmp_path: Path) -> None:
    """A worker that has seen no snapshot lists nothing and fails at nothing."""
    plane = gateway(Kit(tmp_path), tmp_path)

    assert plane.model_names() == []
    assert plane.model_statistics() == []
    assert plane.repository_index() == []


# --- Triton's settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "level", "rate"),
    [
        (0.0, "OFF", "0"),
        (1.0, "TIMESTAMPS", "1"),
        (0.25, "TIMESTAMPS", "4"),
        (0.01, "TIMESTAMPS", "100"),
    ],
)
async def test_trace_settings_say_one_in_how_many(
    tmp_path: Path, share: float, level: str, rate: str
) -> None:
    """Our share of sampled requests in Triton's words."""
    plane = gateway(await Kit(tmp_path).serve(), tmp_path, trace_rate=share)

    settings = plane.trace_settings("m")

    assert settings["trace_level"] == [level]
    assert settings["trace_rate"] == rate
    assert settings == plane.trace_settings()
    with pytest.raises(ModelNotFound):
        plane.trace_settings("nobody")


async def test_log_settings_are_what_clients_can_decode(tmp_path: Path) -> None:
    """Names and types are Triton's, which its clients insist on."""
    settings = gateway(Kit(tmp_path), tmp_path).log_settings()

    assert {name: type(value) for name, value in settings.items()} == {
        "log_file": str,
        "log_info": bool,
        "log_warning": bool,
        "log_error": bool,
        "log_verbose_level": int,
        "log_format": str,
    }


async def test_inference_is_the_pipelines(tmp_path: Path) -> None:
    """What listeners call goes straight through the stations."""
    kit = await Kit(tmp_path).serve()
    plane = gateway(kit, tmp_path)
    response = await plane.infer(InferRequest("m", "", [row(1, 2)]), kit.call())

    np.testing.assert_array_equal(response.outputs[0].data, [3])
