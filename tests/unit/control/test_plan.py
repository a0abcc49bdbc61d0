from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from feature_cache.views import FeatureView
from serving.config.schema import GatewayConfig, ModelConfig
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.config.snapshot_codec import dec_hook
from serving.control.publishing.plan import Plan, compare, without_secrets
from serving.traffic.table import ModelRoute
from serving.types import Signature

V1, V2 = "1" * 64, "2" * 64


def model(name: str = "demo", **more: Any) -> ModelConfig:
    """A model with two versions, as YAML would say it."""
    body = {
        "model": name,
        "versions": {
            "v1": {"path": "v1.onnx", "sha256": V1},
            "v2": {"path": "v2.onnx", "sha256": V2},
        },
        "entity": {"person_id": "INT64"},
        "traffic": {"production": "v1", "assignment": {"key": "person_id"}},
    }
    return msgspec.convert({**body, **more}, ModelConfig, dec_hook=dec_hook)


def traffic(**more: Any) -> ModelConfig:
    """The same with another traffic plan."""
    return model(traffic={"production": "v1", "assignment": {"key": "person_id"}, **more})


def snapshot(*models: ModelConfig, revision: int = 1, **more: Any) -> Snapshot:
    """A snapshot with every version staged."""
    return Snapshot(
        revision=revision,
        published_at=float(revision),
        author="ann",
        models={one.model: one for one in models},
        views=more.pop("views", {}),
        staged={
            one.model: {
                version: StagedVersion(
                    path=f"/data/{source.sha256}.onnx",
                    sha256=source.sha256,
                    signature=Signature(inputs=[], outputs=[], batchable=True),
                )
                for version, source in one.versions.items()
            }
            for one in models
        },
        **more,
    )


def gateway(**settings: Any) -> GatewayConfig:
    """`gateway.yaml`."""
    return msgspec.convert(settings, GatewayConfig, dec_hook=dec_hook)


def plan(before: ModelConfig, after: ModelConfig) -> Plan:
    """What changes between two versions of one model's file."""
    return compare(snapshot(before), snapshot(after, revision=2))


def test_nothing_changes_between_equal_configurations() -> None:
    """Another revision, author or time alone is no change."""
    result = plan(model(), model())

    assert result == Plan()
    assert result.serves_the_same
    assert result.lines() == ["nothing changes"]


def test_the_first_configuration_adds_and_loads_everything() -> None:
    """Before the first revision nothing is served."""
    result = compare(None, snapshot(traffic(canary={"version": "v2", "weight": 5})))

    assert result.lines() == [
        "+ demo: production v1, canary v2 5 %",
        "  loads demo/v1, demo/v2",
    ]


def test_a_removed_model_drops_its_sessions() -> None:
    """What is no longer configured is let go."""
    result = compare(snapshot(model(), model("other")), snapshot(model(), revision=2))

    assert result.lines() == ["- other", "  drops other/v1, other/v2"]


def test_a_new_digest_is_shown_short_and_loaded() -> None:
    """A version whose bytes changed needs a session of its own."""
    changed = model(versions={"v1": {"path": "v1.onnx", "sha256": "f" * 64}})
    result = plan(model(), changed)

    assert result.lines() == [
        "~ demo.versions.v1.sha256: 111111111111… -> ffffffffffff…",
        "- demo.versions.v2: path v2.onnx, sha256 222222222222…",
        "  loads demo/v1",
        "  drops demo/v2",
    ]


def test_a_canary_step_needs_no_session_and_names_the_moving_keys() -> None:
    """Raising 5 to 10 percent moves exactly 5 percent of the keys."""
    result = plan(
        traffic(canary={"version": "v2", "weight": 5}),
        traffic(canary={"version": "v2", "weight": 10}),
    )

    assert result.lines() == [
        "~ demo.traffic.canary.weight: 5 -> 10",
        "  moves 5 % of the keys of demo to another version",
    ]


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        ({}, {"canary": {"version": "v2", "weight": 10}}, 10),
        ({"canary": {"version": "v2", "weight": 30}}, {}, 30),
        ({}, {"production": "v2"}, 100),
        # Promotion: the canary's keys stay where they are.
        ({"canary": {"version": "v2", "weight": 10}}, {"production": "v2"}, 90),
        # The two versions change places: those below the cut and above it all move.
        (
            {"canary": {"version": "v2", "weight": 10}},
            {"production": "v2", "canary": {"version": "v1", "weight": 10}},
            100,
        ),
        # A fresh draw: 0.8·0.8 + 0.2·0.2 of the keys happen to keep theirs.
        (
            {"canary": {"version": "v2", "weight": 20}},
            {
                "canary": {"version": "v2", "weight": 20},
                "assignment": {"key": "person_id", "salt": "again"},
            },
            32,
        ),
    ],
)
def test_the_share_of_moving_keys_is_what_the_route_tables_do(
    before: dict[str, Any], after: dict[str, Any], percent: float
) -> None:
    """The stated share is what routing 20,000 keys through both tables shows."""
    old, new = traffic(**before), traffic(**after)
    routes = ModelRoute(old), ModelRoute(new)
    keys = [str(number).encode() for number in range(20_000)]
    moved = sum(routes[0].assign(k, 0).version != routes[1].assign(k, 0).version for k in keys)

    assert plan(old, new).moved_keys["demo"] == pytest.approx(percent)
    assert 100 * moved / len(keys) == pytest.approx(percent, abs=1.5)


def test_without_a_key_nothing_sticks_and_nothing_moves() -> None:
    """Random assignment draws each request anew."""
    old = model(traffic={"production": "v1"})
    new = model(traffic={"production": "v1", "canary": {"version": "v2", "weight": 10}})

    assert plan(old, new).moved_keys == {}


def test_serving_options_are_shown_with_their_units_and_build_sessions_anew() -> None:
    """A deadline is shown as it is written; sessions follow the `serve` section."""
    result = plan(model(), model(serve={"deadline": "50ms", "intra_op_threads": 2}))

    assert result.lines() == [
        "+ demo.serve.deadline: 50ms",
        "~ demo.serve.intra_op_threads: 1 -> 2",
        "  loads demo/v1, demo/v2",
    ]


def test_shadow_changes_are_shown() -> None:
    """A shadow that comes is a change without a session."""
    result = plan(traffic(), traffic(shadow=[{"version": "v2", "percent": 25}]))

    assert result.lines() == ["~ demo.traffic.shadow: [] -> [version v2, percent 25]"]


def test_unloading_and_loading_are_shown() -> None:
    """The repository verbs change what is loaded, and nothing else."""
    loaded, unloaded = snapshot(model()), snapshot(model(), revision=2, unloaded=["demo"])

    assert compare(loaded, unloaded).lines() == ["~ demo: unloaded", "  drops demo/v1, demo/v2"]
    assert compare(unloaded, loaded).lines() == ["~ demo: loaded", "  loads demo/v1, demo/v2"]


def test_views_are_compared() -> None:
    """A feature view that comes, goes or changes is named."""
    view = FeatureView(view="person", entity={"person_id": "int64"}, fields={})
    stale = msgspec.structs.replace(view, on_stale="reject")
    before, after = snapshot(views={"person": view}), snapshot(views={"person": stale})

    assert compare(before, after).lines() == ["~ features.person.on_stale: serve -> reject"]
    assert compare(snapshot(), before).lines() == ["+ features.person"]
    assert compare(before, snapshot()).lines() == ["- features.person"]


def test_an_address_needs_a_restart_and_changes_nothing_now() -> None:
    """Nobody can take it over, so alone it needs no new revision."""
    one, other = gateway(), gateway(listen={"http": "127.0.0.1:9000"})
    result = compare(snapshot(), snapshot(), (one, other))

    assert result.lines() == [
        "~ gateway.listen.http: 127.0.0.1:8000 -> 127.0.0.1:9000 (needs restart)"
    ]
    assert result.serves_the_same
    assert not result.is_followed


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"limits": {"max_body": "1MiB"}},
            "~ gateway.limits.max_body: 16MiB -> 1MiB (rolls workers)",
        ),
        ({"server_name": "triton"}, "~ gateway.server_name: sluice -> triton (rolls workers)"),
        ({"engine": {"workers": 2}}, "~ gateway.engine.workers: 1 -> 2"),
    ],
)
def test_settings_that_running_processes_take_over_say_how(
    settings: dict[str, Any], line: str
) -> None:
    """Workers are replaced, or just become more; either is work for the engine."""
    result = compare(snapshot(), snapshot(), (gateway(), gateway(**settings)))

    assert result.lines() == [line]
    assert not result.serves_the_same
    assert result.is_followed


def test_certificates_roll_workers_and_an_address_written_another_way_is_no_change() -> None:
    """`{address: …}` alone says what the address alone says."""
    long = gateway(listen={"http": {"address": "127.0.0.1:8000"}})
    tls = {"cert": "a.pem", "key": "a.key"}
    secure = gateway(listen={"http": {"address": "127.0.0.1:8000", "tls": tls}})

    assert compare(snapshot(), snapshot(), (gateway(), long)).lines() == ["nothing changes"]
    assert compare(snapshot(), snapshot(), (gateway(), secure)).lines() == [
        "+ gateway.listen.http.tls: cert a.pem, key a.key (rolls workers)"
    ]


def test_another_directory_counts_where_files_are_named() -> None:
    """Tokens and certificates are read from the directory that was applied."""
    plain, tokens = gateway(), gateway(auth={"tokens": "tokens.yaml"})
    moved = ("/a", "/b")

    assert compare(snapshot(), snapshot(), (plain, plain), moved).changes == []
    assert compare(snapshot(), snapshot(), (tokens, tokens), moved).lines() == [
        "~ gateway.files: /a -> /b (rolls workers)"
    ]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://user:hunter2@db:6379/0", "redis://***@db:6379/0"),
        ("rediss://:hunter2@db", "rediss://***@db"),
        ("unix:///run/v.sock?password=hunter2", "unix:///run/v.sock?password=***"),
        ("redis://db:6379/0", "redis://db:6379/0"),
        ("embedded", "embedded"),
    ],
)
def test_the_stores_password_is_never_shown(address: str, shown: str) -> None:
    """An address is shown without what opens it."""
    assert without_secrets(gateway(store=address)).store == shown


def test_a_changed_password_shows_as_a_change_without_the_password() -> None:
    """Both addresses look alike without their secrets; the plan still says something changed."""
    one, other = (gateway(store=f"redis://u:{secret}@db") for secret in ("hunter1", "hunter2"))
    lines = compare(snapshot(), snapshot(), (one, other)).lines()

    assert lines == ["~ gateway.store: another credential (needs restart)"]


@pytest.mark.parametrize("written", [str, repr, msgspec.json.encode])
def test_a_plan_can_be_written(written: Callable[[object], object]) -> None:
    """Plans travel as JSON and appear in logs."""
    assert written(plan(model(), traffic(production="v2")))


def put(weight: float = 0.0, **more: Any) -> RolloutTraffic:
    """What a rollout from v1 to v2 puts in place."""
    known = {"id": "demo-r1", "revision": 1, "canary": "v2", "production": "v1"}
    return RolloutTraffic(**{**known, "weight": weight, **more})


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (None, put(), "+ demo.demo-r1: v2 0 %"),
        (put(), put(shadow=25.0), "~ demo.demo-r1: v2 0 % -> v2 0 %, copies 25 %"),
        (put(5.0), put(25.0), "~ demo.demo-r1: v2 5 % -> v2 25 %"),
        (put(5.0), put(5.0, latency_bounds={"slow": [0.1]}), "~ demo.demo-r1: what is counted"),
        (put(100.0), put(production="v2"), "~ demo.demo-r1: v2 100 % -> production v2"),
        (put(), None, "- demo.demo-r1: v2 0 %"),
    ],
)
def test_what_a_rollout_moves_is_a_change(
    before: RolloutTraffic | None, after: RolloutTraffic | None, line: str
) -> None:
    """The history says what each of its steps put in place."""
    one, other = (
        snapshot(model(), rollouts={"demo": found} if found is not None else {})
        for found in (before, after)
    )

    assert line in compare(one, other).lines()


def test_a_rollout_section_is_told_in_a_line() -> None:
    """When it comes and when it goes; what changes inside it, by its path."""
    section = {
        "canary": "v2",
        "steps": [{"shadow": 25}, {"weight": 5}, {"approve": {"group": "ml"}}, {"weight": 100}],
        "guardrails": {"rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}]},
    }
    plain, rolled = snapshot(model()), snapshot(model(rollout=section))
    words = "v2 by shadow 25 %, weight 5 %, approval of ml, weight 100 %; rules: errors"

    assert f"+ demo.rollout: {words}" in compare(plain, rolled).lines()
    assert f"- demo.rollout: {words}" in compare(rolled, plain).lines()
    looser = snapshot(model(rollout={**section, "guardrails": {"alpha": 0.1}}))
    assert "~ demo.rollout.guardrails.alpha: 0.05 -> 0.1" in compare(rolled, looser).lines()
